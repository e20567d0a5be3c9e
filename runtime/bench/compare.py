"""Which of two files is faster, from runs in turns: the ratio of each pair, its median, and how sure that is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Comparison:
    """Time of the first file over that of the second, of the network alone.

    Attributes:
        ratio: median over the pairs of neighbouring runs; above 1 the second file is faster.
        low, high: ends of the 95 % confidence interval of that median.
        pairs: compared.
    """

    ratio: float
    low: float
    high: float
    pairs: int

    @property
    def certain(self) -> bool:
        """Whether the interval says which one is faster."""
        return not self.low <= 1 <= self.high

    def sentence(self, first: str, second: str) -> str:
        """For a person."""
        if not self.certain:
            return (
                f"{first} and {second}: no difference that {self.pairs} pairs of runs can show "
                f"(ratio {self.ratio:.3f}, 95 % interval {self.low:.3f} to {self.high:.3f})"
            )
        faster, slower = (second, first) if self.ratio > 1 else (first, second)
        ratios = (self.ratio, self.low, self.high) if self.ratio > 1 else (1 / self.ratio, 1 / self.high, 1 / self.low)
        return "{0} is {2:.2f} times as fast as {1} (95 % interval {3:.2f} to {4:.2f}, {5} pairs of runs)".format(
            faster, slower, *ratios, self.pairs
        )


def compare(first: Sequence[float], second: Sequence[float]) -> Comparison:
    """Compares runs that were made in turns.

    Args:
        first, second: times of equal length, in the same unit; those at one index are neighbours in time.

    Returns:
        The median of the ratios, with the percentile interval of its bootstrap (Efron and Tibshirani, An Introduction to
        the Bootstrap, 1993, chapter 13); the resamples are always the same.
    """
    ratios = np.asarray(first, np.float64) / np.asarray(second, np.float64)
    chosen = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    medians = np.median(ratios[chosen], axis=1)
    low, high = np.quantile(medians, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Comparison(float(np.median(ratios)), float(low), float(high), len(ratios))
