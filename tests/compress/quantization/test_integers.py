"""The int8 student: integers and scales against plain references, and what it computes against a loop in int64."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compress.checkpoint import Student, load_student, save_student
from compress.deploy import INPUT, Conv, DeployGraph, DepthToSpace, Repeat
from compress.errors import BadInput
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.integer import IntegerStudent
from compress.quantization.ptq import quantize_student
from compress.quantization.scales import integer_weights
from compress.quantization.scheme import PIXELS, ActivationScale, IntegerWeights, Quantization

VARIANTS = {
    "anchor": ("anchor", {"scale": 2, "channels": 8, "blocks": 2, "branches": True}),
    "relu": (
        "srresnet",
        {"scale": 2, "channels": 8, "blocks": 1, "activation": "relu", "head_kernel": 5, "tail_kernel": 5},
    ),
    "prelu": ("srresnet", {"scale": 2, "channels": 8, "blocks": 1, "trunk_end": "activation", "output": "tanh"}),
    "edsr": ("edsr", {"scale": 2, "channels": 8, "blocks": 1, "residual_scale": 0.5, "stage_channels": 4}),
}


@pytest.fixture(scope="module")
def students(photographs: Path) -> dict[str, tuple[Student, Student]]:
    """(float, int8) by name: the rules of the integers, without what `test_ptq` adds to them."""
    made = {}
    for name, (architecture, options) in VARIANTS.items():
        torch.manual_seed(1)
        network = build(architecture, options)
        if architecture != "anchor":  # around the middle of the range, as a trained network's output is
            with torch.no_grad():
                network.tail.bias.fill_(0.0 if options.get("output") == "tanh" else 0.5)
        student = Student.of(network)
        crops = calibration_crops(str(photographs), 2, count=16, side=32)
        made[name] = (student, quantize_student(student, crops, plain=True))
    return made


@pytest.fixture(scope="module")
def crop(photographs: Path) -> torch.Tensor:
    with Image.open(photographs / "astronaut.png") as image:
        return torch.tensor(np.asarray(image)[30:94, 20:84].copy()).permute(2, 0, 1)[None] / 255


@pytest.mark.parametrize("name", list(VARIANTS))
def test_images_have_scale_one_over_255_and_zero_point_minus_128(students, name):
    _, quantized = students[name]
    activations = quantized.quantization.activations
    graph = quantized.deploy()
    for value in (INPUT, graph.output):
        assert activations[value] == ActivationScale(1 / 255, -128)
    assert set(activations) == {INPUT, *graph.inputs}


@pytest.mark.parametrize("name", list(VARIANTS))
def test_steps_that_only_move_values_keep_their_scale(students, name):
    _, quantized = students[name]
    activations = quantized.quantization.activations
    moved = [(n, i[0]) for n, o, i in quantized.deploy().steps() if isinstance(o, (Repeat, DepthToSpace))]
    assert moved
    assert all(activations[step] == activations[source] for step, source in moved)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_weights_are_symmetric_per_channel_and_biases_in_their_unit(students, name):
    student, quantized = students[name]
    for step, operator, inputs in student.deploy().steps():
        if not isinstance(operator, Conv):
            continue
        layer = quantized.quantization.layers[step]
        assert (layer.weight.dtype, layer.bias.dtype, layer.scale.shape) == (
            torch.int8, torch.int32, (len(operator.weight),)
        )  # fmt: skip
        largest = layer.weight.abs().amax((1, 2, 3))
        assert torch.equal(largest, torch.full_like(largest, 127)), "every channel uses the whole range"
        error = (layer.weight * layer.scale[:, None, None, None] - operator.weight).abs()
        assert (error <= 0.501 * layer.scale[:, None, None, None]).all()
        unit = layer.scale.double() * quantized.quantization.activations[inputs[0]].scale
        assert ((layer.bias * unit - operator.bias).abs() <= 0.501 * unit + 1e-7).all()


def test_a_channel_of_zeros_stays_zero():
    weight = torch.randn(2, 3, 3, 3)
    weight[1] = 0
    layer = integer_weights(Conv(weight, torch.zeros(2)), PIXELS)
    assert (layer.scale > 0).all()
    assert not layer.weight[1].any()


@pytest.mark.parametrize("name", list(VARIANTS))
def test_the_integer_student_is_close_to_the_float_one(students, crop, name):
    student, quantized = students[name]
    with torch.no_grad():
        sr, integer = student.network()(crop), quantized.reference()(crop)
    assert sr.std() > 0.01, "a flat output would prove nothing"
    assert -10 * torch.log10((sr - integer).square().mean()) > 35
    assert ((integer * 255).round() - integer * 255).abs().max() < 1e-4
    assert not torch.equal((sr * 255).round(), (integer * 255).round())


def test_relu_networks_hold_integers_in_every_step(students, crop):
    _, quantized = students["relu"]
    reference = quantized.reference()
    assert isinstance(reference, IntegerStudent)
    for _, values in reference.integers(crop):
        assert torch.equal(values, values.round())
        assert -128 <= values.min() <= values.max() <= 127


def _plain_convolution(x, layer, given, wanted, relu):
    """The TFLite 8-bit rules, one output pixel at a time, in int64; the requantization in float32."""
    weight, bias = layer.weight.numpy().astype(np.int64), layer.bias.numpy().astype(np.int64)
    out, _, k, _ = weight.shape
    _, height, width = x.shape
    padded = np.zeros((len(x), height + k - 1, width + k - 1), dtype=np.int64)
    padded[:, k // 2 : k // 2 + height, k // 2 : k // 2 + width] = x.astype(np.int64) - given.zero_point
    result = np.zeros((out, height, width))
    for o in range(out):
        factor = np.float32(given.scale) * layer.scale.numpy()[o] / np.float32(wanted.scale)
        for row in range(height):
            for column in range(width):
                total = bias[o] + int((padded[:, row : row + k, column : column + k] * weight[o]).sum())
                real = np.float32(total) * factor
                value = np.rint(max(real, np.float32(0)) if relu else real) + wanted.zero_point
                result[o, row, column] = min(127, max(-128, value))
    return result


@pytest.mark.parametrize("name", ["anchor", "relu", "edsr"])
def test_its_convolutions_equal_a_plain_integer_loop(students, name, crop):
    _, quantized = students[name]
    reference, scales = quantized.reference(), quantized.quantization.activations
    values = {step: v[0].numpy() for step, v in reference.integers(crop[:, :, :6, :7])}
    checked = 0
    for step, operator, (source, *_) in reference.graph.steps():
        if isinstance(operator, Conv):
            layer = quantized.quantization.layers[step]
            plain = _plain_convolution(
                values[source], layer, scales[source], scales[step], operator.activation == "relu"
            )
            assert np.array_equal(plain, values[step]), step
            checked += 1
    assert checked >= 4


def test_long_sums_stay_exact():
    """A sum beyond float32's integers: 9x9 over 64 channels at the extremes."""
    graph = DeployGraph(1)
    graph.add("wide", Conv(torch.ones(64, 3, 1, 1), torch.zeros(64)), INPUT)
    graph.add("sum", Conv(torch.ones(3, 64, 9, 9), torch.zeros(3)), "wide")
    ones = IntegerWeights(
        torch.full((64, 3, 1, 1), 127, dtype=torch.int8), torch.full((64,), 1 / 381), torch.zeros(64).int()
    )
    many = IntegerWeights(
        torch.full((3, 64, 9, 9), 127, dtype=torch.int8),
        torch.full((3,), 1 / 127 / 5184),
        torch.tensor([1, 0, -1]).int(),
    )
    quantization = Quantization({INPUT: PIXELS, "wide": PIXELS, "sum": PIXELS}, {"wide": ones, "sum": many}, {})
    student = IntegerStudent(graph, quantization)
    values = {step: v[0].numpy() for step, v in student.integers(torch.full((1, 3, 9, 9), 0.7))}
    plain = _plain_convolution(values["wide"], many, PIXELS, PIXELS, relu=False)
    assert np.array_equal(plain, values["sum"])


