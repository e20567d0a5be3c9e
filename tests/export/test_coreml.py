"""Core ML packages, read back and evaluated operator by operator: pictures in and out, the student's values and scales."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from coremltools.converters.mil import Builder as mb
from numpy.typing import NDArray

from compress.checkpoint import Student, load_student
from compress.errors import BadInput
from export.coreml import KNOWN, PRODUCERS, export_coreml, main
from export.exporting import ExportedFile, describe, parts
from export.metadata import ENTRY, Metadata
from export.mil import read_program, values
from tests.export.conftest import SIZES, STUDENTS, left, pixels_of, reference_of, refused

PLAIN = [precision for precision in KNOWN if precision not in ("int16x8", "mixed")]  # those: test_mixed

Exported = Callable[..., tuple[Student, ExportedFile]]


@pytest.fixture(scope="module")
def exported(float_student: Callable[[str], Student], int8_student: Callable[[str], Student], folder: Path) -> Exported:
    """(student, file) of a name and precision; every file is written once."""
    made: dict[tuple[Any, ...], tuple[Student, ExportedFile]] = {}

    def export(name: str, precision: Any, **options: Any) -> tuple[Student, ExportedFile]:
        key = (name, precision, *options.values())
        if key not in made:
            student = int8_student(name) if precision.startswith("int8") else float_student(name)
            path = folder / f"{'_'.join(map(str, key))}.mlpackage"
            made[key] = student, export_coreml(student, path, precision, **options)
        return made[key]

    return export


def _run(path: Path, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """(H, W, 3) pixels through a package."""
    _, program = read_program(path)
    *_, (name, sr) = values(program, pixels.transpose(2, 0, 1)[None].astype(np.float32))
    assert name == "sr"
    return sr[0].permute(1, 2, 0).numpy()


def _expected(student: Student, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.rint(reference_of(student, pixels) * 255)


def _graph(student: Student, precision: Any, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the graph that is written gives in float32."""
    network, _ = parts(student, precision)
    sr = network(torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255)
    return np.rint(sr[0].permute(1, 2, 0).numpy() * 255)


@pytest.mark.parametrize("name", list(STUDENTS))
def test_a_float32_package_equals_the_student(exported, photographs, name):
    student, file = exported(name, "float32")
    for size in SIZES:
        pixels = pixels_of(size, photographs)
        expected, found = _expected(student, pixels), _run(file.path, pixels)
        assert found.shape == expected.shape
        assert expected.std() > 2, "a flat output would prove nothing"
        assert np.abs(found - expected).max() <= 1
        assert (found != expected).mean() < 1e-3  # ties


@pytest.mark.parametrize("name", list(STUDENTS))
def test_an_int8_package_computes_the_students_integers(exported, photographs, name):
    student, file = exported(name, "int8")
    for size in SIZES:
        pixels = pixels_of(size, photographs)
        expected, found = _expected(student, pixels), _run(file.path, pixels)
        assert expected.std() > 2
        assert np.abs(found - expected).max() <= 1
        assert (found != expected).mean() < 0.02


@pytest.mark.parametrize("target", ["iOS17", "iOS18"])
@pytest.mark.parametrize("precision", ["float16", "int8", "int8-weights"])
def test_float16_arithmetic_stays_near_the_student_on_both_targets(exported, photographs, precision, target):
    student, file = exported("prelu_linear", precision, target=target, compute="float16")
    pixels = pixels_of((24, 30), photographs)
    expected = _expected(student, pixels) if precision == "int8" else _graph(student, precision, pixels)
    difference = np.abs(_run(file.path, pixels) - expected)
    assert difference.max() <= (3 if precision == "int8" else 1)
    assert difference.mean() < (0.5 if precision == "int8" else 0.2)
    spec, _ = read_program(file.path)
    (opset,) = spec.mlProgram.functions["main"].block_specializations
    assert opset == {"iOS17": "CoreML7", "iOS18": "CoreML8"}[target]
    assert file.operators["cast"] >= 2


def test_packages_of_integers_are_smaller(exported):
    sizes = {precision: exported("prelu_linear", precision)[1].file_bytes for precision in PLAIN}
    weights = {
        precision: (exported("prelu_linear", precision)[1].path / "Data/com.apple.CoreML/weights/weight.bin")
        .stat()
        .st_size
        for precision in PLAIN
    }
    assert sizes["int8-weights"] < sizes["float16"] < sizes["float32"]
    assert weights["float16"] < 0.65 * weights["float32"]
    assert weights["int8"] < 0.5 * weights["float32"]


