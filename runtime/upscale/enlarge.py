"""One photograph from file to file, strip by strip: network, resampling, writer. Needs no torch."""

import errno
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from compress.errors import BadInput
from export.metadata import Metadata
from runtime.engines.base import Engine, Image, first_line
from runtime.tiling import plan_for, strips
from runtime.upscale.photograph import MAX_MEGAPIXELS, Photograph, read_photograph
from runtime.upscale.resample import Resampler
from runtime.upscale.sizes import Target
from runtime.upscale.transparency import Flats, filled_colours, over_white
from runtime.upscale.writers import format_of, open_writer
from runtime.windows import plan

Step = Callable[[float], None]
ROWS = 128  # of a photograph, where the network has nothing to do
MODES = {(True, False): "L", (True, True): "LA", (False, False): "RGB", (False, True): "RGBA"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same for all photographs of a run.

    Attributes:
        target: the size of results.
        tile: see `runtime.tiling.strips`; None is automatic.
        quality: of JPEG and lossy WebP, 1 to 100; None is the writer's own choice.
        max_megapixels: see `runtime.upscale.photograph.read_photograph`.

    Raises:
        BadInput: a tile, quality or limit that is out of range.
    """

    target: Target = field(default_factory=Target)
    tile: int | None = None
    quality: int | None = None
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise BadInput(
                f"expected a quality of 1 to 100, found {self.quality}: 95 hardly differs from the original."
            )
        if self.tile is not None and self.tile < 1:
            raise BadInput(f"expected tiles of at least 1 pixel, found {self.tile}: use larger ones.")
        if not self.max_megapixels > 0:
            raise BadInput(f"expected a limit above 0 megapixels, found {self.max_megapixels:g}: give 200, say.")

    def check(self, metadata: Metadata) -> None:
        """Raises BadInput where a file cannot run on tiles of that size, whatever the photograph."""
        if self.tile:
            plan(metadata, self.tile + 1, self.tile + 1, tile=self.tile)


@dataclass(frozen=True, kw_only=True)
class Enlarged:
    """What was done to one photograph.

    Attributes:
        out: the file that was written.
        before, after: (height, width) of the photograph and of the result.
        tiles: how often the network ran; 0 where it had nothing to do.
        seconds: from opening the photograph to the finished file.
        notes: what the result lacks or how it came about, in words for the user.
    """

    out: Path
    before: tuple[int, int]
    after: tuple[int, int]
    tiles: int
    seconds: float
    notes: tuple[str, ...]

    @property
    def speed(self) -> float:
        """Megapixels of the result per second."""
        return self.after[0] * self.after[1] / 1e6 / max(self.seconds, 1e-9)


def enlarge(photo: Path, engine: Engine, out: Path, settings: Settings, *, step: Step) -> Enlarged:
    """Reads a photograph, super-resolves it and writes the result, never holding the result whole.

    Args:
        photo: any picture that `read_photograph` takes.
        engine: an opened model.
        out: its suffix is the format; replaced if it exists, whole or not at all.
        step: called after each tile with the share that is done, below 1.

    Raises:
        BadInput: an unusable photograph, a result that the format cannot hold, a path that cannot be written, or too little
            memory.
        OSError: a full disk.
    """
    try:
        return _enlarge(photo, engine, out, settings, step)
    except MemoryError as error:
        raise BadInput(
            f"expected a photograph that fits into memory, found that {photo} needs more than there is: set --memory."
        ) from error
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise BadInput(
            f"expected a path that can be written, found {error.filename or out}: {error.strerror or first_line(error)}."
        ) from error


def _enlarge(photo: Path, engine: Engine, out: Path, settings: Settings, step: Step) -> Enlarged:
    start = time.perf_counter()
    photograph = read_photograph(photo, max_megapixels=settings.max_megapixels)
    after = settings.target.size(photograph.size, engine.scale)
    notes = list(photograph.notes)
    flatten = photograph.alpha is not None and format_of(out) == "jpeg"
    if flatten:
        notes.append("transparency laid over white, since a JPEG has none")
    work = _Work(photograph, engine, after, settings.tile, step)
    mode = MODES[photograph.grey, photograph.alpha is not None and not flatten]
    icc = photograph.icc
    if icc and photograph.grey and format_of(out) == "webp":
        icc = None
        notes.append("the ICC profile left out: WebP has no grey")
    height, width = after
    with open_writer(out, width, height, mode=mode, quality=settings.quality, icc=icc, exif=photograph.exif) as writer:
        for rows in work.rows():
            writer.write(over_white(rows) if flatten else rows)
    return Enlarged(
        out=out,
        before=photograph.size,
        after=after,
        tiles=work.tiles,
        seconds=time.perf_counter() - start,
        notes=(*notes, *work.notes),
    )


class _Work:
    """The way of a photograph's pixels through network and resampling, in strips."""

    def __init__(self, photograph: Photograph, engine: Engine, after: tuple[int, int], tile: int | None, step: Step):
        self._photograph, self._engine, self._after, self._tile, self._step = photograph, engine, after, tile, step
        height, width = photograph.size
        self.notes: list[str] = []
        self._runs = after[0] > height or after[1] > width
        self.tiles = self._done = 0
        if not self._runs:
            if after != photograph.size:
                self.notes.append("made smaller by Lanczos alone, without the network")
            else:
                self.notes.append("the size it had, without the network")
            return
        windows = plan_for(engine, photograph.rgb, tile=tile)
        self.tiles = windows.tiles * (1 if photograph.alpha is None else 2)
        if not windows.exact:
            self.notes.append(windows.inexact)
        self._resampling(engine.scale * height, engine.scale * width)

    def _resampling(self, height: int, width: int) -> None:
        """Notes on what is left to do after the network."""
        if self._after == (height, width):
            return
        scale = self._engine.scale
        if self._after[0] > height or self._after[1] > width:
            self.notes.append(f"x{scale} by the network, the rest by Lanczos")
        else:
            self.notes.append(f"x{scale} by the network, then made smaller by Lanczos")

    def rows(self) -> Iterator[Image]:
        """(n, W, channels) uint8 from top to bottom, with alpha as the last channel where there is one."""
        alpha = self._photograph.alpha
        if alpha is None:
            yield from self._resized(self._colours(self._photograph.rgb))
            return
        colours = self._resized(self._colours(filled_colours(self._photograph.rgb, alpha)))
        for above, beneath in zip(colours, self._resized(self._opacities(alpha)), strict=True):
            yield np.concatenate([above, beneath], axis=2)

    def _colours(self, rgb: Image) -> Iterator[Image]:
        for strip in self._enlarged(rgb):
            yield _grey(strip) if self._photograph.grey else strip

    def _opacities(self, alpha: Image) -> Iterator[Image]:
        if not self._runs:
            yield from _slices(alpha[..., None])
            return
        flats, first = Flats(alpha, self._engine.scale), 0
        for strip in self._enlarged(np.repeat(alpha[..., None], 3, axis=2)):
            yield flats.restored(_grey(strip)[..., 0], first)[..., None]
            first += len(strip)

    def _enlarged(self, rgb: Image) -> Iterator[Image]:
        return strips(self._engine, rgb, tile=self._tile, on_tile=self._count) if self._runs else _slices(rgb)

    def _resized(self, rows: Iterator[Image]) -> Iterator[Image]:
        height, width = self._photograph.size
        scale = self._engine.scale if self._runs else 1
        resampler = Resampler((scale * height, scale * width), self._after)
        for strip in rows:
            yield from resampler.push(strip)

    def _count(self) -> None:
        self._done += 1
        self._step(self._done / (self.tiles + 1))  # the writer still has to end


def _slices(pixels: Image) -> Iterator[Image]:
    for top in range(0, len(pixels), ROWS):
        yield pixels[top : top + ROWS]


def _grey(strip: Image) -> Image:
    """(n, W, 1) of (n, W, 3): the luma of ITU-R BT.601, as Pillow's grey."""
    return np.asarray(Pillow.fromarray(strip).convert("L"))[..., None]