def test_the_same_student_and_crops_give_the_same_integers(students, photographs, tmp_path):
    student, quantized = students["prelu"]
    again = quantize_student(student, calibration_crops(str(photographs), 2, count=16, side=32), plain=True)
    assert again.quantization.activations == quantized.quantization.activations
    assert save_student(again, tmp_path / "a.pt") == save_student(quantized, tmp_path / "b.pt")
    assert quantized.quantization.calibration["crops"] == 16
    assert quantized.quantization.calibration["method"] == "ptq"


def test_an_int8_student_and_a_teacher_cannot_be_quantized(students, photographs):
    crops = calibration_crops(str(photographs), 2, count=16, side=24)
    with pytest.raises(BadInput, match="int8 already"):
        quantize_student(students["anchor"][1], crops)
    rlfn = Student.of(build("rlfn", {"channels": 8, "blocks": 1, "attention_channels": 4}))
    with pytest.raises(BadInput, match="distil a student"):
        quantize_student(rlfn, crops)


def test_the_command_writes_an_int8_student(students, photographs, tmp_path, command):
    save_student(students["anchor"][0], tmp_path / "float.pt")
    options = ("--out", tmp_path / "int8.pt", "--calibration", photographs, "--crops", "16", "--rule", "minmax")
    done = command("compress.quantization", tmp_path / "float.pt", *options)
    assert done.returncode == 0, done.stderr
    written = load_student(tmp_path / "int8.pt")
    assert written.quantization.calibration["range"] == "minmax"
    assert done.stdout == f"wrote {tmp_path / 'int8.pt'}: int8, 4 layers, calibrated on 16 crops\n"
    again = command(
        "compress.quantization", tmp_path / "int8.pt", "--out", tmp_path / "twice.pt", "--calibration", photographs
    )
    assert again.returncode == 2
    assert len(again.stderr.splitlines()) == 1
    assert not (tmp_path / "twice.pt").exists()
