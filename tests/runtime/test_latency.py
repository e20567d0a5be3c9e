"""Latency: turns, warm-up, percentiles; on an engine whose times are known, and on real ones."""

import numpy as np
import pytest

from compress.errors import BadInput
from runtime.engines import open_model
from runtime.engines.base import Result, Timing
from runtime.latency import measure_latency, timings_in_turns


class Scripted:
    """An engine that reports given times, in seconds, and writes down its turns."""

    def __init__(self, name: str, times: list[float], turns: list[str]):
        self.name, self.times, self.turns, self.threads = name, iter(times), turns, 1

    def upscale(self, lr):
        self.turns.append(self.name)
        return Result(lr, lr, Timing(prepare=0.5, run=next(self.times), read=0.25))


LR = np.zeros((8, 6, 3), np.uint8)


def test_models_take_turns():
    turns: list[str] = []
    engines = [Scripted(name, [0.1] * 5, turns) for name in "AB"]
    measure_latency(engines, LR, runs=3, warmup=2)  # type: ignore[arg-type]
    assert "".join(turns) == "ABABABABAB"


def test_median_and_p90_of_every_part_without_warm_up():
    times = [9.0, 9.0, *(0.001 * k for k in (5, 3, 1, 2, 4, 6, 7, 8, 9, 10, 11))]
    (found,) = measure_latency([Scripted("A", times, [])], LR, runs=11, warmup=2)  # type: ignore[list-item]
    assert found.median == pytest.approx(6.0)
    assert found.p90 == pytest.approx(10.0)
    assert (found.run.median, found.run.p90) == (found.median, found.p90)
    assert (found.prepare.median, found.prepare.p90) == pytest.approx((500, 500))
    assert (found.read.median, found.read.p90) == pytest.approx((250, 250))
    assert (found.runs, found.threads, found.lr_size) == (11, 1, (8, 6))


def quickest(engines, lr) -> list[float]:
    """Seconds of each engine's fastest run, which other work on the machine hardly changes."""
    timings = timings_in_turns(engines, lr, runs=9)
    return [min(one.run for one in of_engine) for of_engine in zip(*timings, strict=True)]


def test_larger_images_take_longer(tiny):
    with open_model(tiny.float_tflite) as engine:
        [small], [large] = (quickest([engine], np.zeros((side, side, 3), np.uint8)) for side in (32, 512))
    assert large > 10 * small


def test_side_by_side_orders_like_alone(tiny, photograph):
    with open_model(tiny.float_tflite) as fast, open_model(tiny.float_tflite, engine="litert-builtin") as slow:
        quick, slower = quickest([fast, slow], photograph)
        found = measure_latency([fast, slow], photograph, runs=3)
    assert quick < slower
    assert all(one.median <= one.p90 for one in found)


def test_no_runs_are_refused():
    with pytest.raises(BadInput, match="expected at least 1 run"):
        measure_latency([], LR, runs=0)