@pytest.mark.parametrize("name", ["anchor_x4", "relu_linear"])
def test_scales_and_integers_in_the_package_are_those_of_the_student(exported, name):
    student, file = exported(name, "int8")
    _, program = read_program(file.path)
    operations = program.functions["main"].operations
    quantization, graph = student.quantization, student.deploy()
    weights = {op.outputs[0].name: op for op in operations if op.op_type == "constexpr_affine_dequantize"}
    assert len(weights) == len(quantization.layers)
    for step, layer in quantization.layers.items():
        found = weights[f"{step}_weight"]
        assert np.array_equal(found.quantized_data.val, layer.weight.numpy())
        assert np.array_equal(found.scale.val, layer.scale.numpy())
        assert not np.any(found.zero_point.val)
    moves = ("Repeat", "DepthToSpace")
    rounded = ["lr", *(step for step, operator, _ in graph.steps() if type(operator).__name__ not in moves)]
    found = []
    for op in operations:
        if op.op_type == "quantize":
            low = {"int8": -128, "uint8": 0}[op.output_dtype.val]
            zero = 0 if op.zero_point is None else int(op.zero_point.val)
            found.append((np.float32(op.scale.val), zero - low))
    activations = quantization.activations
    assert found == [(np.float32(activations[step].scale), activations[step].zero_point + 128) for step in rounded]


@pytest.mark.parametrize("precision", PLAIN)
def test_the_package_describes_itself(exported, precision):
    student, file = exported("anchor_x3", precision)
    spec, _ = read_program(file.path)
    found = Metadata.from_json(spec.description.metadata.userDefined[ENTRY], "it")
    wanted = describe(student, precision, layout="NCHW", producers=PRODUCERS, pixels="uint8", pictures=True)
    assert found == file.metadata == wanted
    assert (found.input.dtype, found.input.scale, found.input.zero_point) == ("uint8", 1 / 255, 0)
    lr, sr = spec.description.input[0], spec.description.output[0]
    assert (lr.name, sr.name) == ("lr", "sr")
    assert [one.type.WhichOneof("Type") for one in (lr, sr)] == ["imageType", "imageType"]
    assert lr.type.imageType.imageSizeRange.widthRange.upperBound == 4096


def test_sizes_are_baked_in_or_listed(float_student, tmp_path, photographs):
    student = float_student("anchor_x2")
    fixed = export_coreml(student, tmp_path / "fixed.mlpackage", "float32", sizes=[[20, 28]])
    listed = export_coreml(student, tmp_path / "listed.mlpackage", "float32", sizes=[[20, 28], [28, 20]])
    image = read_program(fixed.path)[0].description.input[0].type.imageType
    assert (image.height, image.width, image.WhichOneof("SizeFlexibility")) == (20, 28, None)
    image = read_program(listed.path)[0].description.input[0].type.imageType
    sizes = {(size.height, size.width) for size in image.enumeratedSizes.sizes}
    assert sizes == {(20, 28), (28, 20)}
    assert fixed.metadata.sizes == [[20, 28]]
    pixels = pixels_of((28, 20), photographs)
    assert np.abs(_run(listed.path, pixels) - _expected(student, pixels)).max() <= 1


