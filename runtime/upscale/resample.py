"""Pillow's antialiased Lanczos, strip by strip, bit for bit what it gives for the whole image. Needs no torch.

Pillow resizes across and then down (newer versions the other way round where the height shrinks much more than the
width), both with integer weights of 22 fractional bits, so rows may come one after another. Across is Pillow's own work.
Down needs rows above and below a strip; Pillow's `box` would cut there, but holds its edges in single precision, and
results are off by one now and then. So the weights of the whole height are computed here, as Pillow does
(src/libImaging/Resample.c), and applied in double precision, which holds such sums exactly.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from runtime.engines.base import Image

LOBES = 3
FRACTION = 22  # bits of Pillow's weights
BLOCK = 16  # rows of the result made at once


class Resampler:
    """Takes the rows of an image from top to bottom and gives those of the resized one.

    Args:
        source, target: (height, width) in pixels.
    """

    def __init__(self, source: tuple[int, int], target: tuple[int, int]):
        self._source, self._target = source, target
        self._starts, self._stops, self._weights = lanczos_weights(source[0], target[0])
        self._held: Image | None = None  # rows that are still needed
        self._first = self._next = 0  # number of the first row held, of the next row to give

    def push(self, rows: Image) -> Iterator[Image]:
        """Takes the next rows, (n, W, C) uint8 with C 1 or 3, and yields all that they complete, some (m, target W, C) at a
        time. What it yields by how much depends on the number of rows alone."""
        across = self._across(rows)
        if self._source[0] == self._target[0]:
            yield across
            return
        held = across if self._held is None else np.concatenate([self._held, across])
        ready = int(np.searchsorted(self._stops, self._first + len(held), "right"))
        for start in range(self._next, ready, BLOCK):
            yield self._down(held, start, min(start + BLOCK, ready))
        self._next = max(self._next, ready)
        needed = int(self._starts[self._next]) if self._next < self._target[0] else self._source[0]
        needless = min(max(needed - self._first, 0), len(held))
        self._held = held[needless:].copy()
        self._first += needless

    def _across(self, rows: Image) -> Image:
        if self._source[1] == self._target[1]:
            return rows
        picture = Pillow.fromarray(rows[..., 0] if rows.shape[2] == 1 else np.ascontiguousarray(rows))
        resized = np.asarray(picture.resize((self._target[1], len(rows)), Pillow.Resampling.LANCZOS))
        return resized.reshape(len(rows), self._target[1], rows.shape[2])

    def _down(self, held: Image, first: int, last: int) -> Image:
        """Rows `first` to `last` of the result."""
        low, high = self._starts[first], self._stops[last - 1]
        band = np.zeros((last - first, high - low))
        for line, row in zip(band, range(first, last), strict=True):
            start, stop = self._starts[row] - low, self._stops[row] - low
            line[start:stop] = self._weights[row, : stop - start]
        seen = held[low - self._first : high - self._first]
        sums = band @ seen.reshape(len(seen), -1).astype(np.float64)
        sums += 0.5
        return np.clip(sums, 0, 255, out=sums).astype(np.uint8).reshape(last - first, *seen.shape[1:])


def lanczos_weights(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """What each of `target` pixels takes of `source` pixels along a line.

    Returns:
        The first pixel of each, the one after the last, and the weights from the first on, (target, n), multiples of 2^-22.
    """
    ratio = source / target
    stretch = max(ratio, 1.0)  # wider when shrinking: this is the antialiasing
    support = LOBES * stretch
    starts, stops = np.zeros(target, np.int64), np.zeros(target, np.int64)
    weights = np.zeros((target, math.ceil(support) * 2 + 1))
    for i in range(target):
        centre = (i + 0.5) * ratio
        start, stop = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), source)
        line = np.array([_lanczos((x - centre + 0.5) * (1.0 / stretch)) for x in range(start, stop)])
        line = line * (1.0 / line.sum()) * (1 << FRACTION)
        starts[i], stops[i] = start, stop
        weights[i, : stop - start] = np.trunc(line + np.copysign(0.5, line)) / (1 << FRACTION)
    return starts, stops, weights


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / LOBES) if -LOBES <= x < LOBES else 0.0


def _sinc(x: float) -> float:
    return math.sin(x * math.pi) / (x * math.pi) if x else 1.0
