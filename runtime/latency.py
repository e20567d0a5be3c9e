"""Latency of opened models, in milliseconds: medians of warm runs, models taking turns on the same machine."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from compress.errors import BadInput
from runtime.engines.base import Engine, Image, Timing

RUNS = 20
WARMUP = 3


@dataclass(frozen=True)
class Spread:
    """Milliseconds over the measured runs: the median, and the 90th percentile."""

    median: float
    p90: float


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference, in its three parts (see `runtime.engines.base.Timing`), of a model that is warm.

    Attributes:
        prepare: writing the input, of the same size as the one before; memory was allocated in the warm-up.
        run: the network alone.
        read: reading the output back and turning it into uint8.
        runs: measured ones, after the warm-up.
        threads: of the engine.
        lr_size: (height, width) of the LR image.
    """

    prepare: Spread
    run: Spread
    read: Spread
    runs: int
    threads: int
    lr_size: tuple[int, int]

    @property
    def median(self) -> float:
        """Of the network alone."""
        return self.run.median

    @property
    def p90(self) -> float:
        """Of the network alone."""
        return self.run.p90


def check_runs(runs: int, warmup: int = WARMUP) -> None:
    """Raises BadInput for fewer than one of either."""
    if runs < 1 or warmup < 1:
        raise BadInput(f"expected at least 1 run and 1 warm-up run, found {runs} and {warmup}: use more.")


def measure_latency(engines: Sequence[Engine], lr: Image, *, runs: int = RUNS, warmup: int = WARMUP) -> list[Latency]:
    """Times models side by side; one `Latency` per engine, in order. See `timings_in_turns`."""
    return latencies_of(engines, timings_in_turns(engines, lr, runs=runs, warmup=warmup), lr)


def timings_in_turns(
    engines: Sequence[Engine], lr: Image, *, runs: int = RUNS, warmup: int = WARMUP
) -> list[tuple[Timing, ...]]:
    """Times models in turns, A B A B ..., so that a busy moment of the machine falls on all of them.

    Args:
        engines: one or more opened models.
        lr: (H, W, 3) uint8, the same for all.
        runs: per model, at least 1.
        warmup: unmeasured runs per model before, at least 1: the first run of a size allocates.

    Returns:
        For every turn the timing of each engine, in order.

    Raises:
        BadInput: fewer runs than that, or an image that one of the files does not take.
    """
    check_runs(runs, warmup)
    return [tuple(engine.upscale(lr).timing for engine in engines) for _ in range(warmup + runs)][warmup:]


def latencies_of(engines: Sequence[Engine], timings: Sequence[Sequence[Timing]], lr: Image) -> list[Latency]:
    """Medians and 90th percentiles of what `timings_in_turns` returned for these engines and that image."""
    seconds = np.array([[(one.prepare, one.run, one.read) for one in turn] for turn in timings])
    size = (lr.shape[0], lr.shape[1])
    return [Latency(*map(_spread, seconds[:, i].T), len(timings), one.threads, size) for i, one in enumerate(engines)]


def _spread(seconds: np.ndarray) -> Spread:
    return Spread(1000 * float(np.median(seconds)), 1000 * float(np.percentile(seconds, 90)))
