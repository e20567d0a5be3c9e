"""Times of operators in PyTorch, from its own profiler."""

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from export.chatter import silenced
from runtime.bench.profile import Operator, medians
from runtime.engines.base import Image
from runtime.engines.pytorch import PytorchEngine

WARMUP = 3


def profile(path: Path, lr: Image, threads: int, runs: int) -> list[Operator]:
    """Runs a student.pt several times and returns the median of each operator that no other one calls.

    Args:
        path: of the student.
        lr: (H, W, 3) uint8.
        threads: of torch.
        runs: profiled ones, after a warm-up.
    """
    engine = PytorchEngine.open(path, threads)
    for _ in range(WARMUP):
        engine.upscale(lr)
    events: list[tuple[str, str, float]] = []
    for _ in range(runs):
        engine.prepare(lr)
        with silenced(), torch.profiler.profile(activities=[ProfilerActivity.CPU]) as recorded:
            engine.run()
        outermost = [one for one in recorded.events() or () if one.cpu_parent is None]
        events += [
            (str(place), one.name.removeprefix("aten::"), one.cpu_time_total / 1000)
            for place, one in enumerate(outermost)
        ]
    return medians(events)
