"""The same weights, exported by us and by others, side by side in one run.

`python -m benchmarks.export [--student zoo/anchor_x4.pt] [--side 64] [--out runs/bench]`

Everybody starts from the float student and the same calibration crops, and is used as its documentation says
(`benchmarks.peers`). Latencies alternate between the files, in another order every round, and a ratio is the median of the
rounds' ratios, so that a busy machine slows all of them.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.any_tflite import AnyTflite, in_tiles, noise, peak_memory
from benchmarks.peers import Task, ai_edge_quantizer_int8, litert_torch_alone, onnx2tf_int8, tensorflow_converter
from compress.checkpoint import load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, Benchmark, find_benchmarks, open_benchmark
from compress.errors import BadInput
from compress.evaluate import Upscaler, evaluate, torch_upscaler
from compress.files import write_text
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.audit import audit_tflite
from export.tflite import export_tflite

OURS = "ours"
PEERS: Mapping[str, Mapping[str, Callable[[Task], Path]]] = {
    "float32": {"litert-torch": litert_torch_alone.write_float32},
    "int8": {
        "litert-torch": litert_torch_alone.write_int8,
        "ai-edge-quantizer": ai_edge_quantizer_int8.write_int8,
        "onnx2tf": onnx2tf_int8.write_int8,
        "TensorFlow": tensorflow_converter.write_int8,
    },
}
SETS = (BUILT_IN, "Set5", "Set14")
THREADS = (1, 2)
EQUAL = 0.03  # of a latency, that two measurements of the same file may differ by
Row = dict[str, Any]


def main(
    *, student: Path = Path("zoo/anchor_x4.pt"), side: int = 64, rounds: int = 200, out: Path = Path("runs/bench")
) -> None:
    """Compares our .tflite files with those of other converters.

    Args:
        student: a float student.pt.
        side: height and width of the LR images, in pixels: of the calibration crops, and of what is measured.
        rounds: of latency, in each of which every file runs once.
        out: folder for the files and export.json.
    """
    given = load_student(student)
    task = Task(given, calibration_crops(BUILT_IN, given.scale, side=side), out / "export")
    task.folder.mkdir(parents=True, exist_ok=True)
    sets = [open_benchmark(name, given.scale) for name in SETS if name in find_benchmarks()]
    rows: list[Row] = []
    for precision, peers in PEERS.items():
        files = _write(task, precision, peers)
        _say(f"measuring {precision}: {', '.join(files)}")
        rows += _measure(task, precision, files, sets, rounds)
    write_text(out / "export.json", json.dumps(rows, indent=1) + "\n")
    _print(rows, f"{student.stem}, LR {side}x{side}, {rounds} alternating rounds")
    print(_verdict([row for row in rows if row["precision"] == "int8"]))


def _write(task: Task, precision: str, peers: Mapping[str, Callable[[Task], Path]]) -> dict[str, Path]:
    """The files by who wrote them, ours first; a peer that fails is left out with a sentence."""
    _say(f"writing {precision}: ours")
    files = {OURS: task.folder / f"ours_{precision}.tflite"}
    student = task.student
    if precision == "int8":
        quantized = quantize_student(student, task.crops)
        student = dataclasses.replace(quantized, file_hash=save_student(quantized, task.folder / "ours_int8.pt"))
    export_tflite(student, files[OURS], precision)
    for peer, write in peers.items():
        _say(f"writing {precision}: {peer}")
        try:
            files[peer] = _checked(write(task), peer, task)
        except BadInput as error:
            print(error)
    return files


def _checked(path: Path, peer: str, task: Task) -> Path:
    expected, found = [task.side * task.student.scale] * 2 + [3], AnyTflite(path, task.side).sr_shape
    if found != expected:
        raise BadInput(f"expected SR images of shape {expected} of {peer}, found {found}: it is left out.")
    return path


def _measure(task: Task, precision: str, files: dict[str, Path], sets: list[Benchmark], rounds: int) -> list[Row]:
    audits = {who: audit_tflite(path) for who, path in files.items()}
    latencies = {threads: _latencies(files, task.side, threads, rounds) for threads in THREADS}
    reference = _psnr(torch_upscaler(task.student.network()), task.side, sets)
    rows = []
    for who, path in files.items():
        audit, psnr = audits[who], _psnr(AnyTflite(path, task.side).upscale, task.side, sets)
        rows.append(
            {
                "precision": precision,
                "file": who,
                "bytes": audit.file_bytes,
                "operators": sum(audit.operators.values()),
                "float operators": len(audit.float_operators),
                "images": f"{audit.input_type} {audit.output_type}",
                "largest rank": audit.largest_rank,
                "partitions": audit.partitions,
                "outside": audit.outside,
                "resizable": audit.resizable,
                **{f"{unit}, {threads}": value for threads in THREADS
                   for unit, value in zip(("ms", "ratio"), latencies[threads][who], strict=True)},
                "peak memory": peak_memory(path, task.side),
                **{f"loss {name}": reference[name]["mean"] - values["mean"] for name, values in psnr.items()},
                "by type": audit.operators,
                "per image": {
                    name: {image: reference[name][image] - value for image, value in values.items()}
                    for name, values in psnr.items()
                },
            }
        )  # fmt: skip
    return rows


def _latencies(files: dict[str, Path], side: int, threads: int, rounds: int) -> dict[str, tuple[float, float]]:
    """By file: the median in milliseconds, and the median of what a round takes over ours in it."""
    opened = {who: AnyTflite(path, side, threads) for who, path in files.items()}
    for model in opened.values():
        model.set_image(noise(side))
        for _ in range(3):
            model.run()
    draw, names = np.random.default_rng(0), list(opened)
    took: dict[str, list[float]] = {who: [] for who in opened}
    for _ in range(rounds):
        for i in draw.permutation(len(names)):
            start = time.perf_counter()
            opened[names[i]].run()
            took[names[i]].append(1000 * (time.perf_counter() - start))
    return {
        who: (statistics.median(times), statistics.median(a / b for a, b in zip(times, took[OURS], strict=True)))
        for who, times in took.items()
    }


def _psnr(upscale: Upscaler, side: int, sets: list[Benchmark]) -> dict[str, dict[str, float]]:
    """By set: the mean, and every image's."""
    found = {one.name: evaluate(in_tiles(upscale, side), one) for one in sets}
    return {
        name: {"mean": row["psnr"], **{image["name"]: image["psnr"] for image in row["per_image"]}}
        for name, row in found.items()
    }


def _verdict(rows: list[Row]) -> str:
    """Whether ours is the fastest or equal, and loses least, in one sentence."""
    ours, *others = rows
    faults = [
        f"{row['file']} takes {row[f'ratio, {threads}']:.2f} of our time on {threads} thread(s)"
        for row in others for threads in THREADS if row[f"ratio, {threads}"] < 1 - EQUAL
    ]  # fmt: skip
    faults += [
        f"{row['file']} has the better {key} ({row[key]:.3f} against {ours[key]:.3f} dB)"
        for row in others for key in ours if key.startswith("loss ") and row[key] < ours[key]
    ]  # fmt: skip
    return "ours: fastest or equal in every row, smallest loss" + (f": no, {'; '.join(faults)}" if faults else ": yes")


def _say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)


def _print(rows: list[Row], title: str) -> None:
    table = Table(title=title)
    columns = [column for column in rows[0] if column not in ("by type", "outside", "per image")]
    for column in columns:
        table.add_column(column, justify="left" if column in ("precision", "file", "images") else "right")
    for row in rows:
        table.add_row(*(f"{row[key]:.3f}" if isinstance(row[key], float) else str(row[key]) for key in columns))
    Console(width=200).print(table)


if __name__ == "__main__":
    command_line(main)
