"""Real files of a trained student with one fault each: the gate stops all of them, and says what to do."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import Benchmark, open_benchmark
from export.audit import audit_file
from export.coreml import export_coreml
from export.metadata import ENTRY
from export.onnx import export_onnx
from export.tflite import export_tflite
from runtime.parity.gate import check
from runtime.parity.results import FileParity, Refusal
from runtime.parity.weights import foreign_weights
from tests.runtime import faults
from tests.runtime.conftest import edited

SCALE = 4
ZOO = Path(__file__).resolve().parents[2] / "zoo"
PRECISIONS = ("float32", "int8")
Change = Callable[[Any], None]

WEIGHTS: dict[str, Change] = {
    "red and blue exchanged at the input": faults.swapped_colours_at_the_input,
    "red and blue exchanged at the output": faults.swapped_colours_at_the_output(SCALE),
    "red and blue exchanged at both ends": faults.swapped_colours_at_both_ends(SCALE),
    "sub-pixels rotated by one": faults.shuffled_by_one(SCALE),
    "sub-pixels column by column": faults.shuffled_columns_first(SCALE),
    "half an LR pixel off": faults.residual_half_a_pixel_off(SCALE),
    "the last kernel one pixel off": faults.kernel_shifted,
    **{f"channel {c} of convolution {n} off by a tenth": faults.channel_off(n, c) for n in (0, 4, 9) for c in (0, 11)},
}
UNSEEN: dict[str, Change] = {
    "a channel that these photographs leave at 0 off by a tenth": faults.channel_off(0, 2),
    **{f"one weight of convolution {n} off by a tenth": faults.weight_off(n) for n in (1, 9)},
    "the last biases off by a tenth": faults.biases_off(9),
}
ZERO_POINTS: dict[str, Change] = {
    "zero point of the first values": faults.zero_point_off(0, 3),
    "zero point of the values in the middle": faults.zero_point_off(5, 40),
    "zero point of the residual": faults.zero_point_off(9, -1),
}


@dataclasses.dataclass(frozen=True)
class Judged:
    """What the gate said of one file."""

    files: tuple[FileParity, ...]
    refused: tuple[Refusal, ...]

    def sentences(self) -> list[str]:
        return [*(text for file in self.files for text in file.failures), *(one.reason for one in self.refused)]

    def advice(self) -> str:
        return " ".join(file.advice or "" for file in self.files)


Judge = Callable[..., Judged]


@pytest.fixture(scope="module")
def small_set(photographs) -> list[Benchmark]:
    return [open_benchmark(str(photographs), SCALE)]


@pytest.fixture(scope="module")
def student() -> Student:
    return load_student(ZOO / "anchor_x4_int8.pt")


@pytest.fixture(scope="module")
def judge(small_set, student) -> Judge:
    def run(*paths: Path, of: Student | None = None) -> Judged:
        report = check(of or student, paths, small_set, runs=1, memory=False)
        assert report.passed == (not report.refused and not any(file.failures for file in report.files))
        return Judged(report.files, report.refused)

    return run


def original(precision: str) -> Path:
    return ZOO / f"anchor_x4_{precision}.tflite"


@pytest.fixture(scope="module")
def planted(judge, tmp_path_factory) -> dict[tuple[str, str], Judged]:
    """Every fault of the weights and zero points in every precision that can have it, judged in one go."""
    folder = tmp_path_factory.mktemp("planted")
    kinds = [("float32", WEIGHTS | UNSEEN), ("int8", WEIGHTS | UNSEEN | ZERO_POINTS)]
    changes = {(precision, fault): change for precision, known in kinds for fault, change in known.items()}
    paths = {
        case: edited(original(case[0]), folder / f"{number}.tflite", change)
        for number, (case, change) in enumerate(changes.items())
    }
    whole = judge(*paths.values())
    return {
        case: Judged(
            tuple(one for one in whole.files if one.path == path),
            tuple(one for one in whole.refused if one.path == path),
        )
        for case, path in paths.items()
    }


def test_the_unedited_files_pass(judge, tmp_path):
    paths = [original(precision) for precision in PRECISIONS]
    again = [edited(path, tmp_path / path.name, lambda model: None) for path in paths]
    assert judge(*paths, *again).sentences() == []


@pytest.mark.parametrize("fault", WEIGHTS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_fault_in_the_weights_is_seen_in_the_numbers(planted, precision, fault):
    found = planted[precision, fault]
    (file,) = found.files
    limits = ("limit 110 dB",) if precision == "float32" else ("limit 2 LSB", "identical, limit 99.00%")
    assert any(words in text for text in file.failures for words in limits)
    assert file.advice
    advice = (
        "the sub-pixels come in another order (" if "sub-pixels" in fault else f"export.bisect STUDENT.pt {file.path}"
    )
    assert advice in file.advice


@pytest.mark.parametrize("fault", UNSEEN)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_wrong_weight_is_read_in_the_file(planted, precision, fault):
    """Photographs may not show it: of a channel that is 0 in all of them, say."""
    name = "biases" if "biases" in fault else "weights"
    assert any(
        text.startswith(f"wrong weights: no layer has the {name} of ") for text in planted[precision, fault].sentences()
    )


def test_a_wrong_weight_is_read_in_float16_and_in_other_formats(student, tmp_path):
    """Where the limit on PSNR leaves room for it: 70 dB in float16, 60 dB in Core ML."""
    floating = load_student(ZOO / "anchor_x4.pt")
    export_tflite(floating, tmp_path / "a.tflite", "float16")
    export_onnx(floating, tmp_path / "a.onnx", "float32")
    export_onnx(student, tmp_path / "b.onnx", "int8")
    export_coreml(floating, tmp_path / "a.mlpackage", "float16")
    export_coreml(student, tmp_path / "b.mlpackage", "int8")
    assert student.quantization is not None
    layers = dict(student.quantization.layers)
    layers["head"] = dataclasses.replace(layers["head"], scale=layers["head"].scale * 1.1)
    other = dataclasses.replace(older(student), quantization=dataclasses.replace(student.quantization, layers=layers))
    for name in ("a.tflite", "a.onnx", "b.onnx", "a.mlpackage", "b.mlpackage"):
        audit = audit_file(tmp_path / name)
        assert audit.metadata is not None
        assert list(foreign_weights(audit.contents, student, audit.metadata.precision)) == [], name
        assert list(foreign_weights(audit.contents, other, audit.metadata.precision)), name


@pytest.mark.parametrize("fault", ZERO_POINTS)
def test_a_wrong_zero_point_is_read_in_the_file(planted, fault):
    """The values may be the same on these photographs: what would be clipped is in none of them."""
    (sentence, *_) = planted["int8", fault].sentences()
    assert sentence.startswith("wrong scale: ")
    assert "export it again" in sentence


def test_a_wrong_zero_point_of_the_picture_is_refused(judge, tmp_path):
    for number, change in enumerate(
        (faults.image_zero_point_off(2), faults.image_zero_point_off(2, before_the_shuffle=True))
    ):
        found = judge(edited(original("int8"), tmp_path / f"{number}.tflite", change))
        assert len(found.refused) == 1
        assert "export it again" in found.refused[0].reason


def relabelled(source: Path, target: Path, **metadata: Any) -> Path:
    """A copy whose metadata says something else."""

    def change(model: Any) -> None:
        (entry,) = [one for one in model.metadata if one.name == ENTRY.encode()]
        plain = json.loads(bytes(model.buffers[entry.buffer].data))
        model.buffers[entry.buffer].data = list(json.dumps(plain | metadata).encode())

    return edited(source, target, change)


def test_a_float_file_that_says_int8_is_mislabelled(judge, tmp_path, student):
    path = relabelled(original("float32"), tmp_path / "a.tflite", precision="int8", student_sha256=student.file_hash)
    sentences = judge(path).sentences()
    assert any(
        "mislabelled: " in text and "FLOAT32 weights, where its metadata says int8" in text for text in sentences
    )
    assert any("float operators" in text for text in sentences)


def test_an_int8_file_that_says_float32_is_mislabelled(judge, tmp_path, student):
    export_tflite(student, tmp_path / "a.tflite", "int8", images="float32")
    path = relabelled(tmp_path / "a.tflite", tmp_path / "b.tflite", precision="float32")
    sentences = judge(path).sentences()
    assert any(
        "mislabelled: " in text and "INT8 weights, where its metadata says float32" in text for text in sentences
    )
    assert any("PSNR against the reference" in text for text in sentences)
    (refused,) = judge(relabelled(original("int8"), tmp_path / "c.tflite", precision="float32")).refused
    assert "int8 RGB" in refused.reason


def test_a_file_with_another_precision_in_its_name_is_misnamed(judge, tmp_path):
    paths = [tmp_path / "phone_int8.tflite", tmp_path / "float32.tflite", tmp_path / "int8-student.tflite"]
    for path, precision in zip(paths, ("float32", "int8", "float32"), strict=True):
        shutil.copy(original(precision), path)
    sentences = judge(*paths).sentences()
    assert sentences == [
        "misnamed: called int8, and its metadata says float32: rename it, or export the other one",
        "misnamed: called float32, and its metadata says int8: rename it, or export the other one",
    ]


def older(student: Student) -> Student:
    """As it was some steps before: every weight a thousandth off."""
    torch.manual_seed(0)
    weights = {name: value * (1 + 1e-3 * torch.randn_like(value)) for name, value in student.weights.items()}
    return dataclasses.replace(student, weights=weights)


@pytest.fixture(scope="module")
def stale(tmp_path_factory) -> Path:
    """A file of the student as it was before."""
    folder = tmp_path_factory.mktemp("stale")
    save_student(older(load_student(ZOO / "anchor_x4.pt")), folder / "older.pt")
    export_tflite(load_student(folder / "older.pt"), folder / "older.tflite", "float32")
    return folder / "older.tflite"


def test_a_file_of_an_older_student_is_stale(judge, stale):
    sentences = judge(stale).sentences()
    assert sentences[0].startswith("stale: made from another student")
    assert sentences[1].startswith("wrong weights: ")
    assert "PSNR against the reference" in sentences[2]


def test_a_forged_hash_does_not_hide_an_older_student(judge, stale, tmp_path):
    forged = relabelled(stale, tmp_path / "a.tflite", student_sha256=load_student(ZOO / "anchor_x4.pt").file_hash)
    weights, difference = judge(forged).sentences()
    assert weights.startswith("wrong weights: ")
    assert "PSNR against the reference" in difference
    assert "limit 110 dB" in difference


def test_another_calibration_with_a_forged_hash_is_read_in_the_file(judge, student, tmp_path):
    """Same weights, other scales: 2 % wider."""
    assert student.quantization is not None
    wider = {
        name: one if name in ("lr", "anchor", "sum", "clip", "sr") else dataclasses.replace(one, scale=one.scale * 1.02)
        for name, one in student.quantization.activations.items()
    }
    other = dataclasses.replace(student, quantization=dataclasses.replace(student.quantization, activations=wider))
    save_student(other, tmp_path / "other.pt")
    export_tflite(load_student(tmp_path / "other.pt"), tmp_path / "other.tflite", "int8")
    forged = relabelled(tmp_path / "other.tflite", tmp_path / "a.tflite", student_sha256=student.file_hash)
    sentences = judge(forged).sentences()
    assert sentences[0].startswith("wrong scale: ")
    assert any("identical, limit 99.00%" in text for text in sentences)


@pytest.fixture(scope="module")
def float_onnx(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "a.onnx"
    export_onnx(load_student(ZOO / "anchor_x4.pt"), path, "float32")
    return path


def with_picture(source: Path, target: Path, nodes: Callable[[str, str], list[Any]], **constants: Any) -> Path:
    """A copy of an .onnx whose picture goes through further nodes."""
    model = onnx.load(str(source))
    (output,) = model.graph.output
    for node in model.graph.node:
        node.output[:] = ["before" if name == output.name else name for name in node.output]
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(one), name) for name, one in constants.items())
    model.graph.node.extend(nodes("before", output.name))
    onnx.save(model, str(target))
    return target


def test_a_picture_as_bgr_is_named(judge, float_onnx, tmp_path):
    path = with_picture(
        float_onnx,
        tmp_path / "bgr.onnx",
        lambda given, made: [helper.make_node("Gather", [given, "order"], [made], axis=1)],
        order=np.array([2, 1, 0]),
    )
    found = judge(path)
    assert any("PSNR against the reference" in text for text in found.sentences())
    assert "the colours come as blue, green, red" in found.advice()


def test_a_picture_half_an_lr_pixel_to_the_right_is_named(judge, float_onnx, tmp_path):
    path = with_picture(
        float_onnx,
        tmp_path / "shifted.onnx",
        lambda given, made: [
            helper.make_node("Pad", [given, "pads"], ["wide"], mode="edge"),
            helper.make_node("Slice", ["wide", "starts", "ends", "axes"], [made]),
        ],
        pads=np.array([0, 0, 0, 2, 0, 0, 0, 0]), starts=np.array([0]), ends=np.array([-2]), axes=np.array([3]),
    )  # fmt: skip
    found = judge(path)
    assert any("PSNR against the reference" in text for text in found.sentences())
    assert "shifted by 0.5 LR pixels to the right and 0 down" in found.advice()


def test_a_picture_in_another_value_range_is_named(judge, float_onnx, tmp_path):
    path = with_picture(
        float_onnx,
        tmp_path / "range.onnx",
        lambda given, made: [
            helper.make_node("Mul", [given, "two"], ["twice"]),
            helper.make_node("Sub", ["twice", "one"], [made]),
        ],
        two=np.float32(2), one=np.float32(1),
    )  # fmt: skip
    assert "all values are 2 times the reference's plus -255 LSB" in judge(path).advice()
