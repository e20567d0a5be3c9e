"""Writes pictures row by row, so that a large one is never held whole (but for WebP, whose library takes whole ones)."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from compress.errors import BadInput
from compress.files import written_atomically
from runtime.upscale.writers.base import CHANNELS, Mode, Picture, Writer
from runtime.upscale.writers.jpeg import JpegWriter
from runtime.upscale.writers.png import PngWriter
from runtime.upscale.writers.tiff import TiffWriter
from runtime.upscale.writers.webp import WebpWriter

WRITERS: Mapping[str, type[Writer]] = {"png": PngWriter, "jpeg": JpegWriter, "tiff": TiffWriter, "webp": WebpWriter}
SUFFIXES: Mapping[str, str] = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
}


@contextlib.contextmanager
def open_writer(
    path: str | Path,
    width: int,
    height: int,
    *,
    mode: Mode = "RGB",
    format: str | None = None,
    quality: int | None = None,
    icc: bytes | None = None,
    exif: bytes | None = None,
) -> Iterator[Writer]:
    """Opens a picture for its rows: `with open_writer("out.png", 640, 480) as writer: writer.write(rows)`.

    The file appears under its name, whole, when the block ends; where it ends with an exception, nothing is left and a file
    of that name stays as it was.

    Args:
        path: of the file; its folder is made.
        width, height: in pixels.
        mode: 'L', 'LA', 'RGB' or 'RGBA'.
        format: 'png', 'jpeg', 'tiff' or 'webp'; None is what the suffix says.
        quality: 1 to 100; of JPEG (None is 95) and of WebP (None loses nothing).
        icc: colour profile; for `mode`'s kind of colours.
        exif: EXIF block. A TIFF keeps its text, the rating, the camera's settings and the place; see
            `runtime.upscale.writers.tiff`.

    Raises:
        BadInput: an unknown suffix or format, a size or alpha that the format cannot hold, EXIF that is too long for it.
        ValueError: rows of another type or shape than announced, too many, or too few when the block ends.
    """
    path = Path(path)
    kind = format or format_of(path)
    if kind not in WRITERS:
        raise BadInput(f"expected a format out of {', '.join(WRITERS)}, found {kind!r}: choose one.")
    if mode not in CHANNELS or min(width, height) < 1:
        raise ValueError(f"expected an image of a mode out of {', '.join(CHANNELS)}, found {mode} {width}x{height}")
    if quality is not None and not 1 <= quality <= 100:
        raise BadInput(f"expected a quality of 1 to 100, found {quality}: choose one between.")
    picture = Picture(width=width, height=height, mode=mode, quality=quality, icc=icc, exif=exif)
    with written_atomically(path) as part, part.open("wb") as file:
        writer = WRITERS[kind](file, picture)
        yield writer
        writer.finish()


def format_of(path: str | Path) -> str:
    """The format that a suffix stands for. Raises BadInput for another."""
    found = SUFFIXES.get(Path(path).suffix.lower())
    if found is None:
        raise BadInput(f"expected an output out of {', '.join(SUFFIXES)}, found {Path(path).name}: rename it.")
    return found
