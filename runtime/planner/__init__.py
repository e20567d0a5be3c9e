"""Peak memory of one inference, predicted from the file alone, and the largest tile that a budget of memory allows.

What is predicted is what `runtime.peak` measures; docs/memory.md holds both side by side.
"""

import bisect
import math
from collections.abc import Sequence
from pathlib import Path

from compress.errors import BadInput
from export.metadata import Metadata
from runtime.engines.base import check_threads
from runtime.planner.litert import LitertPlanner
from runtime.planner.plan import NoPrediction, Plan
from runtime.units import show_bytes

TILE_STEP, SMALLEST_TILE, LARGEST_TILE = 8, 16, 8192
"""Sides of tiles in LR pixels: all are multiples of the first."""
RESERVE = 0.05
"""Of a budget, for the error of the prediction."""
MEASURE = "measure it with `python -m runtime.memory`"


def plan(path: str | Path, height: int, width: int, *, threads: int = 1) -> Plan:
    """Bytes that one inference adds to the peak resident memory of a process, term by term.

    Args:
        path: a .tflite of this project.
        height, width: of the LR image.
        threads: of the engine.

    Raises:
        NoPrediction: a kind of file that there is none for.
        BadInput: a file that cannot be read or that is not of ours, or a size that it does not take.
    """
    return _planner(Path(path), threads)(height, width)


def predict(path: str | Path, height: int, width: int, *, threads: int = 1) -> int:
    """Bytes in all; see `plan`."""
    return plan(path, height, width, threads=threads).total


def largest_tile(path: str | Path, budget: int, *, threads: int = 1) -> int:
    """Side in LR pixels of the largest square tile that stays within `budget` bytes, a multiple of 8 from 16 on.

    The prediction may take 95 % of the budget. A file of fixed sizes has one of these as its tile.

    Raises:
        BadInput: not even the smallest fits (the message names the least budget); or see `plan`.
    """
    planned = _planner(Path(path), threads)
    sides = _sides(planned.metadata)
    if not sides:
        raise BadInput(
            f"expected a file that takes square images, found none among the sizes of {path}: give a tile size."
        )
    least = math.ceil(planned(sides[0], sides[0]).total / (1 - RESERVE))
    if least > budget:
        raise BadInput(
            f"expected a budget of at least {least:,} bytes ({show_bytes(least)}), which a tile of {sides[0]}x{sides[0]} "
            f"pixels of {path} takes, found {show_bytes(budget)}: allow more memory, or use a smaller student."
        )
    fits = bisect.bisect_right(sides, budget * (1 - RESERVE), key=lambda side: planned(side, side).total)
    return sides[fits - 1]


def _sides(metadata: Metadata) -> Sequence[int]:
    """Of the square tiles that a file takes, from small to large."""
    if metadata.sizes != "any":
        return sorted(height for height, width in metadata.sizes if height == width)
    return range(SMALLEST_TILE, min(metadata.largest or LARGEST_TILE, LARGEST_TILE) + 1, TILE_STEP)


def _planner(path: Path, threads: int) -> LitertPlanner:
    """Raises BadInput; see `plan`."""
    check_threads(threads)
    suffix = path.suffix.lower()
    if suffix == ".tflite":
        return LitertPlanner(path, threads)
    known = {".onnx": "ONNX Runtime", ".pt": "PyTorch", ".pte": "ExecuTorch", ".param": "ncnn", ".mlpackage": "Core ML"}
    if suffix in known:
        raise NoPrediction(
            f"expected a .tflite, found {path}: there is no prediction for {known[suffix]}, {MEASURE}, or give a tile size."
        )
    raise BadInput(f"expected a model file, found {path}: name an exported file.")
