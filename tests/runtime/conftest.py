"""A tiny student in both precisions, exported once to every format, and a way to plant faults into a .tflite."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.tools import flatbuffer_utils
from numpy.typing import NDArray

from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import open_benchmark
from compress.errors import Unavailable
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.coreml import export_coreml
from export.executorch import export_executorch
from export.metadata import tflite_model
from export.ncnn import export_ncnn
from export.onnx import export_onnx
from export.tflite import export_tflite
from runtime.engines import ENGINES, open_model
from runtime.engines.base import Engine

SCALE = 2
FLOAT_ONLY = {"ncnn", "litert-reference"}
CASES = [
    (name, precision)
    for name in ENGINES
    for precision in ("float32", "int8")
    if precision == "float32" or name not in FLOAT_ONLY
]
"""Engines and what they run of the tiny student: those that are not named in `Tiny.file_for` run its .tflite files."""


@dataclass(frozen=True)
class Tiny:
    """Files of one student."""

    float_pt: Path
    int8_pt: Path
    float_tflite: Path
    int8_tflite: Path
    float_onnx: Path
    int8_onnx: Path
    float_mlpackage: Path
    int8_mlpackage: Path
    float_pte: Path
    int8_pte: Path
    float_param: Path

    def of(self, precision: str) -> tuple[Path, Path]:
        """student.pt and .tflite of a precision."""
        return (self.int8_pt, self.int8_tflite) if precision == "int8" else (self.float_pt, self.float_tflite)

    def file_for(self, engine: str, precision: str) -> Path:
        """What an engine opens."""
        student, tflite = self.of(precision)
        if engine == "onnxruntime":
            return self.int8_onnx if precision == "int8" else self.float_onnx
        if engine == "coreml":
            return self.int8_mlpackage if precision == "int8" else self.float_mlpackage
        if engine == "executorch":
            return self.int8_pte if precision == "int8" else self.float_pte
        if engine == "ncnn":
            return self.float_param
        return student if engine == "pytorch" else tflite


def tiny_student(seed: int = 0) -> Student:
    torch.manual_seed(seed)
    student = Student.of(build("anchor", {"scale": SCALE, "channels": 8, "blocks": 2}))
    student.weights["tail.weight"] *= 5  # a residual that matters, so that a fault in it shows
    return student


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    folder = tmp_path_factory.mktemp("tiny")
    names = ("float.pt", "int8.pt", "float.tflite", "int8.tflite", "float.onnx", "int8.onnx")
    names += ("float.mlpackage", "int8.mlpackage", "float.pte", "int8.pte", "ncnn.param")
    files = Tiny(*(folder / name for name in names))
    save_student(tiny_student(), files.float_pt)
    student = load_student(files.float_pt)
    save_student(quantize_student(student, calibration_crops("skimage", SCALE, count=16)), files.int8_pt)
    export_tflite(student, files.float_tflite, "float32")
    export_tflite(load_student(files.int8_pt), files.int8_tflite, "int8")
    export_onnx(student, files.float_onnx, "float32")
    export_onnx(load_student(files.int8_pt), files.int8_onnx, "int8")
    export_coreml(student, files.float_mlpackage, "float32")
    export_coreml(load_student(files.int8_pt), files.int8_mlpackage, "int8")
    export_executorch(student, files.float_pte, "float32")
    export_executorch(load_student(files.int8_pt), files.int8_pte, "int8")
    export_ncnn(student, files.float_param, "float32")
    return files


@pytest.fixture(scope="session")
def photograph() -> NDArray[np.uint8]:
    """An LR photograph, odd in height and not square: (97, 130, 3)."""
    _, lr, _ = next(iter(open_benchmark("skimage", SCALE)))
    return np.ascontiguousarray(lr[20:117, 30:160])


def edited(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """Writes a copy of a .tflite after `change` was made to its parsed flatbuffer."""
    model = tflite_model(source)
    change(model)
    target.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    return target


def opened(tiny: Tiny, name: str, precision: str, threads: int = 1) -> Engine:
    """The tiny student in an engine; skips the test where that, or its device, is not here."""
    try:
        return open_model(tiny.file_for(name, precision), engine=name, threads=threads)
    except Unavailable as missing:
        pytest.skip(str(missing))
