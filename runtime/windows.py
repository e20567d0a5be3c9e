"""Which windows of an image a network runs on, so that the pieces are the full frame. Needs no torch.

A convolution's output depends on the input no further away than the receptive-field radius. So a window's output is
right wherever the window goes on for that radius, or ends where the image ends: there, and only there, the network's own
padding belongs. Neighbouring windows overlap by twice the radius and keep what is right.

Where no overlap is exact (attention, scales that follow the picture), windows overlap and fade into each other, and
`Plan.inexact` says so.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from compress.errors import BadInput
from export.metadata import Metadata

SHARE = 24
"""Automatic windows are so many radiuses wide: 85% of their output is kept.

Speed before cutting hardly depends on the window: the zoo's files made 38 to 42 megapixels a second (int8) and 9 to 10
(float) from 64x64 to 512x512, on one thread and on two, and wide windows were no faster than square ones. What counts
is the share that is kept, against the memory, which grows with the area. A photograph of 3 MP through the zoo's int8 file,
whose radius is 10: windows of 64 took 2.7 s of processor time and 6 MB, of 128 1.7 s and 21 MB, of 192 1.5 s and 48 MB,
of 240 1.5 s and 75 MB, of 384 1.4 s and 143 MB.
"""
SMALLEST, LARGEST = 128, 512  # automatic windows
GRAIN = 8  # automatic windows are multiples of it
MARGIN, RAMP = 4, 8  # of windows that fade into each other: pixels given up at their sides, and pixels of fading


@dataclass(frozen=True)
class Span:
    """A window in one direction, in LR pixels.

    Attributes:
        start, stop: of what the network sees; `stop` may lie beyond an image smaller than a window of fixed size.
        first, last: of what is kept of it, first <= i < last.
        ramp: pixels from `first` on in which it fades in over the window before; 0 where it takes over at once.
    """

    start: int
    stop: int
    first: int
    last: int
    ramp: int = 0


@dataclass(frozen=True)
class Plan:
    """The windows of an image: every row with every column.

    Attributes:
        rows, columns: from top to bottom and from left to right; all rows have one height, all columns one width.
        inexact: why the result may differ from the full frame's, in words for the user; empty where it may not.
    """

    rows: tuple[Span, ...]
    columns: tuple[Span, ...]
    inexact: str = ""

    @property
    def exact(self) -> bool:
        """Whether the result is the full frame's: bit for bit for integer files, within 1 LSB for others."""
        return not self.inexact

    @property
    def tiles(self) -> int:
        """How many windows the network runs on."""
        return len(self.rows) * len(self.columns)

    @property
    def window(self) -> tuple[int, int]:
        """(height, width) of each."""
        return self.rows[0].stop - self.rows[0].start, self.columns[0].stop - self.columns[0].start


@dataclass(frozen=True)
class Overlap:
    """How windows meet, in LR pixels.

    Attributes:
        margin: given up at sides that are not the image's.
        ramp: in which a window fades into the next.
    """

    margin: int
    ramp: int

    @property
    def shared(self) -> int:
        """What two windows have in common."""
        return 2 * self.margin + self.ramp


def plan(metadata: Metadata, height: int, width: int, *, tile: int | None = None) -> Plan:
    """Chooses the windows of an image.

    Args:
        metadata: of the file that will run.
        height, width: of the image in LR pixels, 1 or more.
        tile: LR pixels that a window may be high and wide, overlap included; windows are smaller where that takes no
            more of them, and those of files that take listed sizes are of such a size. None: `automatic_tile`.

    Raises:
        BadInput: an empty image, a tile too small for the file's receptive field, or smaller than every size it takes.
    """
    if min(height, width) < 1:
        raise BadInput(f"expected an image of at least 1x1 pixel, found {width}x{height}: use another.")
    if tile is not None and tile < 1:
        raise BadInput(f"expected tiles of at least 1 pixel, found {tile}: use larger ones.")
    if metadata.sizes != "any":
        return _plan_of_listed(metadata, (height, width), metadata.sizes, tile)
    side = tile or automatic_tile(metadata)
    side = min(side, metadata.largest or side)
    if max(height, width) <= side:
        return Plan(_spans(height, height), _spans(width, width))
    inexact = _dependence(metadata)
    overlap = _overlap(metadata.receptive_radius, bool(inexact), side)
    if side <= overlap.shared:
        larger = ", or export the file again with a larger --largest" if metadata.largest == side else ""
        raise BadInput(
            f"expected tiles of more than {overlap.shared} pixels, twice the receptive-field radius of "
            f"{metadata.receptive_radius}, found {side}: use larger ones{larger}."
        )
    rows, columns = (_spans(length, _balanced(length, side, overlap), overlap) for length in (height, width))
    return Plan(rows, columns, inexact)


