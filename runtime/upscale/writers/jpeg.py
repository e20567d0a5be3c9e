"""Baseline JPEG (ITU-T T.81), band by band.

Pillow encodes bands of rows as pictures of their own, with one set of tables. After a restart marker prediction starts
anew, as it does at the beginning of a picture: so their scans, joined by restart markers, are one picture, and it
decodes to the pixels of the same picture encoded at once.
"""

import io
import struct
from typing import BinaryIO

from PIL import Image as Pillow

from compress.errors import BadInput
from runtime.upscale.writers.base import EXIF_PREFIX, Bands, Picture, Rows, Writer

BLOCK = 8  # rows and columns of a block; without subsampling also those of a minimum coded unit
BAND = 64  # rows of a band, where that many blocks fit an interval
INTERVAL = 65535  # most blocks between two restart markers
SOF0, SOS, DRI, RST0, EOI = 0xC0, 0xDA, 0xDD, 0xD0, 0xD9
LONGEST_EXIF = 65533 - len(EXIF_PREFIX)
QUALITY = 95


class JpegWriter(Writer):
    """Grey or RGB without subsampling, quality 95 where none is given; ICC in APP2, EXIF in APP1."""

    name, largest, alpha = "JPEG", 65500, False  # libjpeg reads and writes no larger one

    def __init__(self, file: BinaryIO, picture: Picture):
        super().__init__(file, picture)
        if len(picture.exif_block) > LONGEST_EXIF:
            raise BadInput(
                f"expected at most {LONGEST_EXIF} bytes of EXIF in a JPEG, found {len(picture.exif_block)}: write a PNG, or "
                "leave the EXIF out."
            )
        across = -(-picture.width // BLOCK)
        band_rows = BLOCK * min(BAND // BLOCK, INTERVAL // across)
        self._interval = across * band_rows // BLOCK
        self._bands = Bands(band_rows)
        self._count = 0

    def _write(self, rows: Rows) -> None:
        for band in self._bands.add(rows):
            self._encode(band)

    def _finish(self) -> None:
        for band in self._bands.rest():
            self._encode(band)
        self.file.write(bytes([0xFF, EOI]))

    def _encode(self, band: Rows) -> None:
        picture, buffer = self.picture, io.BytesIO()
        options: dict[str, object] = {"quality": picture.quality or QUALITY, "subsampling": 0}
        if not self._count:  # the first band's header becomes the picture's
            options |= {"icc_profile": picture.icc, "exif": EXIF_PREFIX + picture.exif_block if picture.exif else b""}
        Pillow.fromarray(band.squeeze(2) if picture.channels == 1 else band).save(buffer, "JPEG", **options)
        header, scan = _parted(buffer.getvalue(), picture.height, self._interval)
        self.file.write(bytes([0xFF, RST0 + (self._count - 1) % 8]) if self._count else header)
        self.file.write(scan)
        self._count += 1


def _parted(jpeg: bytes, height: int, interval: int) -> tuple[bytes, bytes]:
    """The header, for a picture of that height and restart interval, and the scan without the end of image."""
    header, at = bytearray(jpeg[:2]), 2
    while True:
        marker, length = jpeg[at + 1], struct.unpack(">H", jpeg[at + 2 : at + 4])[0]
        segment = bytearray(jpeg[at : at + 2 + length])
        if marker == SOF0:
            segment[5:7] = struct.pack(">H", height)
        if marker == SOS:
            header += struct.pack(">BBHH", 0xFF, DRI, 4, interval)
        header += segment
        at += 2 + length
        if marker == SOS:
            return bytes(header), jpeg[at:-2]
