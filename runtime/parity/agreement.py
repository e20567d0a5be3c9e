"""How far a file's outputs are from the reference's: counted image by image, told in LSB and dB."""

import math
from dataclasses import dataclass

import numpy as np

from runtime.engines.base import Raw, to_pixels, to_real

LSB = 1 / 255
APART = 4  # 0, 1, 2, or more LSB
DIGITS = 3  # of differences between pixels, which are whole but for the last bits of floats


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A file's outputs against the reference's, over all values of all images.

    Attributes:
        max_lsb: largest difference in steps of 1/255; nan if any value is not finite.
        within: share of values at most 1 LSB apart.
        identical: share of values that are the same uint8 pixel.
        distribution: shares of pixels 0, 1, 2, and more LSB apart, after rounding.
        psnr: dB over R, G and B, before rounding, of the worst image; inf where all are equal.
    """

    max_lsb: float
    within: float
    identical: float
    distribution: tuple[float, ...]
    psnr: float


class Tally:
    """Counts differences image by image."""

    def __init__(self) -> None:
        self._values = self._within = 0
        self._apart = np.zeros(APART, np.int64)
        self._largest, self._worst = 0.0, math.inf

    def add(self, found: Raw, expected: Raw) -> None:
        """Counts an image; a file that gives pictures is held against rounded values."""
        if found.dtype == np.uint8:
            expected = to_pixels(expected)
        difference = np.abs(to_real(found) - to_real(expected)) / LSB
        if expected.dtype != np.float32:
            difference = difference.round(DIGITS)
        self._values += difference.size
        self._within += int(np.count_nonzero(difference <= 1))
        pixels = np.abs(to_pixels(found).astype(np.int16) - to_pixels(expected))
        self._apart += np.bincount(np.minimum(pixels, APART - 1).ravel(), minlength=APART)
        self._largest = float(np.maximum(self._largest, difference.max()))  # keeps nan, unlike max()
        error = float(np.mean(difference**2))
        psnr = math.inf if error == 0 else 10 * math.log10(255**2 / error)
        self._worst = float(np.minimum(self._worst, psnr))

    def agreement(self) -> Agreement:
        """Of all images so far, of which there is at least one."""
        shares = tuple(float(count) / self._values for count in self._apart)
        return Agreement(
            max_lsb=self._largest, within=self._within / self._values, identical=shares[0], distribution=shares,
            psnr=self._worst,
        )  # fmt: skip
