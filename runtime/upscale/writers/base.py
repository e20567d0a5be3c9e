"""What every writer of pictures does: take rows from top to bottom, and refuse a picture with any missing."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput

Mode = Literal["L", "LA", "RGB", "RGBA"]
Rows = NDArray[np.uint8]
CHANNELS: dict[str, int] = {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}
EXIF_PREFIX = b"Exif\0\0"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture that is to be written.

    Attributes:
        width, height: in pixels.
        mode: as Pillow names it; 'LA' and 'RGBA' have alpha that colours are not multiplied with.
        quality: 1 to 100, of formats that lose something; None is the format's own default.
        icc: profile of the colours.
        exif: a block of EXIF as it stands in a JPEG, with or without the 'Exif' in front.
    """

    width: int
    height: int
    mode: Mode
    quality: int | None = None
    icc: bytes | None = None
    exif: bytes | None = None

    @property
    def channels(self) -> int:
        return CHANNELS[self.mode]

    @property
    def exif_block(self) -> bytes:
        """The EXIF as a TIFF header and directories; empty where there is none."""
        return (self.exif or b"").removeprefix(EXIF_PREFIX)


class Writer(ABC):
    """A picture on its way into a file that is open for writing.

    Raises:
        BadInput: a picture that the format cannot hold.
    """

    name: str
    largest: int
    """Pixels that a side may have."""
    alpha = True

    def __init__(self, file: BinaryIO, picture: Picture):
        self.file, self.picture, self.written = file, picture, 0
        if max(picture.width, picture.height) > self.largest:
            raise BadInput(
                f"expected at most {self.largest} pixels a side in a {self.name}, found {picture.width}x{picture.height}: "
                "write a smaller image, or a TIFF or PNG."
            )
        if picture.mode in ("LA", "RGBA") and not self.alpha:
            raise BadInput(
                f"expected an image without transparency for a {self.name}, found mode {picture.mode}: write a PNG, TIFF or "
                "WebP."
            )

    def write(self, rows: Rows) -> None:
        """Takes the next rows: (n, width) uint8 or (n, width, channels), n of any size.

        Raises:
            ValueError: another type or shape, or more rows than the picture has.
        """
        picture = self.picture
        shape = (rows.shape[:1] or (0,)) + (picture.width, picture.channels)
        if rows.dtype != np.uint8 or rows.shape not in (shape, shape[:2] if picture.channels == 1 else shape):
            raise ValueError(
                f"expected uint8 rows (n, {', '.join(map(str, shape[1:]))}), found {rows.dtype} {rows.shape}"
            )
        if self.written + len(rows) > picture.height:
            raise ValueError(f"expected {picture.height} rows, found {self.written + len(rows)}")
        if len(rows):
            self._write(rows.reshape(shape))
        self.written += len(rows)

    def finish(self) -> None:
        """Writes what is left. Raises ValueError where rows are missing."""
        if self.written != self.picture.height:
            raise ValueError(f"expected {self.picture.height} rows, found {self.written}")
        self._finish()

    @abstractmethod
    def _write(self, rows: Rows) -> None:
        """Takes one row or more, (n, width, channels)."""

    @abstractmethod
    def _finish(self) -> None:
        """Called once, after the last row."""


class Bands:
    """Rows regrouped into bands of one height, the last of what is left.

    Args:
        height: of a band, in rows.
    """

    def __init__(self, height: int):
        self.height = height
        self._waiting: list[Rows] = []
        self._count = 0

    def add(self, rows: Rows) -> list[Rows]:
        """Takes rows and gives the bands that they complete; those left over are copied."""
        found = []
        while self._count + len(rows) >= self.height:
            taken = self.height - self._count
            found.append(np.concatenate([*self._waiting, rows[:taken]]) if self._waiting else rows[:taken])
            self._waiting, self._count, rows = [], 0, rows[taken:]
        if len(rows):
            self._waiting.append(rows.copy())
            self._count += len(rows)
        return found

    def rest(self) -> list[Rows]:
        """The last band, where there is one."""
        waiting, self._waiting, self._count = self._waiting, [], 0
        return [np.concatenate(waiting)] if waiting else []
