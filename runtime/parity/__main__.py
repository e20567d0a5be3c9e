"""The gate: does a file compute what the trained student computes? `python -m runtime.parity student.pt FILE...`

Every file runs on real photographs, and its output is held against the PyTorch reference of the same precision:
integers against integers, floats against floats. What it costs in quality is counted against the float student.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from compress import files
from compress.checkpoint import load_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, open_benchmark
from compress.errors import BadInput
from compress.progress import progress
from runtime.latency import RUNS, check_runs
from runtime.parity.gate import check
from runtime.parity.junit import write_junit
from runtime.parity.limits import Policy, checked_limits, read_policy
from runtime.parity.quality import backbone_here
from runtime.parity.verdict import print_report
from runtime.selection import choose


def main(
    student: Path,
    paths: list[Path],
    *,
    engines: Sequence[str] = (),
    sets: Sequence[str] = (),
    data: Path | None = None,
    images: Path | None = None,
    limits: Path | None = None,
    lpips: Literal["auto", "alex", "squeeze", "vgg", "none"] = "auto",
    json: Path | None = None,
    junit: Path | None = None,
    threads: int = 1,
    runs: int = RUNS,
    float_psnr: float | None = None,
    int8_lsb: float | None = None,
    int8_within: float | None = None,
    int8_identical: float | None = None,
    loss: float | None = None,
    lpips_change: float | None = None,
    latency_ratio: float | None = None,
    peak_ratio: float | None = None,
    peak_mib: float | None = None,
    size_kb: float | None = None,
) -> int:
    """Holds exported files against the student that they came from. Exits with 0 where every file passes, with 1 where one
    fails or could not be judged, and with 2 for wrong arguments. docs/parity.md explains every column and limit.

    Args:
        student: the student.pt; for int8 files the int8 one, which judges float files of the same student as well.
        paths: exported files.
        engines: a file runs on each of these that takes its kind, such as litert litert-builtin; default: on its own.
        sets: benchmark sets below the data folder; default: 'skimage', photographs that are held out from training.
        data: folder of benchmark sets; default: the environment's POCKETSR_DATA, else data/eval.
        images: folder of HR photographs of yours to compare on.
        limits: YAML file of limits, for all files and for formats, precisions and engines; options below go before it.
        lpips: backbone of LPIPS; auto takes one whose weights are on this machine, and leaves LPIPS out where none is.
        json: file for all figures.
        junit: file for the verdicts as JUnit XML, for CI.
        threads: of every engine.
        runs: timed runs per file.
        float_psnr: least PSNR in dB between a float file and the reference.
        int8_lsb: largest difference of an int8 file, in LSB.
        int8_within: least share of an int8 file's values within 1 LSB.
        int8_identical: least share of an int8 file's values that equal the reference's.
        loss: largest loss in dB against ground truth.
        lpips_change: largest growth of LPIPS against ground truth.
        latency_ratio: largest median time of the network, in times of PyTorch's.
        peak_ratio: largest peak memory, in times of PyTorch's.
        peak_mib: largest peak memory, in MiB.
        size_kb: largest file, in units of 1000 bytes.
    """
    asked = checked_limits(
        {
            "float_psnr": float_psnr, "int8_lsb": int8_lsb, "int8_within": int8_within, "int8_identical": int8_identical,
            "loss": loss, "lpips_change": lpips_change, "latency_ratio": latency_ratio, "peak_ratio": peak_ratio,
            "peak_mib": peak_mib, "size_kb": size_kb,
        },
        "the options",
    )  # fmt: skip
    policies = [*([read_policy(limits)] if limits else []), Policy(every=asked)]
    loaded = load_student(student)
    _check_results([one for one in (json, junit) if one], [student, *paths, *([limits] if limits else [])])
    files.check_writable(json, junit)
    check_runs(runs)
    choose(paths, engines)  # before anything slow
    names = [*sets, *([str(images)] if images else [])] or [BUILT_IN]
    benchmarks = [open_benchmark(name, loaded.scale, data) for name in names]
    backbone, without = (None, "--lpips none") if lpips in ("none", "auto") else (lpips, "")
    if lpips == "auto":
        backbone, without = backbone_here()
    total, done = sum(map(len, benchmarks)), 0
    with progress("parity", total) as update:

        def count(name: str) -> None:
            nonlocal done
            done += 1
            update(done, name)

        report = check(
            loaded, paths, benchmarks, policies, engines=engines, lpips=backbone, without_lpips=without, threads=threads,
            runs=runs, on_image=count,
        )  # fmt: skip
    print_report(report)
    if json:
        files.write_text(json, report.to_json())
    if junit:
        write_junit(junit, report)
    return 0 if report.passed else 1


def _check_results(results: list[Path], inputs: list[Path]) -> None:
    """Raises BadInput for results that would take the place of each other, or of what is judged."""
    taken = {one.resolve() for one in inputs}
    for one in results:
        if one.resolve() in taken:
            raise BadInput(f"expected a file of its own for each result, found {one} given twice: name another one.")
        taken.add(one.resolve())


if __name__ == "__main__":
    command_line(main, contained=True)
