"""Every architecture in every format and precision: a file that computes what the student does, or the reason why not."""

import re
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import ARCHITECTURES
from export.__main__ import main
from export.exporting import QUANTIZED, reference_network, sizes_of
from export.formats import EVERY, FORMATS
from export.metadata import INTEGER, Precision
from export.order import parse_sizes
from runtime.engines import open_model
from runtime.engines.base import to_real
from runtime.parity.gate import check
from runtime.parity.verdict import Limits
from tests.export.conftest import FIXED, STUDENTS, left, pixels_of, refused

NAMES = ("anchor_x2", "relu_linear", "edsr", *FIXED)
SIDE = 16
SIZE = [SIDE, SIDE]
FLOAT_TOLERANCE = {"float32": 1e-5, "float16": 5e-3, "int8-weights": 5e-3, "int8-dynamic": 1e-4}


def test_the_students_are_of_every_architecture_and_the_precisions_all():
    assert {({**STUDENTS, **FIXED})[name][0] for name in NAMES} == set(ARCHITECTURES)
    assert set(EVERY) <= set(get_args(Precision))


@pytest.mark.parametrize("precision", get_args(Precision))
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", NAMES)
def test_cell(float_student, int8_student, student_of, photographs, tmp_path, name, kind, precision):
    if precision not in QUANTIZED or name in FIXED:
        student: Student = float_student(name)
    elif precision in ("int16x8", "mixed"):
        student = student_of(name, "mixed_float" if precision == "mixed" else precision)
    else:
        student = int8_student(name)
    path = tmp_path / f"cell{FORMATS[kind].suffix}"
    reason = FORMATS[kind].reasons.get(precision)
    if reason or (name in FIXED and precision in QUANTIZED):
        save_student(student, tmp_path / "student.pt")
        says = (
            re.escape(reason)
            if reason
            else f"expected float32 or float16 for {name}, found {precision}: its attention does not fit"
        )
        refused(FORMATS[kind].command, tmp_path, says, tmp_path / "student.pt", precision=precision, out=path)
        return
    file = FORMATS[kind].write(student, path, precision, sizes=[SIZE])
    assert file.metadata.sizes == [SIZE]
    pixels = np.ascontiguousarray(pixels_of((SIDE, SIDE), photographs))
    # as the gate does it: against integers, or the float network, or the reference of integer weights
    engine, expected = open_model(path), _expected(student, precision, pixels)
    found = to_real(engine.upscale(pixels).raw)
    assert expected.std() > 0.01, "a flat output would prove nothing"
    if precision in INTEGER:
        assert np.abs(found - expected).max() * 255 <= 1 + 1e-3
    else:
        rounding = 0.51 / 255 if kind == "coreml" else 0.0  # pictures
        assert np.abs(found - expected).max() <= FLOAT_TOLERANCE[precision] + rounding


def _expected(student: Student, precision: Precision, pixels: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        sr = reference_network(student, precision)(torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255)
    return sr[0].permute(1, 2, 0).double().numpy()


def test_sizes_that_a_network_cannot_take_are_refused_with_one_that_it_can(float_student):
    def says(name: str, size: str, text: str) -> None:
        with pytest.raises(BadInput, match=text):
            sizes_of(float_student(name), parse_sizes(size))

    says("swinir", "18x16", "multiples of swinir's window of 4, found 18x16: use 16x16")
    says("swinir", "any", "expected one size for swinir, found any size")
    says("swinir", "16x16,32x32", "expected one size for swinir, found 2 sizes")
    says("rlfn", "12x40", "at least 15x15 for rlfn, found 12x40")
    assert sizes_of(float_student("swinir"), None) == [[64, 64]]
    assert sizes_of(float_student("edsr"), None) == "any"


def test_a_folder_of_a_network_of_one_size_passes_the_gate(float_student, folder, tmp_path):
    float_student("swinir")
    path = tmp_path / "swinir.pt"
    path.write_bytes((folder / "swinir.pt").read_bytes())
    main(path, size="32x24", formats=["tflite", "onnx"])
    out = tmp_path / "swinir_export"
    assert left(out) >= {"student_float16.tflite", "student_float32.onnx", "golden.npz", "student.pt"}
    with np.load(out / "golden.npz") as golden:
        assert golden["lr"].shape == (32, 24, 3)
        found = open_model(out / "student_float32.tflite").upscale(golden["lr"]).raw
        assert np.abs(found - golden["sr_float32"]).max() < 1e-4
    report = check(load_student(path), sorted([*out.glob("*.tflite"), *out.glob("*.onnx")]), _sets(), Limits(), runs=3)
    assert report.passed, [file.failures for file in report.files]
    assert report.protocol["crop"] == "24x32 LR pixels in the middle"
    assert all(one.images for file in report.files for one in file.sets)
    refused(main, tmp_path, "found int8: its attention", path, precisions=["int8"], out=Path(tmp_path / "x"))


def _sets():
    from compress.data.benchmarks import open_benchmark

    return [open_benchmark("skimage", 2)]
