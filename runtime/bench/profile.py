"""How long each operator takes, where the engine tells."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from runtime.engines.base import Image


@dataclass(frozen=True)
class Operator:
    """One operator of a profile.

    Attributes:
        name: its place, or its name in the file.
        kind: what the engine calls it.
        milliseconds: median over the runs.
    """

    name: str
    kind: str
    milliseconds: float


Profiler = Callable[[Path, Image, int, int], list[Operator]]
"""(path, LR image, threads, runs) to the operators in the order in which they ran."""


def _litert(path: Path, lr: Image, threads: int, runs: int) -> list[Operator]:
    from runtime.bench.litert_profile import profile

    return profile(path, lr, threads, runs)


def _onnxruntime(path: Path, lr: Image, threads: int, runs: int) -> list[Operator]:
    from runtime.bench.onnx_profile import profile

    return profile(path, lr, threads, runs)


def _pytorch(path: Path, lr: Image, threads: int, runs: int) -> list[Operator]:
    from runtime.bench.pytorch_profile import profile

    return profile(path, lr, threads, runs)


PROFILERS: dict[str, Profiler] = {"litert": _litert, "onnxruntime": _onnxruntime, "pytorch": _pytorch}
"""By engine; the others keep their operators' times to themselves."""


def medians(events: Iterable[tuple[str, str, float]]) -> list[Operator]:
    """(name, kind, milliseconds) of all runs to one operator per name and kind, in the order of their first appearance."""
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, kind, milliseconds in events:
        times[name, kind].append(milliseconds)
    return [Operator(*key, statistics.median(values)) for key, values in times.items()]