def automatic_tile(metadata: Metadata) -> int:
    """The side of a window in LR pixels, overlap included, where the user names none; see SHARE."""
    wanted = SHARE * (metadata.receptive_radius or 0)
    return min(max(math.ceil(wanted / GRAIN) * GRAIN, SMALLEST), LARGEST)


def smallest_tile(metadata: Metadata) -> int:
    """Side of the smallest window, in LR pixels, that larger images can be cut into where the file takes any size."""
    return 1 if _dependence(metadata) else 2 * max(metadata.receptive_radius or 0, 0) + 1


def _plan_of_listed(
    metadata: Metadata, image: tuple[int, int], sizes: Sequence[Sequence[int]], tile: int | None
) -> Plan:
    """The plan with the least work among exact ones, or among all where there is none."""
    fitting = [(height, width) for height, width in sizes if tile is None or max(height, width) <= tile]
    if not fitting:
        known = ", ".join(f"{width}x{height}" for height, width in sizes)
        raise BadInput(
            f"expected tiles that hold a size which the file takes ({known}), found {tile}: use larger ones."
        )
    plans = [_plan_of_size(metadata, image, size) for size in fitting]
    return min(plans, key=lambda one: (not one.exact, one.tiles * math.prod(one.window)))


def _plan_of_size(metadata: Metadata, image: tuple[int, int], size: tuple[int, int]) -> Plan:
    """Windows of one given size; an image smaller than that is filled up, which nobody can undo exactly."""
    pairs = list(zip(image, size, strict=True))
    cut = [window for length, window in pairs if length > window]
    radius = metadata.receptive_radius
    fading = _dependence(metadata) if cut else ""
    if not fading and radius is not None and cut and min(cut) <= 2 * radius:
        fading = f"tiles of {min(cut)} pixels are too small for a receptive-field radius of {radius} and fade into each other"
    filled = (
        f"the file takes only {size[1]}x{size[0]} pixels, which the image's last row and column were repeated to fill"
        if any(length < window for length, window in pairs)
        else ""
    )
    rows, columns = (_spans(length, window, _overlap(radius, bool(fading), window)) for length, window in pairs)
    return Plan(rows, columns, "; ".join(filter(None, (fading, filled))))


def _dependence(metadata: Metadata) -> str:
    """Why no overlap is exact for a file; empty where one is."""
    if metadata.precision == "int8-dynamic":
        return "the scales of an int8-dynamic file follow each tile's own values, so tiles fade into each other"
    if metadata.receptive_radius is None:
        return f"a pixel of {metadata.architecture} may depend on its whole tile, so tiles fade into each other"
    return ""


def _overlap(radius: int | None, fading: bool, window: int) -> Overlap:
    if not fading:
        return Overlap(radius or 0, 0)
    return Overlap(min(MARGIN if radius is None else radius, window // 6), min(RAMP, window // 6))


def _spans(length: int, window: int, overlap: Overlap = Overlap(0, 0)) -> tuple[Span, ...]:
    """Windows of one size along one direction; the last one ends where the image ends."""
    if length <= window:
        return (Span(0, window, 0, length),)
    margin, ramp = overlap.margin, overlap.ramp
    found = [Span(0, window, 0, window - margin)]
    while found[-1].last < length:
        first = found[-1].last - ramp
        start = min(first - margin, length - window)
        stop = start + window
        found.append(Span(start, stop, first, length if stop == length else stop - margin, ramp))
    return tuple(found)


def _balanced(length: int, side: int, overlap: Overlap) -> int:
    """The smallest window that takes no more of its kind than windows of `side` do."""
    if length <= side:
        return length
    inner = length - overlap.shared
    count = math.ceil(inner / (side - overlap.shared))
    return math.ceil(inner / count) + overlap.shared