def test_evaluated_operators_are_what_apple_documents(tmp_path):
    """Each against PyTorch's own or a value worked out by hand."""
    x = torch.arange(-8.0, 8.0).reshape(1, 4, 2, 2)

    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 4, 2, 2))], opset_version=ct.target.iOS17)
    def program(lr):  # type: ignore[no-untyped-def]
        grid = {"scale": np.float32(0.5), "zero_point": np.int8(3)}
        integers = mb.quantize(input=lr, output_dtype="int8", name="integers", **grid)
        real = mb.dequantize(input=integers, name="real", **grid)
        leaky = mb.leaky_relu(x=real, alpha=np.float32(-0.5), name="leaky")
        tiled = mb.tile(x=leaky, reps=(1, 2, 1, 1), name="tiled")
        spread = mb.depth_to_space(x=tiled, block_size=2, name="spread")
        weight = np.arange(18, dtype=np.float32).reshape(1, 2, 3, 3)
        made = mb.conv(
            x=spread, weight=weight, bias=np.ones(1, np.float32), pad_type="custom", pad=[1] * 4, name="made"
        )
        return mb.sigmoid(x=mb.clip(x=made, alpha=np.float32(0), beta=np.float32(1), name="clipped"), name="sr")

    model = ct.convert(
        program, source="milinternal", convert_to="mlprogram", minimum_deployment_target=ct.target.iOS17,
        compute_precision=ct.precision.FLOAT32, skip_model_load=True,
    )  # fmt: skip
    model.save(str(tmp_path / "operators.mlpackage"))
    _, read = read_program(tmp_path / "operators.mlpackage")
    found = dict(values(read, x.numpy()))
    leaky = torch.where(x < 0, -0.5 * x, x)
    tiled = torch.cat([leaky, leaky], dim=1)
    # TensorFlow's order of channels: (block, block, C); PixelShuffle's is (C, block, block)
    spread = F.pixel_shuffle(tiled[:, [0, 2, 4, 6, 1, 3, 5, 7]], 2)
    weight = torch.arange(18.0).reshape(1, 2, 3, 3)
    made = F.conv2d(spread, weight, torch.ones(1), padding=1)
    assert torch.equal(found["leaky"], leaky)
    assert torch.equal(found["spread"], spread)
    assert torch.allclose(found["made"], made)
    assert torch.allclose(found["sr"], torch.sigmoid(made.clamp(0, 1)))


def test_other_packages_are_refused(tmp_path):
    @mb.program(input_specs=[mb.TensorSpec(shape=(1, 3, 4, 4))], opset_version=ct.target.iOS17)
    def program(lr):  # type: ignore[no-untyped-def]
        return mb.erf(x=lr, name="sr")

    model = ct.convert(
        program,
        source="milinternal",
        convert_to="mlprogram",
        minimum_deployment_target=ct.target.iOS17,
        skip_model_load=True,
    )
    model.save(str(tmp_path / "foreign.mlpackage"))
    with pytest.raises(BadInput, match="found erf"):
        read_program(tmp_path / "foreign.mlpackage")
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(BadInput, match=r"expected an \.mlpackage with an ML Program"):
        read_program(tmp_path / "empty.mlpackage")
    with pytest.raises(BadInput, match="found nothing"):
        read_program(tmp_path / "missing.mlpackage")


def test_the_command_writes_a_package_that_the_gate_passes(saved, photographs, command):
    done = command("export.coreml", saved, "--precision", "int8", "--calibration", photographs, "--size", "any")
    assert done.returncode == 0, done.stderr
    package, quantized = saved.with_name("student_int8.mlpackage"), saved.with_name("student_int8.pt")
    assert done.stdout.splitlines()[1].startswith(f"wrote {package}: int8, ")
    assert done.stderr == ""
    assert left(saved.parent) == {"student.pt", quantized.name, package.name, "student_int8.log"}
    done = command("runtime.parity", quantized, package, "--images", photographs)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("student_int8.mlpackage: PASS"))
    if sys.platform != "darwin":
        assert "reference evaluation of the Core ML file" in line
        assert "not run" in done.stdout


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(saved, float_student, monkeypatch):
    folder = saved.parent

    refused(main, folder, "add --calibration FOLDER", saved, precision="int8")
    refused(main, folder, "end in .mlpackage", saved, out=folder / "student.tflite")
    refused(main, folder, "expected a size like 64x64, found 'big'", saved, size="big")
    refused(main, folder, "positive LR size, found 0x4", saved, size="0x4")
    refused(main, folder, "expected target out of iOS17, iOS18, found 'iOS13'", saved, target="iOS13")
    refused(main, folder, "expected compute out of float32, float16", saved, compute="int4")
    mine = folder / "student_float32.mlpackage"
    mine.mkdir()
    (mine / "mine").write_bytes(b"mine")
    refused(main, folder, "or --force to replace it", saved)
    assert (mine / "mine").read_bytes() == b"mine"
    monkeypatch.setattr(ct, "convert", lambda *_, **__: 1 / 0)
    with pytest.raises(BadInput, match="ZeroDivisionError"):
        export_coreml(load_student(saved), mine, "float32")
    assert (mine / "mine").read_bytes() == b"mine"
    monkeypatch.undo()
    main(saved, force=True)
    assert (mine / "Manifest.json").is_file()
    assert not (mine / "mine").exists()


def test_int8_weights_are_computed_with(exported, photographs):
    student, file = exported("relu_linear", "int8-weights", compute="float32")
    pixels = pixels_of((20, 20), photographs)
    assert np.abs(_run(file.path, pixels) - _graph(student, "int8-weights", pixels)).max() <= 1
