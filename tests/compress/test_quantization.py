"""Quantization: ranges, integers and scales against plain references; calibration that is real, counted and repeatable."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from compress.checkpoint import Student, load_student, save_student
from compress.deploy import INPUT, Conv, DeployGraph, DepthToSpace, Repeat
from compress.errors import BadInput
from compress.models import build
from compress.quantization.calibration import calibration_crops, neighbour_correlation
from compress.quantization.integer import IntegerStudent, dequantize, quantize
from compress.quantization.observers import (
    BINS,
    RULES,
    Histogram,
    minmax_range,
    mse_range,
    percentile_range,
    scale_of,
)
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


def _histogram(values: NDArray[np.float32], parts: int = 3) -> Histogram:
    histogram = Histogram()
    for part in np.array_split(values, parts):
        histogram.see_extremes(torch.from_numpy(part))
    for part in np.array_split(values, parts):
        histogram.count(torch.from_numpy(part))
    return histogram


def _values(kind: str) -> NDArray[np.float32]:
    draw = np.random.default_rng(0)
    values = {
        "normal": draw.normal(0.2, 1, 20_000),
        "relu": np.maximum(0, draw.normal(0, 1, 20_000)),
        "outliers": np.concatenate([draw.normal(0, 0.1, 20_000), [-0.9, 1.2]]),
        "positive": draw.uniform(2, 3, 20_000),
        "negative": -draw.exponential(1, 20_000),
    }
    return values[kind].astype(np.float32)


KINDS = ["normal", "relu", "outliers", "positive", "negative"]


@pytest.mark.parametrize("kind", KINDS)
def test_minmax_covers_exactly_what_was_seen_and_zero(kind):
    values = _values(kind)
    assert minmax_range(_histogram(values)) == (min(0.0, float(values.min())), max(0.0, float(values.max())))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("percent", [98.0, 99.0])
def test_percentiles_agree_with_numpys_to_two_bins(kind, percent):
    values = _values(kind)
    histogram = _histogram(values)
    outside = (100 - percent) / 2
    low, high = np.percentile(values, [outside, 100 - outside])
    bin_width = (histogram.high - histogram.low) / BINS
    found = percentile_range(histogram, percent)
    assert found == pytest.approx((min(0.0, low), max(0.0, high)), abs=2 * bin_width)


def _true_error(values: NDArray[np.float32], low: float, high: float) -> float:
    """Mean squared error of int8 with that range, value by value."""
    scale = scale_of(low, high)
    x = torch.from_numpy(values)
    return float((dequantize(quantize(x, scale), scale) - x).square().mean())


@pytest.mark.parametrize("kind", KINDS)
def test_mse_ranges_lose_no_more_than_minmax_and_are_near_the_best_of_a_brute_force_search(kind):
    values = _values(kind)
    histogram = _histogram(values)
    found = _true_error(values, *mse_range(histogram))
    low, high = minmax_range(histogram)
    assert found <= 1.02 * _true_error(values, low, high)
    fractions = np.linspace(0.3, 1, 15)
    best = min(_true_error(values, f * low, g * high) for f in fractions for g in fractions)
    assert _true_error(values, *mse_range(histogram)) <= 1.1 * best
    if kind == "outliers":
        assert found < 0.97 * _true_error(values, low, high)


@pytest.mark.parametrize("rule", list(RULES))
def test_a_value_that_is_always_zero_has_a_usable_scale(rule):
    histogram = Histogram()
    for see in (histogram.see_extremes, histogram.count):
        see(torch.zeros(100))
    low, high = RULES[rule](histogram)
    scale = scale_of(low, high)
    assert dequantize(quantize(torch.zeros(3), scale), scale).tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("low", "high"), [(-1.0, 1.0), (0.0, 6.0), (-0.013, 4.7), (-3.0, 0.0), (-7.3, 1e-4), (0, 1e-6)]
)
def test_zero_is_an_integer_and_the_range_is_covered(low, high):
    scale = scale_of(low, high)
    assert -128 <= scale.zero_point <= 127
    assert dequantize(quantize(torch.zeros(1), scale), scale).item() == 0
    assert scale.scale == pytest.approx((high - low) / 255)
    ends = torch.tensor([low, high])
    assert (dequantize(quantize(ends, scale), scale) - ends).abs().max() <= 0.51 * scale.scale


def test_rounding_is_half_to_even_and_saturates():
    scale = ActivationScale(1.0, 0)
    assert quantize(torch.tensor([0.5, 1.5, 2.5, -0.5, 300, -300]), scale).tolist() == [0, 2, 2, 0, 127, -128]


def test_every_pixel_value_survives_the_images_own_scale():
    pixels = torch.arange(256) / 255
    integers = quantize(pixels, PIXELS)
    assert integers.tolist() == list(range(-128, 128))
    assert torch.equal((dequantize(integers, PIXELS) * 255).round(), torch.arange(256).float())


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


def test_calibration_is_counted_hashed_and_repeatable(photographs):
    first = calibration_crops(str(photographs), 2, count=16, side=24)
    again = calibration_crops(str(photographs), 2, count=16, side=24)
    other = calibration_crops(str(photographs), 2, count=16, side=24, seed=1)
    assert first.crops.shape == (16, 3, 24, 24)
    assert torch.equal(first.crops, again.crops)
    assert first.sha256 == again.sha256 != other.sha256
    assert first.describe() == {
        "source": photographs.name, "images": 3, "crops": 16, "side": 24, "sha256": first.sha256
    }  # fmt: skip


def test_the_same_student_and_crops_give_the_same_integers(students, photographs, tmp_path):
    student, quantized = students["prelu"]
    again = quantize_student(student, calibration_crops(str(photographs), 2, count=16, side=32), plain=True)
    assert again.quantization.activations == quantized.quantization.activations
    assert save_student(again, tmp_path / "a.pt") == save_student(quantized, tmp_path / "b.pt")
    assert quantized.quantization.calibration["crops"] == 16
    assert quantized.quantization.calibration["method"] == "ptq"


def _fill(folder: Path, make) -> Path:
    folder.mkdir()
    for i in range(3):
        Image.fromarray(make(i).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_content_that_is_no_photograph_is_refused(tmp_path, photographs):
    draw = np.random.default_rng(0)
    noise = _fill(tmp_path / "noise", lambda i: draw.integers(0, 256, (200, 200, 3)))
    flat = _fill(tmp_path / "flat", lambda i: np.full((200, 200, 3), 60 * i))
    with pytest.raises(BadInput, match=r"random-looking pixels in .*noise"):
        calibration_crops(str(noise), 2)
    with pytest.raises(BadInput, match=r"flat colours in .*flat"):
        calibration_crops(str(flat), 2)
    crops = calibration_crops(str(photographs), 2, count=16, side=24).crops
    assert neighbour_correlation((crops * 255).byte().permute(0, 2, 3, 1).numpy()) > 0.8


def test_too_little_to_calibrate_on_is_refused(tmp_path, photographs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="found none below"):
        calibration_crops(str(tmp_path / "empty"), 2)
    with pytest.raises(BadInput, match="found nothing at"):
        calibration_crops(str(tmp_path / "missing"), 2)
    with pytest.raises(BadInput, match=r"at least 16 calibration crops .* found 15"):
        calibration_crops(str(photographs), 2, count=15, side=24)
    with pytest.raises(BadInput, match="smaller than 130 pixels"):
        calibration_crops(str(photographs), 2, side=65)


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
