"""Size, latency and quality of the zoo and of published networks: `python -m benchmarks.zoo`, for the plots of reports.

Every network becomes a .tflite by our exporter (int8 after training, where it fits the deploy graph); all files are
judged on the same photographs and timed in one run, taking turns, in another order every round.
"""

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.any_tflite import noise
from benchmarks.chains import load_chain
from compress import metrics
from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, find_benchmarks, open_benchmark
from compress.errors import BadInput
from compress.evaluate import Upscaler, bicubic_upscaler, torch_upscaler
from compress.files import sha256, write_text
from compress.published import Layout, load_published
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.metadata import read_tflite
from export.tflite import PRODUCERS, export_tflite
from runtime.engines import open_model
from runtime.engines.base import Engine
from runtime.report.figures import FIGURES
from runtime.report.machine import machine
from runtime.report.yardstick import SIDE, yardstick

SETS = (BUILT_IN, "Set5", "Set14", "BSD100")
SETS_OF_HEAVY = (BUILT_IN, "Set5")
HEAVY = 200_000  # parameters, from which a network is judged on fewer photographs, and quantized in one way only
CROPS, FEW_CROPS = 128, 16  # of calibration
PUBLISHED: Mapping[str, tuple[str, Layout]] = {
    "SRGAN": ("srgan_leftthomas_x4.pth", "leftthomas"),
    "SRResNet-8": ("srresnet8_goldhuang_x4.pth", "goldhuang"),
    "RLFN": ("rlfn_x4.pth", "rlfn"),
}
CHAINS = ("ETDS_M4C32_x4", "ETDS_M6C32_x4", "ETDS_M7C48_x4", "ABPN_M4C28_x4", "ABPN_M6C40_x4", "Plain_M6C32_x4")
Row = dict[str, Any]


@dataclass(frozen=True)
class Entry:
    """One file to measure; `upscale` is what judges its quality: the file itself, or its network where it takes one size."""

    name: str
    group: str
    file: Path
    parameters: int
    upscale: Upscaler


def main(
    *,
    zoo: Path = Path("zoo"),
    weights: Path = Path("../shared/data/weights"),
    rounds: int = 20,
    sets: Sequence[str] = SETS,
    work: Path = Path("runs/zoo"),
    out: Path = FIGURES,
) -> None:
    """Measures the zoo's files and published networks, for the plots of reports.

    Args:
        zoo: folder of exported .tflite files.
        weights: folder of published weights; those that are missing are left out.
        rounds: of latency, in each of which every file runs once.
        sets: benchmark sets; networks of 200,000 parameters or more are judged on skimage and Set5 alone.
        work: folder for the files of the published networks.
        out: the JSON to write, which reports read.
    """
    known = [name for name in find_benchmarks() if name in sets]
    work.mkdir(parents=True, exist_ok=True)
    entries = [*_zoo(zoo), *_peers(weights, work)]
    engines = {entry.file: open_model(entry.file) for entry in entries}
    rows: list[Row] = []
    for scale in sorted({engine.scale for engine in engines.values()}):
        group = [entry for entry in entries if engines[entry.file].scale == scale]
        _say(f"timing {len(group)} files at x{scale}")
        latencies = _latencies([engines[entry.file] for entry in group], yardstick(scale), rounds)
        for entry, latency in zip(group, latencies, strict=True):
            _say(f"judging {entry.name} {engines[entry.file].metadata.precision}")
            rows.append(_row(entry, engines[entry.file], latency, known))
        rows.append(_bicubic(scale, known))
    figures = {
        "protocol": {
            "latency": f"the network alone, LR image of {SIDE}x{SIDE} pixels, one thread, median of {rounds} alternating rounds",
            "ratio": "median over the rounds of the latency over that of the yardstick, a float network in PyTorch",
            **{name: value for name, value in vars(metrics.Protocol()).items() if value is not None},
        },
        "machine": machine(),
        "made": time.strftime("%Y-%m-%d"),
        "versions": {name: engines[entries[0].file].metadata.producer.get(name) for name in PRODUCERS},
        "rows": rows,
    }
    write_text(out, json.dumps(figures, indent=1) + "\n")
    _print(rows)
    print(f"wrote {out}")


def _zoo(folder: Path) -> Iterator[Entry]:
    """The files that the zoo ships."""
    for file in sorted(folder.glob("*.tflite")):
        engine = open_model(file)
        student = next(path for path in folder.glob("*.pt") if sha256(path) == engine.metadata.student_sha256)
        count = load_student(student).deploy().parameters_count()
        yield Entry(file.stem, "zoo", file, count, lambda lr, engine=engine: engine.upscale(lr).image)


