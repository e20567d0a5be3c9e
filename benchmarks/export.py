"""The same weights, exported by us and by litert-torch left alone, side by side in one run.

`python -m benchmarks.export [--student zoo/anchor_x4.pt] [--size 128x128] [--out runs/bench]`

"Left alone" is the documented use: `litert_torch.convert` of the network as it was trained (channels last), and for
int8 its PT2E quantizer calibrated on the same crops. Latencies alternate between the files, and the ratio is the
median of the ratios of neighbouring runs, so that a busy machine slows both.
"""

import dataclasses
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import open_benchmark
from compress.evaluate import evaluate
from compress.files import write_text
from compress.models import build
from compress.quantization.calibration import CalibrationCrops, calibration_crops
from compress.quantization.ptq import quantize_student
from export.audit import audit_tflite
from export.chatter import logged, silenced
from export.tflite import export_tflite

RUNS = 30


def main(
    *, student: Path = Path("zoo/anchor_x4.pt"), size: str = "128x128", out: Path = Path("runs/bench"), threads: int = 1
) -> None:
    """Compares our .tflite files with litert-torch's own.

    Args:
        student: a float student.pt; an untrained SRResNet with PReLU (4 blocks, 32 channels) is measured beside it.
        size: HEIGHTxWIDTH of the LR image.
        out: folder for the files and export.json.
        threads: of the interpreter.
    """
    height, width = map(int, size.split("x"))
    crops = calibration_crops("skimage", 4)
    torch.manual_seed(0)
    prelu = build("srresnet", {"blocks": 4, "channels": 32, "trunk_end": "activation"}).eval()
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for name, given in (
        ("anchor", load_student(student)),
        ("srresnet_prelu", _saved(Student.of(prelu), out / "srresnet.pt")),
    ):
        for precision in ("float32", "int8"):
            files = _export_both(given, precision, (height, width), crops, out / f"{name}_{precision}")
            rows += _compare(
                f"{name} {precision}", files, (height, width), threads, trained=name == "anchor", scale=given.scale
            )
    write_text(out / "export.json", json.dumps(rows, indent=1))
    _print(rows, f"LR {size}, {threads} thread(s), {RUNS} alternating runs")


def _saved(student: Student, path: Path) -> Student:
    return dataclasses.replace(student, file_hash=save_student(student, path))


def _export_both(
    student: Student, precision: str, size: tuple[int, int], crops: CalibrationCrops, stem: Path
) -> dict[str, Path]:
    ours, alone = stem.with_name(f"{stem.name}_ours.tflite"), stem.with_name(f"{stem.name}_alone.tflite")
    if precision == "int8":
        export_tflite(_saved(quantize_student(student, crops), stem.with_suffix(".pt")), ours, "int8")
    else:
        export_tflite(student, ours, "float32")
    with logged(stem.with_suffix(".log"), alone.name):
        if precision == "int8":
            _convert_int8_alone(student.network(), alone, crops)
        else:
            _convert_alone(student.network(), alone, size)
    return {"ours": ours, "alone": alone}


def _convert_alone(network: nn.Module, path: Path, size: tuple[int, int]) -> None:
    import litert_torch

    channels_last = litert_torch.to_channel_last_io(network, args=[0], outputs=[0]).eval()
    litert_torch.convert(channels_last, (torch.zeros(1, *size, 3),)).export(str(path))


def _convert_int8_alone(network: nn.Module, path: Path, crops: CalibrationCrops) -> None:
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = PT2EQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    channels_last = litert_torch.to_channel_last_io(network, args=[0], outputs=[0]).eval()
    crop = crops.crops.permute(0, 2, 3, 1)
    prepared = prepare_pt2e(torch.export.export(channels_last, (crop[:1],)).module(), quantizer)
    for one in crop.split(1):
        prepared(one)
    quantized = convert_pt2e(prepared, fold_quantize=False)
    # the traced network has the crops' size baked in, so the file has it too; resizing is tried by the audit
    litert_torch.convert(quantized, (crop[:1],), quant_config=QuantConfig(pt2e_quantizer=quantizer)).export(str(path))


