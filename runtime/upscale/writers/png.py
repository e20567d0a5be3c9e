"""PNG (W3C PNG, third edition), row by row: every row through the filter that leaves least, then deflate."""

import struct
import zlib
from typing import BinaryIO

import numpy as np

from runtime.upscale.writers.base import Bands, Picture, Rows, Writer
from runtime.upscale.writers.deflate import RAW, deflated

SIGNATURE = b"\x89PNG\r\n\x1a\n"
COLOUR_TYPES = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}
PIECE, BLOCK = 1 << 20, 1 << 18  # bytes of rows that are deflated together, and filtered together
DEFLATE = b"\x78\x01"  # a zlib stream with a window of 32 KiB


class PngWriter(Writer):
    """8-bit grey or colours, with or without alpha; iCCP and eXIf chunks."""

    name, largest = "PNG", 2**31 - 1

    def __init__(self, file: BinaryIO, picture: Picture):
        super().__init__(file, picture)
        stride = picture.width * picture.channels
        self._above = np.zeros((1, picture.width, picture.channels), np.uint8)
        self._blocks = Bands(max(1, BLOCK // stride))
        self._piece: list[bytes] = []
        self._checksum = zlib.adler32(b"")
        file.write(SIGNATURE)
        self._chunk(
            b"IHDR", struct.pack(">IIBBBBB", picture.width, picture.height, 8, COLOUR_TYPES[picture.mode], 0, 0, 0)
        )
        if picture.icc:
            self._chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(picture.icc))
        if picture.exif_block:
            self._chunk(b"eXIf", picture.exif_block)
        self._head = DEFLATE

    def _write(self, rows: Rows) -> None:
        for block in self._blocks.add(rows):
            self._filter(block)

    def _finish(self) -> None:
        for block in self._blocks.rest():
            self._filter(block)
        self._deflate(last=True)
        self._chunk(b"IEND", b"")

    def _filter(self, block: Rows) -> None:
        above = np.concatenate([self._above, block[:-1]])
        self._above = block[-1:].copy()
        self._piece.append(filtered(block, above))
        if sum(map(len, self._piece)) >= PIECE:
            self._deflate()

    def _deflate(self, last: bool = False) -> None:
        """Writes what is waiting as a piece of its own of the one stream."""
        piece, self._piece = b"".join(self._piece), []
        self._checksum = zlib.adler32(piece, self._checksum)
        content = self._head + deflated(piece, kind=RAW, last=last)
        self._head = b""
        self._chunk(b"IDAT", content + (struct.pack(">I", self._checksum) if last else b""))

    def _chunk(self, kind: bytes, content: bytes) -> None:
        self.file.write(struct.pack(">I", len(content)) + kind + content)
        self.file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(kind))))


def filtered(block: Rows, above: Rows) -> bytes:
    """Every row as its filter's number and what that leaves: of the five, the one with the smallest sum of absolute values.

    Args:
        block: (n, width, channels) uint8.
        above: the row above each, the same shape; zeros above the first.
    """
    left, corner = _shifted(block), _shifted(above)
    found = np.stack(
        [
            block,
            block - left,
            block - above,
            block - ((left & above) + ((left ^ above) >> 1)),  # floor of the mean, without a ninth bit
            block - _paeth(left, above, corner),
        ]
    ).reshape(5, len(block), -1)
    sums = np.minimum(found, -found).sum(axis=2, dtype=np.uint64)  # of bytes as -128 to 127
    best = sums.argmin(axis=0)
    rows = np.empty((len(block), 1 + found.shape[2]), np.uint8)
    rows[:, 0] = best
    rows[:, 1:] = found[best, np.arange(len(block))]
    return rows.tobytes()


def _shifted(rows: Rows) -> Rows:
    """The pixel to the left of each."""
    left = np.zeros_like(rows)
    left[:, 1:] = rows[:, :-1]
    return left


def _paeth(a: Rows, b: Rows, c: Rows) -> Rows:
    """Whichever of left a, above b and corner c is nearest to a + b - c, the first of equals, all in bytes.

    Where a and b lie on one side of c, c is never nearest; elsewhere its distance is the difference of the two others'.
    """
    to_a, to_b = np.maximum(b, c) - np.minimum(b, c), np.maximum(a, c) - np.minimum(a, c)
    to_c = (np.maximum(to_a, to_b) - np.minimum(to_a, to_b)) | _mask((a >= c) == (b >= c))
    found = c ^ ((b ^ c) & _mask(to_b <= to_c))
    return found ^ ((a ^ found) & _mask((to_a <= to_b) & (to_a <= to_c)))


def _mask(where: np.ndarray) -> Rows:
    """255 where true, else 0: masked bytes are several times as fast as np.where."""
    return -where.view(np.uint8)
