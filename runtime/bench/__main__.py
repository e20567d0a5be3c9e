"""How fast files are: `python -m runtime.bench FILE...`. Needs no student and no ground truth."""

import dataclasses
import json as json_module
import os
import platform
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compress import files
from compress.cli import command_line
from compress.errors import BadInput
from compress.progress import progress
from runtime.bench import tables
from runtime.bench.compare import Comparison, compare
from runtime.bench.measure import Measurement, measure, plain
from runtime.bench.profile import PROFILERS, Operator
from runtime.engines.base import Image, check_threads
from runtime.latency import RUNS
from runtime.names import told_apart
from runtime.selection import Choice, choose

LARGEST_SIDE = 8192


def main(
    paths: list[Path],
    *,
    engines: Sequence[str] = (),
    against: Path | None = None,
    height: int = 128,
    width: int = 128,
    threads: Sequence[int] = (1,),
    runs: int = RUNS,
    profile: bool = False,
    json: Path | None = None,
) -> None:
    """Times files on engines: prepare, run and read (median / 90th percentile), memory, threads, operators.

    All take turns on the same random image, so that a busy moment of the machine falls on all of them. Figures are of
    this machine, or of the device that an engine names, such as adb.

    Args:
        paths: exported files, or a student.pt.
        engines: names of engines; each file runs on every one that takes it. Default: its format's own.
        against: another file, or a student.pt, that each file is compared with, run for run in alternation.
        height: of the LR image, in pixels.
        width: of the LR image, in pixels.
        threads: numbers of threads to try, as in `--threads 1 2 4`.
        runs: timed ones of each, after a warm-up.
        profile: list the operators by the time that they take (.tflite, .onnx, student.pt).
        json: file for all figures.
    """
    _check(height, width, threads, runs)
    files.check_writable(json)
    if against and all(path == against for path in paths):
        raise BadInput(f"expected --against to name another file, found {against} itself: leave it out.")
    choices = choose([*paths, *([against] if against else [])], engines)
    lr = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    total = len(choices) * len(set(threads))
    with progress("bench", total) as update:
        done: list[str] = []
        rows = measure(
            choices, lr, threads=threads, runs=runs, on_done=lambda name: update(len(done.append(name) or done), name)
        )
    compared = _compared(rows, against) if against else []
    profiles = _profiles(choices, lr, threads[0], runs) if profile else {}
    console = tables.console()
    console.print(tables.measurements(rows))
    console.print(f"LR image of {width}x{height} random pixels, {runs} runs in turns; median / 90th percentile")
    for name, operators in profiles.items():
        console.print(tables.profile(name, operators))
    if against and not compared:
        console.print(f"nothing to compare: no engine gives times of both {against} and another file")
    for first, second, found in compared:
        console.print(found.sentence(first, second), soft_wrap=True)
    if json:
        content = {
            "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.platform()},
            "lr_size": [height, width],
            "runs": runs,
            "measurements": [plain(row) for row in rows],
            "comparisons": [{"first": a, "second": b, **dataclasses.asdict(found)} for a, b, found in compared],
            "profiles": {name: [dataclasses.asdict(one) for one in operators] for name, operators in profiles.items()},
        }
        files.write_text(json, json_module.dumps(content, indent=1) + "\n")


def _check(height: int, width: int, threads: Sequence[int], runs: int) -> None:
    for name, value, most in (
        ("--height", height, LARGEST_SIDE),
        ("--width", width, LARGEST_SIDE),
        ("--runs", runs, 10**6),
    ):
        if not 1 <= value <= most:
            raise BadInput(f"expected {name} between 1 and {most}, found {value}: correct it.")
    for count in threads:
        check_threads(count)


def _compared(rows: Sequence[Measurement], against: Path) -> list[tuple[str, str, Comparison]]:
    """Every row with the one of the other file that has as many threads, where both ran."""
    others = [row for row in rows if row.description.path == against and row.runs_ms]
    return [
        (_label(row), _label(other), compare(row.runs_ms, other.runs_ms))
        for row in rows
        for other in others
        if row.runs_ms and row.threads == other.threads and row.description.path != against
    ]


def _label(row: Measurement) -> str:
    return f"{row.name} ({row.engine}, {row.threads} thread{'' if row.threads == 1 else 's'})"


def _profiles(choices: Sequence[Choice], lr: Image, threads: int, runs: int) -> dict[str, list[Operator]]:
    """By file and engine. Raises BadInput where none of the engines tells."""
    told = [one for one in choices if one.engine in PROFILERS]
    if not told:
        raise BadInput(
            f"expected an engine that tells the times of operators ({', '.join(PROFILERS)}), found "
            f"{', '.join(dict.fromkeys(one.engine for one in choices))}: leave out --profile."
        )
    names = told_apart(one.path for one in choices)
    return {f"{names[one.path]} ({one.engine})": PROFILERS[one.engine](one.path, lr, threads, runs) for one in told}


def _processor() -> str:
    """Its name, as Linux knows it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    command_line(main, contained=True)
