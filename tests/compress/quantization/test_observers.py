"""Ranges of what was seen, and the scales made of them, against plain references."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from compress.quantization.integer import dequantize, quantize
from compress.quantization.observers import (
    BINS,
    RULES,
    Histogram,
    minmax_range,
    mse_range,
    percentile_range,
    scale_of,
)
from compress.quantization.scheme import PIXELS, ActivationScale


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
