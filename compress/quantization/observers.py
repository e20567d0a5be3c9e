"""Observers: from the values that a network produces to the range that int8 should cover.

A histogram is filled in two passes over the calibration crops (extremes first, counts second); three rules turn it
into a range: the extremes, a percentile, or the range with the least squared rounding and clipping error.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.quantization.scheme import HIGH, LOW, ActivationScale

RangeRule = Literal["minmax", "percentile", "mse"]
Range = tuple[float, float]
BINS = 2048
LEVELS = HIGH - LOW


class Histogram:
    """Counts of a tensor's values in `BINS` equal bins between its extremes."""

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0  # a range always holds 0, which padding needs
        self.counts: NDArray[np.float64] = np.zeros(BINS)

    def see_extremes(self, x: Tensor) -> None:
        """First pass."""
        self.low, self.high = min(self.low, x.min().item()), max(self.high, x.max().item())

    def count(self, x: Tensor) -> None:
        """Second pass, over the same values."""
        if self.high > self.low:
            self.counts += torch.histc(x.float(), BINS, self.low, self.high).double().numpy()

    @property
    def centres(self) -> NDArray[np.float64]:
        edges = np.linspace(self.low, self.high, BINS + 1)
        return (edges[:-1] + edges[1:]) / 2


def minmax_range(histogram: Histogram) -> Range:
    """Everything that was seen."""
    return histogram.low, histogram.high


def percentile_range(histogram: Histogram, percent: float = 99.99) -> Range:
    """The central `percent` of the values, and 0."""
    if not histogram.high > histogram.low:
        return 0.0, 0.0
    total = np.cumsum(histogram.counts) / histogram.counts.sum()
    outside = (1 - percent / 100) / 2
    centres = histogram.centres
    low = centres[np.searchsorted(total, outside)] if histogram.low < 0 else 0.0
    high = centres[min(np.searchsorted(total, 1 - outside), BINS - 1)] if histogram.high > 0 else 0.0
    return min(0.0, float(low)), max(0.0, float(high))


def mse_range(histogram: Histogram) -> Range:
    """The range whose 256 levels give the least mean squared error; each end is moved in turn, twice."""
    low, high = histogram.low, histogram.high
    shrink = np.linspace(0.3, 1.0, 71)
    for _ in range(2):
        high = min((float(f) * histogram.high for f in shrink), key=lambda end: _squared_error(histogram, low, end))
        low = min((float(f) * histogram.low for f in shrink), key=lambda end: _squared_error(histogram, end, high))
    return low, high


def _squared_error(histogram: Histogram, low: float, high: float) -> float:
    if high <= low:
        return float("inf")
    scale, values = (high - low) / LEVELS, histogram.centres
    zero = np.rint(-low / scale)
    rounded = (np.clip(np.rint(values / scale) + zero, 0, LEVELS) - zero) * scale
    return float(((rounded - values) ** 2 * histogram.counts).sum())


RULES: dict[RangeRule, Callable[[Histogram], Range]] = {
    "minmax": minmax_range,
    "percentile": percentile_range,
    "mse": mse_range,
}


def scale_of(low: float, high: float) -> ActivationScale:
    """Asymmetric int8 scale for a range that holds 0; 0 falls on an integer. A value that is always 0 gets scale 1."""
    if high <= low:
        return ActivationScale(1.0, 0)
    scale = float(np.float32((high - low) / LEVELS))
    return ActivationScale(scale, int(np.clip(round(LOW - low / scale), LOW, HIGH)))
