"""TFLite files: equal to the PyTorch student at any size, native operators, integers all through, honest metadata."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter
from numpy.typing import NDArray

from compress.checkpoint import Student, load_student
from compress.deploy import INPUT
from compress.errors import BadInput
from compress.quantization.dynamic import DynamicStudent
from compress.quantization.scheme import PIXELS
from export.audit import audit_tflite
from export.exporting import describe, parts
from export.metadata import Metadata, read_tflite
from export.tflite import PRODUCERS, TfliteFile, export_tflite
from runtime.engines import open_model
from tests.export.conftest import QUALITY, SIZES, STUDENTS, pixels_of, reference_of

Exported = Callable[[str, str], tuple[Student, TfliteFile]]


@pytest.fixture(scope="module")
def exported(float_student: Callable[[str], Student], int8_student: Callable[[str], Student], folder: Path) -> Exported:
    """(student, file) of a name and precision; every file is written once."""
    made: dict[tuple[str, str], tuple[Student, TfliteFile]] = {}

    def export(name: str, precision: Any) -> tuple[Student, TfliteFile]:
        if (name, precision) not in made:
            student = int8_student(name) if precision == "int8" else float_student(name)
            file = export_tflite(student, folder / f"{name}_{precision}.tflite", precision)
            made[name, precision] = student, file
        return made[name, precision]

    return export


def _run(path: Path, image: NDArray[Any]) -> NDArray[Any]:
    """One image (h, w, 3) through a file with LiteRT, after resizing its input."""
    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], [1, *image.shape])
    interpreter.allocate_tensors()
    given, made = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert given["dtype"] == image.dtype
    interpreter.set_tensor(given["index"], image[None])
    interpreter.invoke()
    return interpreter.get_tensor(made["index"])[0]


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
    assert 0 < difference < 2e-3
    _, whole = exported(name, "float32")
    assert file.audit.weight_bytes < 0.6 * whole.audit.weight_bytes
    assert file.audit.file_bytes < whole.audit.file_bytes


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", list(STUDENTS))
def test_an_int8_file_computes_the_students_integers(exported, photographs, name, size):
    student, file = exported(name, "int8")
    pixels = pixels_of(size, photographs)
    expected = np.rint(reference_of(student, pixels) * 255).astype(int)
    found = _run(file.path, (pixels.astype(int) - 128).astype(np.int8)).astype(int) + 128
    assert found.shape == expected.shape
    assert expected.std() > 2, "a flat output would prove nothing"
    # the logistic function of a tanh output comes from another implementation, which may round a tie differently
    assert np.abs(found - expected).max() <= (1 if name.endswith("tanh") else 0)


@pytest.mark.parametrize("name", list(STUDENTS))
def test_an_int8_file_is_integer_in_one_partition(exported, name):
    _, file = exported(name, "int8")
    audit = audit_tflite(file.path)
    assert audit.faults("int8") == []
    assert audit.integer_only
    assert (audit.input_type, audit.output_type) == ("INT8", "INT8")
    assert (audit.partitions, audit.outside) == (1, [])
    assert audit.resizable
    assert not {"QUANTIZE", "DEQUANTIZE"} & set(audit.operators)


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", list(STUDENTS))
def test_operators_are_the_native_ones(exported, name, precision):
    student, file = exported(name, precision)
    operators = file.audit.operators
    assert not {"TRANSPOSE", "RESHAPE", "PAD", "SELECT", "SELECT_V2", "MINIMUM", "MAXIMUM"} & set(operators)
    assert operators["DEPTH_TO_SPACE"] == (2 if name == "relu_linear" else 1)
    convolutions = sum(hasattr(o, "weight") for _, o, _ in student.deploy().steps())
    assert operators["CONV_2D"] == convolutions
    if precision == "float32" and name.startswith("prelu"):
        assert operators["PRELU"] == sum(type(o).__name__ == "PReLU" for _, o, _ in student.deploy().steps())
    assert file.audit.largest_rank <= 4


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_metadata_comes_back_as_written_and_names_the_student(exported, folder, precision):
    student, file = exported("anchor_x3", precision)
    found = read_tflite(file.path)
    assert found == file.metadata == describe(student, precision, layout="NHWC", producers=PRODUCERS)
    stem = "anchor_x3_int8" if precision == "int8" else "anchor_x3"
    assert found.student_sha256 == load_student(folder / f"{stem}.pt").file_hash
    assert (found.architecture, found.scale, found.precision) == ("anchor", 3, precision)
    assert found.receptive_radius == student.deploy().receptive_radius() == 3
    assert found.sizes == "any"
    assert torch.__version__.startswith(found.producer["torch"])
    if precision == "int8":
        assert (found.input.scale, found.input.zero_point, found.input.dtype) == (PIXELS.scale, -128, "int8")
        assert found.calibration == student.quantization.calibration
        assert found.quality == []
    else:
        assert (found.input.scale, found.input.dtype, found.calibration) == (None, "float32", None)
        assert found.quality == [QUALITY]


@pytest.mark.parametrize(
    "text", ["no json", "[]", "{}", '{"version": 99}', '{"version": 1, "scale": 2}', '{"version": null}']
)
def test_other_metadata_is_refused(text):
    with pytest.raises(BadInput, match=r"some\.tflite"):
        Metadata.from_json(text, "some.tflite")


@pytest.mark.parametrize("name", ["anchor_x4", "relu_linear"])
def test_scales_in_the_file_are_those_of_the_student(exported, name):
    student, file = exported(name, "int8")
    interpreter = Interpreter(str(file.path), num_threads=1, experimental_op_resolver_type=_plain_kernels())
    interpreter.allocate_tensors()
    details = {detail["index"]: detail["quantization_parameters"] for detail in interpreter.get_tensor_details()}
    layers, activations = student.quantization.layers, student.quantization.activations
    convolutions = [node for node in interpreter._get_ops_details() if node["op_name"] == "CONV_2D"]
    assert len(convolutions) == len(layers)
    for node, (step, layer) in zip(convolutions, layers.items(), strict=True):
        given, weight, bias = (details[int(i)] for i in node["inputs"])
        made = details[int(node["outputs"][0])]
        source = activations[student.deploy().inputs[step][0]]
        assert (given["scales"].tolist(), given["zero_points"].tolist()) == (
            [np.float32(source.scale)],
            [source.zero_point],
        )
        assert np.array_equal(weight["scales"], layer.scale.numpy())
        assert not weight["zero_points"].any()
        assert bias["scales"] == pytest.approx(layer.scale.numpy() * source.scale, rel=1e-6)
        wanted = activations[step]
        assert (made["scales"].tolist(), made["zero_points"].tolist()) == (
            [np.float32(wanted.scale)],
            [wanted.zero_point],
        )
        stored = interpreter.get_tensor(int(node["inputs"][1]))
        assert np.array_equal(stored, layer.weight.permute(0, 2, 3, 1).numpy())
        assert np.array_equal(interpreter.get_tensor(int(node["inputs"][2])), layer.bias.numpy())
    for end in (interpreter.get_input_details()[0], interpreter.get_output_details()[0]):
        assert end["quantization"] == (np.float32(1 / 255), -128)
    assert activations[INPUT] == PIXELS


def _plain_kernels() -> Any:
    from ai_edge_litert.interpreter import OpResolverType

    return OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES


def test_the_image_tensors_are_called_lr_and_sr(exported):
    for precision in ("float32", "int8"):
        _, file = exported("anchor_x2", precision)
        interpreter = Interpreter(str(file.path))
        assert interpreter.get_input_details()[0]["name"] == "lr"
        assert interpreter.get_output_details()[0]["name"] == "sr"
        (signature,) = interpreter.get_signature_list().values()
        assert signature == {"inputs": ["lr"], "outputs": ["sr"]}


def test_force_replaces_and_an_int8_student_can_give_a_float_file(int8_student, folder, tmp_path, photographs):
    from export.tflite import main

    int8_student("anchor_x2")
    (tmp_path / "s_int8.pt").write_bytes((folder / "anchor_x2_int8.pt").read_bytes())
    target = tmp_path / "s_float32.tflite"
    target.write_bytes(b"old")
    main(tmp_path / "s_int8.pt", precision="float32", force=True)
    pixels = pixels_of(SIZES[0], photographs)
    with torch.no_grad():
        expected = load_student(tmp_path / "s_int8.pt").network()(torch.tensor(pixels).permute(2, 0, 1)[None] / 255)
    found = _run(target, pixels.astype(np.float32) / 255)
    assert np.abs(found - expected[0].permute(1, 2, 0).numpy()).max() < 1e-5


@pytest.mark.parametrize("images", ["uint8", "float32"])
def test_an_int8_file_takes_other_pixels_and_computes_the_same(exported, photographs, tmp_path, images):
    student, plain = exported("edsr", "int8")
    file = export_tflite(student, tmp_path / "images.tflite", "int8", images=images)
    pixels = pixels_of(SIZES[1], photographs)
    expected = _run(plain.path, (pixels.astype(int) - 128).astype(np.int8)).astype(int) + 128
    found = _run(file.path, pixels if images == "uint8" else pixels.astype(np.float32) / 255)
    assert expected.std() > 2
    assert np.array_equal(found if images == "uint8" else np.rint(found * 255), expected)
    metadata = read_tflite(file.path)
    assert (metadata.input.dtype, metadata.output.dtype) == (images, images)
    assert (metadata.input.scale, metadata.input.zero_point) == ((1 / 255, 0) if images == "uint8" else (None, None))
    assert sum(file.audit.operators.values()) == sum(plain.audit.operators.values()) + 2
    assert open_model(file.path).upscale(pixels).image.tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["anchor_x4", "prelu_tanh"])
def test_a_file_of_dynamic_range_has_the_students_weights_and_computes_what_its_reference_does(
    int8_student, tmp_path, photographs, name
):
    student = int8_student(name)
    file = export_tflite(student, tmp_path / "dynamic.tflite", "int8-dynamic")
    pixels = pixels_of(SIZES[1], photographs)
    graph, integers = parts(student, "int8-dynamic")
    x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
    expected = DynamicStudent(graph, integers)(x)[0].permute(1, 2, 0).numpy()
    found = _run(file.path, pixels.astype(np.float32) / 255)
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found - reference_of(dataclasses.replace(student, quantization=None), pixels)).max() > 1e-3
    interpreter = Interpreter(str(file.path), experimental_op_resolver_type=_plain_kernels())
    interpreter.allocate_tensors()
    details = {detail["index"]: detail["quantization_parameters"] for detail in interpreter.get_tensor_details()}
    convolutions = [node for node in interpreter._get_ops_details() if node["op_name"] == "CONV_2D"]
    stored = [
        (interpreter.get_tensor(int(node["inputs"][1])), details[int(node["inputs"][1])]) for node in convolutions
    ]
    assert len(stored) == len(student.quantization.layers)
    for layer, (weight, grid) in zip(student.quantization.layers.values(), stored, strict=True):
        assert np.array_equal(weight, layer.weight.permute(0, 2, 3, 1).numpy())
        assert np.array_equal(grid["scales"], layer.scale.numpy())


def test_sizes_are_named_in_the_file(saved, tmp_path):
    one = export_tflite(load_student(saved), tmp_path / "a.tflite", "float32", sizes=[[20, 36], [36, 20]])
    assert read_tflite(one.path).sizes == [[20, 36], [36, 20]]
    assert Interpreter(str(one.path)).get_input_details()[0]["shape"].tolist() == [1, 20, 36, 3]
    engine = open_model(one.path)
    assert engine.upscale(np.zeros((36, 20, 3), np.uint8)).image.shape == (72, 40, 3)
    with pytest.raises(BadInput, match="expected an image of 36x20, 20x36 pixels, found 21x21"):
        engine.upscale(np.zeros((21, 21, 3), np.uint8))
