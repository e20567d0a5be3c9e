"""Images of any size, window after window, with the result of the full frame; see `runtime.windows`. Needs no torch."""

import itertools
from collections.abc import Callable, Iterator

import numpy as np

from compress.errors import BadInput
from runtime.engines.base import Engine, Image
from runtime.windows import Plan, Span, plan


def strips(
    engine: Engine, lr: Image, *, tile: int | None = None, on_tile: Callable[[], object] = lambda: None
) -> Iterator[Image]:
    """Super-resolves an image of any size, holding one strip of the result at a time.

    Args:
        engine: an opened model. Its windows are of one size, so that it allocates once.
        lr: (H, W, 3) uint8 RGB.
        tile: see `runtime.windows.plan`.
        on_tile: called after each window.

    Yields:
        (rows, s*W, 3) uint8, from top to bottom, s*H rows in all: one strip for every row of windows. Each is the
        caller's own; who lets go of it before taking the next one holds one.

    Raises:
        BadInput: at once for what `runtime.windows.plan` refuses and for an image of another type.
    """
    if lr.dtype != np.uint8 or lr.ndim != 3 or lr.shape[2] != 3:
        raise BadInput(
            f"expected an RGB image as uint8 of shape (H, W, 3), found {lr.dtype} of shape {lr.shape}: convert it first."
        )
    return _run(engine, lr, plan_for(engine, lr, tile=tile), on_tile)


def plan_for(engine: Engine, lr: Image, *, tile: int | None = None) -> Plan:
    """The windows that `strips` runs on, and whether their result is exact. Raises BadInput."""
    return plan(engine.metadata, lr.shape[0], lr.shape[1], tile=tile)


def tile_count(engine: Engine, lr: Image, *, tile: int | None = None) -> int:
    """How often `strips` calls `on_tile`. Raises BadInput; see `runtime.windows.plan`."""
    return plan_for(engine, lr, tile=tile).tiles


def _run(engine: Engine, lr: Image, windows: Plan, on_tile: Callable[[], object]) -> Iterator[Image]:
    scale, carried = engine.scale, None
    for row, below in itertools.zip_longest(windows.rows, windows.rows[1:]):
        strip = np.empty((scale * (row.last - row.first), scale * lr.shape[1], 3), np.uint8)
        for column in windows.columns:
            sr = engine.upscale(_window(lr, row, column)).image
            top, left = scale * (row.first - row.start), scale * (column.first - column.start)
            kept = sr[top : top + len(strip), left : left + scale * (column.last - column.first)]
            _place(strip.swapaxes(0, 1)[scale * column.first :], kept.swapaxes(0, 1), scale * column.ramp)
            on_tile()
        if carried is not None:
            strip[: len(carried)] = _faded(carried, strip[: len(carried)])
        settled = len(strip) - scale * (below.ramp if below else 0)
        carried = strip[settled:].copy() if settled < len(strip) else None
        strip = strip[:settled]
        yield strip
        del strip  # before the next one is made


def _window(lr: Image, row: Span, column: Span) -> Image:
    """What the network sees; beyond the image its last row and column go on."""
    seen = lr[row.start : row.stop, column.start : column.stop]
    below, right = row.stop - row.start - seen.shape[0], column.stop - column.start - seen.shape[1]
    return np.pad(seen, ((0, below), (0, right), (0, 0)), "edge") if below or right else seen


def _place(target: Image, kept: Image, ramp: int) -> None:
    """Writes what is kept of a window over the first rows of `target`; in the first `ramp` it fades in over what is there."""
    if ramp:
        target[:ramp] = _faded(target[:ramp], kept[:ramp])
    target[ramp : len(kept)] = kept[ramp:]


def _faded(before: Image, after: Image) -> Image:
    """From one image into the other, by a linear ramp along the first axis."""
    share = ((np.arange(len(after), dtype=np.float32) + 0.5) / len(after))[:, None, None]
    return np.rint(before + share * (after.astype(np.float32) - before)).astype(np.uint8)
