"""Students of several arithmetics, in every format: the reference's pixels, the student's scales, and the price."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from ai_edge_litert.schema_py_generated import TensorType
from numpy.typing import NDArray

from compress.checkpoint import Student, load_student
from compress.data.benchmarks import Benchmark, Pair
from compress.deploy import INPUT, Conv, DeployGraph
from compress.errors import BadInput
from compress.quantization.integer import IntegerStudent
from compress.quantization.scheme import PIXELS, WIDE_PIXELS, IntegerWeights, Quantization
from export.__main__ import main as export_everything
from export.audit import audit_tflite, operator_name
from export.coreml import export_coreml
from export.exporting import parts
from export.lowering.tflite_mixed import mixed_tflite
from export.metadata import read_tflite, tflite_model
from export.onnx import export_onnx
from export.price import times_slower
from export.tflite import export_tflite
from runtime.engines import open_model
from runtime.parity.gate import check
from tests.export.conftest import KINDS, SIZES, STUDENTS, pixels_of, reference_of, refused


def _steps_apart(path: Path, student: Student, pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    expected = np.rint(reference_of(student, pixels) * 255).astype(int)
    assert expected.std() > 2, "a flat output would prove nothing"
    return np.abs(open_model(path).upscale(pixels).image.astype(int) - expected)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_tflite_file_computes_what_the_student_computes(student_of, photographs, tmp_path, name, kind):
    student = student_of(name, kind)
    assert student.precision == kind.partition("_")[0]
    file = export_tflite(student, tmp_path / "s.tflite", student.precision)
    for size in SIZES:
        apart = _steps_apart(file.path, student, pixels_of(size, photographs))
        assert apart.max() <= 1
        # roundings of 16 bits differ in their last place, which may tip an int8 value behind them
        assert (apart == 0).mean() > (0.98 if kind == "int16x8" else 0.75)
    metadata = read_tflite(file.path)
    assert metadata is not None
    assert (metadata.precision, metadata.input.dtype, metadata.output.dtype) == (student.precision, "int8", "int8")
    assert audit_tflite(file.path).resizable


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("name", ["anchor_x3", "relu_linear", "prelu_tanh", "edsr"])
def test_an_onnx_file_computes_what_the_student_computes(student_of, photographs, tmp_path, name, kind):
    student = student_of(name, kind)
    file = export_onnx(student, tmp_path / "s.onnx", student.precision)
    apart = _steps_apart(file.path, student, pixels_of(SIZES[1], photographs))
    assert apart.max() <= 1
    assert (apart == 0).mean() > 0.95


@pytest.mark.parametrize("name", ["anchor_x3", "prelu_linear"])
def test_a_coreml_file_computes_what_the_student_computes(student_of, photographs, tmp_path, name):
    student = student_of(name, "mixed_float")
    file = export_coreml(student, tmp_path / "s.mlpackage", "mixed")
    apart = _steps_apart(file.path, student, pixels_of(SIZES[1], photographs))
    assert apart.max() <= 2
    assert (apart == 0).mean() > 0.95


def _convolutions(path: Path) -> list[tuple[Any, Any, Any, Any]]:
    """(input, weight, bias, output) tensors of every convolution of a .tflite, in order."""
    model = tflite_model(path)
    tensors = model.subgraphs[0].tensors
    nodes = [node for node in model.subgraphs[0].operators if operator_name(model, node) == "CONV_2D"]
    return [(*(tensors[i] for i in node.inputs), tensors[node.outputs[0]]) for node in nodes]


def test_scales_and_types_in_the_file_are_those_of_the_student(student_of, tmp_path):
    student = student_of("relu_linear", "mixed")
    assert student.quantization is not None
    export_tflite(student, tmp_path / "s.tflite", "mixed")
    types = {"int8": TensorType.INT8, "int16": TensorType.INT16, "float": TensorType.FLOAT32}
    graph, quantization = student.deploy(), student.quantization
    found = _convolutions(tmp_path / "s.tflite")
    assert len(found) == len(quantization.layers)
    for (step, layer), (given, weight, bias, made) in zip(quantization.layers.items(), found, strict=True):
        kind = quantization.of(step)
        assert {given.type, made.type} == {types[kind]}
        if kind == "float":
            assert weight.type == TensorType.FLOAT32
            continue
        assert weight.type == TensorType.INT8
        assert bias.type == TensorType.INT32
        assert np.array_equal(weight.quantization.scale, layer.scale.numpy())
        for value, tensor in ((graph.inputs[step][0], given), (step, made)):
            grid = quantization.grid(value, kind)
            assert tensor.quantization.scale.tolist() == [np.float32(grid.scale)]
            assert tensor.quantization.zeroPoint.tolist() == [grid.zero_point]


def test_16_bit_sums_that_int32_cannot_hold_are_exact(tmp_path):
    """81 * 64 products of 32767 and 127, less what the bias takes away."""
    graph = DeployGraph(1)
    graph.add("wide", Conv(torch.ones(64, 3, 1, 1), torch.zeros(64)), INPUT)
    graph.add("sum", Conv(torch.ones(3, 64, 9, 9), torch.zeros(3)), "wide")
    ones = IntegerWeights(
        torch.full((64, 3, 1, 1), 127, dtype=torch.int8), torch.full((64,), 1 / 381), torch.zeros(64).int()
    )
    many = IntegerWeights(
        torch.full((3, 64, 9, 9), 127, dtype=torch.int8),
        torch.full((3,), 1 / 127 / 5184),
        torch.tensor([0, 9, -9]).int(),
    )
    values = (INPUT, "wide", "sum")
    quantization = Quantization(
        dict.fromkeys(values, PIXELS), {"wide": ones, "sum": many}, {},
        arithmetic={"wide": "int16", "sum": "int16"}, wide=dict.fromkeys(values, WIDE_PIXELS),
    )  # fmt: skip
    content = mixed_tflite(graph, quantization, (9, 9))
    (tmp_path / "s.tflite").write_bytes(content)
    assert [bias.type for _, _, bias, _ in _convolutions(tmp_path / "s.tflite")] == [TensorType.INT32, TensorType.INT64]
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    pixels = np.full((9, 9, 3), 178, np.uint8)
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], (pixels ^ 0x80).view(np.int8)[None])
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0].view(np.uint8) ^ 0x80
    lr = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    expected = IntegerStudent(graph, quantization)(lr)[0].permute(1, 2, 0).mul(255).round().byte().numpy()
    assert expected.max() > 170
    assert np.abs(found.astype(int) - expected).max() <= 1


def test_16_bits_are_nearer_to_the_float_student_than_8(float_student, int8_student, student_of, photographs):
    pixels = pixels_of((40, 40), photographs)
    wanted = np.rint(np.clip(reference_of(float_student("relu_linear"), pixels), 0, 1) * 255)
    errors = [
        np.square(np.rint(reference_of(student, pixels) * 255) - wanted).mean()
        for student in (int8_student("relu_linear"), student_of("relu_linear", "int16x8"))
    ]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize("kind", ["int16x8", "mixed"])
def test_parity_judges_such_files_by_their_integers(student_of, photographs, tmp_path, kind):
    student = student_of("anchor_x3", kind)
    paths = [tmp_path / "s.tflite", tmp_path / "s.onnx"]
    export_tflite(student, paths[0], student.precision)
    export_onnx(student, paths[1], student.precision)
    benchmark = Benchmark("astronaut", 3, (Pair("astronaut", photographs / "astronaut.png", None),))
    report = check(student, paths, [benchmark], runs=1)
    assert [file.description.precision for file in report.files] == [kind, kind]
    assert all(file.agreement.within == 1 and file.agreement.max_lsb < 1.001 for file in report.files)
    assert not any("LSB" in failure for file in report.files for failure in file.failures)


def test_another_arithmetic_than_the_students_is_refused(student_of, int8_student, float_student, tmp_path):
    for student, precision in (
        (student_of("anchor_x3", "int16x8"), "int8"),
        (student_of("anchor_x3", "mixed"), "int16x8"),
        (int8_student("anchor_x3"), "mixed"),
    ):
        refused(
            export_tflite, tmp_path, f"arithmetic is {precision}, found one that is {student.precision}", student,
            tmp_path / "s.tflite", precision,
        )  # fmt: skip
    refused(
        export_tflite, tmp_path, "expected an int8 student", float_student("edsr"), tmp_path / "s.tflite", "int16x8"
    )
    for kind in ("int16x8", "mixed"):
        student = student_of("anchor_x3", kind)
        refused(export_coreml, tmp_path, "found int16 ones", student, tmp_path / "s.mlpackage", student.precision)


def test_int8_weights_of_an_equalized_student_compute_nearly_the_same(student_of, photographs, tmp_path):
    """Its biases must be equalized with its weights."""
    student = student_of("relu_linear", "int16x8")
    export_onnx(student, tmp_path / "s.onnx", "int8-weights")
    pixels = pixels_of(SIZES[1], photographs)
    network, _ = parts(student, "int8-weights")
    exact = reference_of(dataclasses.replace(student, quantization=None), pixels)
    assert exact.std() > 0.01
    assert np.abs(open_model(tmp_path / "s.onnx").upscale(pixels).raw - exact).max() < 0.03
    assert network.output == student.deploy().output


def test_the_command_calibrates_16_bits_and_says_what_they_cost(saved, photographs, command):
    done = command("export.tflite", saved, "--precision", "int16x8", "--calibration", photographs)
    assert done.returncode == 0, done.stderr
    quantized = saved.with_name("student_int16x8.pt")
    assert load_student(quantized).precision == "int16x8"
    price = next(line for line in done.stdout.splitlines() if line.startswith("price: "))
    assert float(price.split()[1]) > 0
    assert "XNNPACK has no 16-bit kernels" in price
    again = command("runtime.parity", quantized, saved.with_name("student_int16x8.tflite"), "--loss", "100")
    assert again.returncode == 0, again.stdout + again.stderr
    refusal = command("export.tflite", saved, "--precision", "mixed", "--calibration", photographs)
    assert refusal.returncode == 2
    assert "--budget" in refusal.stderr


def test_all_formats_of_a_mixed_student_are_mixed_files(student_of, folder, tmp_path):
    student_of("anchor_x3", "mixed")
    source = next(folder.glob("anchor_x3_mixed_[0-9]*.pt"))
    export_everything(source, out=tmp_path / "out", formats=["tflite", "onnx"], precisions=["int8"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"student_mixed.tflite", "student_mixed.onnx", "golden.npz"} <= names
    assert not any("student_int8." in name and not name.endswith(".pt") for name in names)
    golden = np.load(tmp_path / "out" / "golden.npz")
    found = open_model(tmp_path / "out" / "student_mixed.onnx").upscale(golden["lr"]).image
    assert np.abs(found.astype(int) - golden["sr_mixed"]).max() <= 1


def test_the_price_is_measured(student_of, tmp_path):
    student = student_of("anchor_x4", "int16x8")
    export_tflite(student, tmp_path / "s.tflite", "int16x8")
    assert times_slower(student, tmp_path / "s.tflite", runs=3) > 1


def test_a_float_layer_is_no_file_of_its_own(float_student, tmp_path):
    with pytest.raises(BadInput, match="expected an int8 student"):
        parts(float_student("edsr"), "mixed")