def _peers(weights: Path, work: Path) -> Iterator[Entry]:
    """Published networks as files of ours: float, and int8 where the network has an int8 form; those that an earlier run
    wrote are kept."""
    for name, student in _published(weights, work):
        for precision in ("float32", "int8") if student.has_graph else ("float32",):
            file = work / f"{name.replace(' ', '_')}_{precision}.tflite"
            if not _written(file, student):
                _say(f"writing {name} {precision}")
                given = _quantized(student) if precision == "int8" else student
                try:
                    export_tflite(given, file, precision, sizes=None if student.has_graph else [[SIDE, SIDE]])
                except BadInput as error:
                    print(f"left out: {error}")
                    continue
            yield Entry(name, "peer", file, _parameters(student), _upscaler(student, file))


def _written(file: Path, student: Student) -> bool:
    if not file.is_file():
        return False
    metadata = read_tflite(file)
    return metadata is not None and metadata.student_sha256 == student.file_hash


def _quantized(student: Student) -> Student:
    """Heavy networks are quantized with few crops and in one way; for the others every way is tried."""
    heavy = _parameters(student) >= HEAVY
    crops = calibration_crops(BUILT_IN, student.scale, count=FEW_CROPS if heavy else CROPS)
    return replace(quantize_student(student, crops, plain=heavy), file_hash=student.file_hash)


def _published(weights: Path, work: Path) -> Iterator[tuple[str, Student]]:
    for name, (file, layout) in PUBLISHED.items():
        if (weights / file).is_file():
            student = Student.of(load_published(weights / file, layout), provenance={"published": file})
            yield name, replace(student, file_hash=save_student(student, work / f"{name.replace(' ', '_')}.pt"))
    for name in CHAINS:
        file = weights / "peers" / f"{name}.pth"
        if file.is_file():
            yield name.removesuffix("_x4").replace("_", " "), load_chain(file)


def _parameters(student: Student) -> int:
    network = student.network()
    return (
        student.deploy().parameters_count() if student.has_graph else sum(one.numel() for one in network.parameters())
    )


def _upscaler(student: Student, file: Path) -> Upscaler:
    if not student.has_graph:
        return torch_upscaler(student.network())
    engine = open_model(file)
    return lambda lr: engine.upscale(lr).image


def _latencies(engines: Sequence[Engine], stick: Engine, rounds: int) -> list[tuple[float, float]]:
    """Per file: the median in milliseconds, and the median of what a round takes over the yardstick in it."""
    every, lr, draw = [*engines, stick], noise(SIDE), np.random.default_rng(0)
    for engine in every:
        engine.upscale(lr)
    took = np.zeros((rounds, len(every)))
    for one in took:
        for i in draw.permutation(len(every)):
            one[i] = 1000 * every[i].upscale(lr).timing.run
    ratios = took / took[:, -1:]
    return [(float(np.median(took[:, i])), float(np.median(ratios[:, i]))) for i in range(len(engines))]


def _row(entry: Entry, engine: Engine, latency: tuple[float, float], sets: Sequence[str]) -> Row:
    wanted = SETS_OF_HEAVY if entry.parameters >= HEAVY else sets
    return {
        "name": entry.name,
        "group": entry.group,
        "scale": engine.scale,
        "precision": engine.metadata.precision,
        "parameters": entry.parameters,
        "bytes": engine.file_bytes(),
        "ms": round(latency[0], 3),
        "ratio": round(latency[1], 5),
        "psnr": {name: _psnr(entry.upscale, name, engine.scale) for name in sets if name in wanted},
    }


def _bicubic(scale: int, sets: Sequence[str]) -> Row:
    quality = {name: _psnr(bicubic_upscaler(scale), name, scale) for name in sets}
    return {"name": "bicubic", "group": "floor", "scale": scale, "psnr": quality}


def _psnr(upscale: Upscaler, name: str, scale: int) -> float:
    benchmark = open_benchmark(name, scale)
    return round(statistics.mean(metrics.psnr(upscale(lr), hr, scale) for _, lr, hr in benchmark), 4)


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def _print(rows: Sequence[Row]) -> None:
    table = Table(
        "file", "precision", "parameters", "bytes", "ms", "ratio", *SETS, title=f"LR {SIDE}x{SIDE}, one thread"
    )
    for row in rows:
        cells = [str(row.get(key, "")) for key in ("name", "precision", "parameters", "bytes", "ms", "ratio")]
        table.add_row(*cells, *(f"{row['psnr'][name]:.2f}" if name in row["psnr"] else "" for name in SETS))
    Console(width=160).print(table)


if __name__ == "__main__":
    command_line(main)
