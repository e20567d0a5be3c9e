"""Peak memory of one inference, predicted from the file alone, and the largest tile that a budget of memory allows.

What is predicted is what `runtime.peak` measures; docs/memory.md holds both side by side.
"""

import bisect
import math
from collections.abc import Sequence
from pathlib import Path

from compress.errors import BadInput, Unavailable
from runtime.engines.base import check_threads
from runtime.planner.graph import rounded
from runtime.planner.litert import LitertPlanner
from runtime.planner.onnxruntime import OnnxPlanner
from runtime.planner.plan import NoPrediction, Plan
from runtime.units import show_bytes
from runtime.windows import smallest_tile

TILE_STEP, SMALLEST_TILE, LARGEST_TILE = 8, 16, 8192
"""Sides of tiles in LR pixels: all are multiples of the first. The receptive field may ask for more than the second."""
MEASURE = "measure it with `python -m runtime.memory`"


def plan(path: str | Path, height: int, width: int, *, threads: int = 1) -> Plan:
    """Bytes that one inference adds to the peak resident memory of a process, term by term.

    Args:
        path: a .tflite or .onnx of this project.
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


def largest_tile(path: str | Path, budget: int, *, threads: int = 1, most: int = LARGEST_TILE) -> int:
    """Side in LR pixels of the largest square tile that stays within `budget` bytes.

    A multiple of 8, from 16 on, and more than twice the file's receptive-field radius, for photographs to be cut into.
    A part of the budget is left for the error of the prediction: 5 % for a .tflite that XNNPACK runs whole, 12 % for another,
    25 % for an .onnx. A file of fixed sizes has one of these as its tile, a file of any size none above `most`.

    Raises:
        BadInput: not even the smallest fits (the message names the least budget); or see `plan`.
    """
    planned = _planner(Path(path), threads)
    sides = _sides(planned, Path(path), most)
    least = _least(planned, sides[0])
    if least > budget:
        raise BadInput(
            f"expected a budget of at least {least:,} bytes ({show_bytes(least)}), which a tile of {sides[0]}x{sides[0]} "
            f"pixels of {path} takes, found {show_bytes(budget)}: allow more memory, or use a smaller student."
        )
    allowed = budget * (1 - planned.reserve)
    fits = bisect.bisect_right(sides, allowed, key=lambda side: planned(side, side).total)
    return next(side for side in reversed(sides[: max(fits, 1)]) if planned(side, side).total <= allowed)


def least_budget(path: str | Path, *, threads: int = 1) -> int:
    """Bytes that `largest_tile` takes at least. Raises BadInput; see `plan`."""
    planned = _planner(Path(path), threads)
    return _least(planned, _sides(planned, Path(path), LARGEST_TILE)[0])


def _least(planned: LitertPlanner | OnnxPlanner, side: int) -> int:
    return math.ceil(planned(side, side).total / (1 - planned.reserve))


def _sides(planned: LitertPlanner | OnnxPlanner, path: Path, most: int) -> Sequence[int]:
    """Of the square tiles that a file takes, from small to large. Raises BadInput where it takes none."""
    metadata = planned.metadata
    if metadata.sizes == "any":
        smallest = max(SMALLEST_TILE, rounded(smallest_tile(metadata), TILE_STEP))
        largest = min(metadata.largest or LARGEST_TILE, max(most, smallest))
        if smallest > largest:
            raise BadInput(
                f"expected a file that takes tiles of {smallest}x{smallest} pixels, found one that ends at {largest}x{largest}: "
                f"{path} cannot take a photograph in tiles."
            )
        return range(smallest, largest + 1, TILE_STEP)
    sides = sorted(height for height, width in metadata.sizes if height == width)
    if not sides:
        raise BadInput(
            f"expected a file that takes square images, found none among the sizes of {path}: give a tile size."
        )
    return sides


def _planner(path: Path, threads: int) -> LitertPlanner | OnnxPlanner:
    """Raises BadInput; see `plan`."""
    check_threads(threads)
    suffix = path.suffix.lower()
    if suffix == ".tflite":
        try:
            return LitertPlanner(path, threads)
        except Unavailable as error:
            raise NoPrediction(str(error)) from error
    if suffix == ".onnx":
        return OnnxPlanner(path, threads)
    known = {".pt": "PyTorch", ".pte": "ExecuTorch", ".param": "ncnn", ".mlpackage": "Core ML"}
    if suffix in known:
        measure = "" if suffix == ".mlpackage" else f" {MEASURE}, or"
        raise NoPrediction(
            f"expected a .tflite or .onnx, found {path}: there is no prediction for {known[suffix]},{measure} give a tile size."
        )
    raise BadInput(f"expected a model file, found {path}: name an exported file.")
