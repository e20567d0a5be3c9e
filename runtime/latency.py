"""Latency of opened models, in milliseconds: medians of warm runs, models taking turns on the same machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.errors import BadInput
from runtime.engines.base import Engine, Image

RUNS = 20
WARMUP = 3


@dataclass(frozen=True)
class Latency:
    """Milliseconds of the network alone, without resizing, allocating, and reading back.

    Attributes:
        median: over the runs.
        p90: 90th percentile.
        runs: measured ones, after the warm-up.
        threads: of the engine.
        lr_size: (height, width) of the LR image.
    """

    median: float
    p90: float
    runs: int
    threads: int
    lr_size: tuple[int, int]


def measure_latency(engines: Sequence[Engine], lr: Image, *, runs: int = RUNS, warmup: int = WARMUP) -> list[Latency]:
    """Times models side by side: A B A B ..., so that a busy moment of the machine falls on all of them.

    Args:
        engines: one or more opened models.
        lr: (H, W, 3) uint8, the same for all.
        runs: per model, at least 1.
        warmup: unmeasured runs per model before, at least 1: the first run of a size allocates.

    Returns:
        One `Latency` per engine, in order.

    Raises:
        BadInput: fewer runs than that, or an image that one of the files does not take.
    """
    if runs < 1 or warmup < 1:
        raise BadInput(f"expected at least 1 run and 1 warm-up run, found {runs} and {warmup}: use more.")
    rounds = [[engine.upscale(lr).timing.run for engine in engines] for _ in range(warmup + runs)][warmup:]
    milliseconds = 1000 * np.array(rounds)
    median, p90 = np.median(milliseconds, axis=0), np.percentile(milliseconds, 90, axis=0)
    size = (lr.shape[0], lr.shape[1])
    figures = zip(engines, median, p90, strict=True)
    return [Latency(float(m), float(p), runs, engine.threads, size) for engine, m, p in figures]
