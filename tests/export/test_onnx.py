"""ONNX files: equal to the PyTorch student at any size and in batches, the student's integers and scales, honest metadata."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper

from compress.checkpoint import Student, load_student
from compress.deploy import Conv
from compress.errors import BadInput
from export.exporting import ExportedFile, describe, parts
from export.metadata import ENTRY, Metadata
from export.onnx import KNOWN, PRODUCERS, export_onnx, main
from tests.export.conftest import SIZES, STUDENTS, left, pixels_of, reference_of, refused

PLAIN = [precision for precision in KNOWN if precision not in ("int16x8", "mixed")]  # those: test_mixed

Exported = Callable[[str, str], tuple[Student, ExportedFile]]


@pytest.fixture(scope="module")
def exported(float_student: Callable[[str], Student], int8_student: Callable[[str], Student], folder: Path) -> Exported:
    """(student, file) of a name and precision; every file is written once."""
    made: dict[tuple[str, str], tuple[Student, ExportedFile]] = {}

    def export(name: str, precision: Any) -> tuple[Student, ExportedFile]:
        if (name, precision) not in made:
            student = int8_student(name) if precision.startswith("int8") else float_student(name)
            made[name, precision] = student, export_onnx(student, folder / f"{name}_{precision}.onnx", precision)
        return made[name, precision]

    return export


def _session(path: Path, optimized: Path | None = None) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _run(path: Path, images: NDArray[Any]) -> NDArray[Any]:
    """(N, H, W, 3) or (H, W, 3) through a file."""
    batch = images if images.ndim == 4 else images[None]
    (made,) = _session(path).run(["sr"], {"lr": np.ascontiguousarray(batch.transpose(0, 3, 1, 2))})
    assert made.dtype == images.dtype
    made = made.transpose(0, 2, 3, 1)
    return made if images.ndim == 4 else made[0]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_float32_file_equals_the_student(exported, photographs, name, size):
    student, file = exported(name, "float32")
    pixels = pixels_of(size, photographs)
    expected = reference_of(student, pixels)
    found = _run(file.path, pixels.astype(np.float32) / 255)
    assert found.shape == (size[0] * student.scale, size[1] * student.scale, 3)
    assert expected.std() > 0.01, "a flat output would prove nothing"
    assert np.abs(found - expected).max() < 1e-5


@pytest.mark.parametrize("name", ["anchor_x4", "prelu_tanh"])
def test_a_float16_file_is_near_the_student_and_smaller(exported, photographs, name):
    student, file = exported(name, "float16")
    pixels = pixels_of((17, 21), photographs)
    difference = np.abs(_run(file.path, pixels.astype(np.float32) / 255) - reference_of(student, pixels)).max()
    assert 0 < difference < 4e-3
    _, whole = exported(name, "float32")
    assert file.file_bytes < 0.75 * whole.file_bytes
    weights = [one for one in onnx.load(str(file.path)).graph.initializer if one.name.endswith("_weight")]
    assert weights
    assert {one.data_type for one in weights} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(STUDENTS))
def test_an_int8_file_computes_the_students_integers(exported, photographs, name, size):
    student, file = exported(name, "int8")
    pixels = pixels_of(size, photographs)
    expected = np.rint(reference_of(student, pixels) * 255).astype(int)
    found = _run(file.path, np.ascontiguousarray(pixels)).astype(int)
    assert found.shape == expected.shape
    assert expected.std() > 2, "a flat output would prove nothing"
    assert np.abs(found - expected).max() <= 1  # sums and PReLU round a tie differently
    assert (found != expected).mean() < 0.02


@pytest.mark.parametrize("name", list(STUDENTS))
def test_onnxruntime_runs_an_int8_file_on_integers_alone(exported, tmp_path, name):
    _, file = exported(name, "int8")
    optimized = tmp_path / "optimized.onnx"
    _session(file.path, optimized)
    graph = onnx.shape_inference.infer_shapes(onnx.load(str(optimized))).graph
    kinds = {node.op_type for node in graph.node}
    assert not kinds & {
        "QuantizeLinear",
        "DequantizeLinear",
        "Conv",
        "FusedConv",
        "Add",
        "Relu",
        "LeakyRelu",
        "Sigmoid",
    }
    assert "QLinearConv" in kinds


@pytest.mark.parametrize("name", ["anchor_x3", "prelu_linear", "prelu_tanh"])
def test_a_file_of_int8_weights_computes_with_those_weights(exported, photographs, name):
    student, file = exported(name, "int8-weights")
    pixels = pixels_of((18, 23), photographs)
    found = _run(file.path, pixels.astype(np.float32) / 255)
    network, _ = parts(student, "int8-weights")
    expected = network(torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()
    assert np.abs(found - expected).max() < 1e-5
    floats = student.network().eval()
    with torch.no_grad():
        unquantized = floats(torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255)[0].permute(1, 2, 0).numpy()
    assert 1e-5 < np.abs(found - unquantized).max() < 0.05
    _, whole = exported(name, "float32")
    assert file.file_bytes < 0.75 * whole.file_bytes


@pytest.mark.parametrize("precision", PLAIN)
def test_a_batch_gives_what_its_images_give_alone(exported, photographs, precision):
    _, file = exported("prelu_linear", precision)
    images = np.stack([pixels_of((20, 20), photographs), 255 - pixels_of((20, 20), photographs)])
    if precision != "int8":
        images = images.astype(np.float32) / 255
    together = _run(file.path, images).astype(np.float64)
    alone = np.stack([_run(file.path, image) for image in images]).astype(np.float64)
    assert np.abs(together - alone).max() <= (0 if precision == "int8" else 2e-3 if precision == "float16" else 1e-5)


@pytest.mark.parametrize("name", list(STUDENTS))
def test_scales_and_integers_in_the_file_are_those_of_the_student(exported, name):
    student, file = exported(name, "int8")
    graph = onnx.load(str(file.path)).graph
    constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    made_by = {node.output[0]: node for node in graph.node}
    deploy = student.deploy()
    for step, layer in student.quantization.layers.items():
        (conv,) = (node for node in graph.node if node.op_type == "Conv" and node.name.startswith(f"{step}_real"))
        given, weight, bias = (made_by[name] for name in conv.input)
        source = student.quantization.activations[deploy.inputs[step][0]]
        assert [node.op_type for node in (given, weight, bias)] == ["DequantizeLinear"] * 3
        assert constants[given.input[1]] == np.float32(source.scale)
        assert constants[given.input[2]].dtype == np.uint8
        assert constants[given.input[2]] == source.zero_point + 128
        assert np.array_equal(constants[weight.input[0]], layer.weight.numpy())
        assert np.array_equal(constants[weight.input[1]], layer.scale.numpy())
        assert not constants[weight.input[2]].any()
        assert np.array_equal(constants[bias.input[0]], layer.bias.numpy())
        assert constants[bias.input[1]] == pytest.approx(layer.scale.numpy() * source.scale, rel=1e-6)
    wanted = [student.quantization.activations[node.name] for node in graph.node if node.op_type == "QuantizeLinear"]
    found = [node.input for node in graph.node if node.op_type == "QuantizeLinear"]
    assert [(np.float32(one.scale), one.zero_point + 128) for one in wanted] == [
        (constants[scale], constants[zero]) for _, scale, zero in found
    ]


def test_values_carry_the_names_of_the_students_steps(exported):
    student, file = exported("edsr", "float32")
    made = {name for node in onnx.load(str(file.path)).graph.node for name in node.output}
    assert set(student.deploy().inputs) <= made
    convolutions = sum(isinstance(operator, Conv) for _, operator, _ in student.deploy().steps())
    assert file.operators["Conv"] == convolutions


@pytest.mark.parametrize("precision", PLAIN)
def test_the_file_describes_itself(exported, precision):
    student, file = exported("anchor_x3", precision)
    model = onnx.load(str(file.path))
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version >= 18
    (entry,) = model.metadata_props
    assert entry.key == ENTRY
    found = Metadata.from_json(entry.value, "it")
    assert found == file.metadata == describe(student, precision, layout="NCHW", producers=PRODUCERS, pixels="uint8")
    assert found.sizes == "any"
    assert found.input.dtype == ("uint8" if precision == "int8" else "float32")
    assert [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input] == [
        ["batch", 3, "height", "width"]
    ]


def test_the_command_writes_one_file_beside_the_student(saved, command):
    done = command("export.onnx", saved)
    assert done.returncode == 0, done.stderr
    assert left(saved.parent) == {"student.pt", "student_float32.onnx"}
    assert done.stdout.startswith(f"wrote {saved.with_name('student_float32.onnx')}: float32, ")
    assert done.stderr == ""


def test_the_command_calibrates_and_the_gate_passes_both_kinds_of_integers(saved, photographs, command):
    for precision in ("int8", "int8-weights"):
        student = saved if precision == "int8" else saved.with_name("student_int8.pt")
        done = command("export.onnx", student, "--precision", precision, "--calibration", photographs)
        assert done.returncode == 0, done.stderr
    quantized = saved.with_name("student_int8.pt")
    files = [saved.with_name(f"student_{precision}.onnx") for precision in ("int8", "int8-weights")]
    assert left(saved.parent) == {"student.pt", quantized.name, *(file.name for file in files)}
    assert load_student(quantized).precision == "int8"
    done = command("runtime.parity", quantized, *files, "--images", photographs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(": PASS") == 2


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(saved, float_student):
    folder = saved.parent

    refused(main, folder, "add --calibration FOLDER", saved, precision="int8")
    refused(main, folder, "add --calibration FOLDER", saved, precision="int8-weights")
    refused(main, folder, "end in .onnx", saved, out=folder / "student.tflite")
    refused(main, folder, "no file at", folder / "none.pt")
    (folder / "student_float32.onnx").write_bytes(b"mine")
    refused(main, folder, "or --force to replace it", saved)
    assert (folder / "student_float32.onnx").read_bytes() == b"mine"
    with pytest.raises(BadInput, match="expected an int8 student, found a float one"):
        export_onnx(float_student("anchor_x2"), folder / "a.onnx", "int8")


def test_a_checker_that_fails_is_reported_with_its_log_and_leaves_no_file(saved, monkeypatch):
    import onnxsim

    monkeypatch.setattr(onnxsim, "simplify", lambda model: (model, False))
    with pytest.raises(BadInput, match="onnxsim's model computes something else"):
        export_onnx(load_student(saved), saved.with_name("s.onnx"), "float32")
    assert left(saved.parent) == {"student.pt", "s.log"}
    assert "Traceback" in saved.with_name("s.log").read_text()