def _compare(
    name: str, files: dict[str, Path], size: tuple[int, int], threads: int, *, trained: bool, scale: int
) -> list[dict[str, Any]]:
    audits = {who: audit_tflite(path) for who, path in files.items()}
    common = size if audits["alone"].resizable else _own_size(files["alone"])
    runs = {who: _runner(path, common, threads) for who, path in files.items()}
    milliseconds: dict[str, list[float]] = {who: [] for who in runs}
    for _ in range(RUNS):
        for who, run in runs.items():
            start = time.perf_counter()
            run()
            milliseconds[who].append(1000 * (time.perf_counter() - start))
    ratios = [alone / ours for ours, alone in zip(milliseconds["ours"], milliseconds["alone"], strict=True)]
    return [
        {
            "model": name,
            "file": who,
            "bytes": audits[who].file_bytes,
            "operators": sum(audits[who].operators.values()),
            "float operators": len(audits[who].float_operators),
            "largest rank": audits[who].largest_rank,
            "partitions": audits[who].partitions,
            "outside": audits[who].outside,
            "resizable": audits[who].resizable,
            "lr": f"{common[0]}x{common[1]}",
            "median ms": statistics.median(milliseconds[who]),
            "slower than ours": 1.0 if who == "ours" else statistics.median(ratios),
            "psnr": _psnr(files[who], scale) if trained and audits[who].resizable else None,
        }
        for who in files
    ]


def _open(path: Path, size: tuple[int, int], threads: int) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from ai_edge_litert.interpreter import Interpreter

    with silenced():
        interpreter = Interpreter(str(path), num_threads=threads)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [1, *size, 3])
        interpreter.allocate_tensors()
    return interpreter, interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def _own_size(path: Path) -> tuple[int, int]:
    from ai_edge_litert.interpreter import Interpreter

    shape = Interpreter(str(path)).get_input_details()[0]["shape"]
    return int(shape[1]), int(shape[2])


def _runner(path: Path, size: tuple[int, int], threads: int) -> Callable[[], None]:
    interpreter, given, _ = _open(path, size, threads)
    pixels = np.random.default_rng(0).integers(0, 256, (1, *size, 3))
    interpreter.set_tensor(given["index"], _to_file(pixels, given))
    interpreter.invoke()
    return interpreter.invoke


def _to_file(pixels: np.ndarray, given: dict[str, Any]) -> np.ndarray:
    real = pixels.astype(np.float32) / 255
    if given["dtype"] == np.float32:
        return real
    scale, zero = given["quantization"]
    return np.clip(np.rint(real / scale) + zero, -128, 127).astype(given["dtype"])


def _psnr(path: Path, scale: int) -> float:
    def upscale(lr: np.ndarray) -> np.ndarray:
        interpreter, given, made = _open(path, lr.shape[:2], threads=2)
        interpreter.set_tensor(given["index"], _to_file(lr[None], given))
        interpreter.invoke()
        sr = interpreter.get_tensor(made["index"])[0].astype(np.float32)
        if made["dtype"] != np.float32:
            factor, zero = made["quantization"]
            sr = (sr - zero) * factor
        return np.rint(np.clip(sr, 0, 1) * 255).astype(np.uint8)

    return evaluate(upscale, open_benchmark("skimage", scale))["psnr"]


def _print(rows: list[dict[str, Any]], title: str) -> None:
    table = Table(title=title)
    columns = [column for column in rows[0] if column != "outside"]
    for column in columns:
        table.add_column(column, justify="left" if column in ("model", "file") else "right")
    for row in rows:
        values = (row[column] for column in columns)
        table.add_row(
            *(f"{value:.2f}" if isinstance(value, float) else "-" if value is None else str(value) for value in values)
        )
    Console(width=160).print(table)


if __name__ == "__main__":
    command_line(main)
