"""TIFF 6.0, strip by strip: deflate over differences of neighbours; BigTIFF where 4 GiB might not do.

Of the EXIF its text (camera, date, author), the rating, the camera's settings and the place are kept, not a thumbnail.
"""

import contextlib
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from PIL import ExifTags
from PIL import Image as Pillow
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from compress.errors import BadInput
from runtime.upscale.writers.base import Bands, Picture, Rows, Writer
from runtime.upscale.writers.deflate import deflated

STRIP = 1 << 18  # bytes of rows in a strip
CLASSIC = 2**32 - 2**24  # bytes that classic TIFF's 32-bit offsets surely reach, directories included
BYTE, ASCII, SHORT, LONG, RATIONAL, UNDEFINED, LONG8 = 1, 2, 3, 4, 5, 7, 16
FORMATS = {SHORT: "H", LONG: "I", LONG8: "Q"}
TEXTS = (
    0x010E,
    0x010F,
    0x0110,
    0x0131,
    0x0132,
    0x013B,
    0x013C,
    0x8298,
)  # description, make, model, software, date, artist, computer, copyright
RATINGS = (0x4746, 0x4749)  # in stars, in percent
WINDOWS_TEXTS = range(0x9C9B, 0x9CA0)  # title, comment, author, keywords and subject in UTF-16, as bytes
DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
INTEROPERABILITY = 0xA005  # a directory inside of one; says that the file is a camera's own JPEG
GREY, RGB = 1, 2
PIXELS_PER_INCH = struct.pack("<II", 72, 1)  # the standard wants one
Entry = tuple[int, int, bytes, int]


class TiffWriter(Writer):
    """8-bit grey or RGB, with or without alpha; ICC, and EXIF without thumbnail."""

    name, largest = "TIFF", 2**31 - 1

    def __init__(self, file: BinaryIO, picture: Picture):
        super().__init__(file, picture)
        stride = picture.width * picture.channels
        self._strip_rows = max(1, STRIP // stride)
        self._bands = Bands(self._strip_rows)
        self._big = picture.height * stride * 1.01 > CLASSIC
        self._offsets: list[int] = []
        self._lengths: list[int] = []
        self._exif = _read_exif(picture.exif_block)
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0) if self._big else struct.pack("<2sHI", b"II", 42, 0))

    def _write(self, rows: Rows) -> None:
        for band in self._bands.add(rows):
            self._compress(band)

    def _finish(self) -> None:
        for band in self._bands.rest():
            self._compress(band)
        where = self._directory()
        self.file.seek(8 if self._big else 4)
        self.file.write(struct.pack("<Q" if self._big else "<I", where))

    def _compress(self, band: Rows) -> None:
        differences = band.copy()
        differences[:, 1:] -= band[:, :-1]
        self._offsets.append(self.file.tell())
        self._lengths.append(self.file.write(deflated(differences.tobytes())))
        _align(self.file)

    def _directory(self) -> int:
        """Writes the tags behind the strips; where they begin."""
        picture, place = self.picture, LONG8 if self._big else LONG
        entries = [
            _numbers(256, LONG, picture.width),
            _numbers(257, LONG, picture.height),
            _numbers(258, SHORT, *[8] * picture.channels),
            _numbers(259, SHORT, 8),  # deflate
            _numbers(262, SHORT, GREY if picture.channels < 3 else RGB),
            _numbers(273, place, *self._offsets),
            _numbers(277, SHORT, picture.channels),
            _numbers(278, LONG, self._strip_rows),
            _numbers(279, place, *self._lengths),
            (282, RATIONAL, PIXELS_PER_INCH, 1),
            (283, RATIONAL, PIXELS_PER_INCH, 1),
            _numbers(296, SHORT, 2),  # inches
            _numbers(317, SHORT, 2),  # differences of horizontal neighbours
        ]
        if picture.mode in ("LA", "RGBA"):
            entries.append(_numbers(338, SHORT, 2))  # alpha that colours are not multiplied with
        if picture.icc:
            entries.append((34675, UNDEFINED, picture.icc, len(picture.icc)))
        texts = {tag: self._exif[tag] for tag in TEXTS if isinstance(self._exif.get(tag), str)}
        for tag, text in texts.items():
            content = text.encode("latin-1", "replace") + b"\0"  # as Pillow reads text, whatever its bytes mean
            entries.append((tag, ASCII, content, len(content)))
        entries += [_numbers(tag, SHORT, rating) for tag in RATINGS if _is_rating(rating := self._exif.get(tag))]
        for tag in WINDOWS_TEXTS:
            if isinstance(content := self._exif.get(tag), bytes) and content:
                entries.append((tag, BYTE, content, len(content)))
        for tag in DIRECTORIES:
            if values := self._exif.get_ifd(tag):
                entries.append(_numbers(tag, place, self._append_directory(tag, values)))
        return self._append(sorted(entries))

    def _append(self, entries: Sequence[Entry]) -> int:
        """Writes long values, then the directory that points at them; where the directory begins."""
        inline, count, head = (8, "<Q", "<HHQ") if self._big else (4, "<H", "<HHI")
        written = []
        for tag, kind, content, values in entries:
            field = content.ljust(inline, b"\0")
            if len(content) > inline:
                field = struct.pack("<Q" if self._big else "<I", self.file.tell())
                self.file.write(content)
                _align(self.file)
            written.append(struct.pack(head, tag, kind, values) + field)
        where = self.file.tell()
        self.file.write(struct.pack(count, len(written)) + b"".join(written) + bytes(inline))
        return where

    def _append_directory(self, group: int, values: dict[int, object]) -> int:
        """Writes EXIF's settings or its place as Pillow does; where they begin."""
        header = b"II\x2b\0\x08\0\0\0" + bytes(8) if self._big else b"II\x2a\0" + bytes(4)
        directory, where = ImageFileDirectory_v2(header, group=group), self.file.tell()
        for tag, value in values.items():
            if tag != INTEROPERABILITY:
                directory[tag] = value
        with _unusable_exif():
            self.file.write(directory.tobytes(where))
        _align(self.file)
        return where


def _is_rating(value: object) -> bool:
    return isinstance(value, int) and 0 <= value <= 100


def _numbers(tag: int, kind: int, *values: int) -> Entry:
    return tag, kind, struct.pack(f"<{len(values)}{FORMATS[kind]}", *values), len(values)


def _align(file: BinaryIO) -> None:
    """Offsets are even."""
    if file.tell() % 2:
        file.write(b"\0")


def _read_exif(block: bytes) -> Pillow.Exif:
    exif = Pillow.Exif()
    with _unusable_exif():
        exif.load(block)
        for tag in DIRECTORIES:
            exif.get_ifd(tag)
    return exif


@contextlib.contextmanager
def _unusable_exif() -> Iterator[None]:
    """What Pillow makes of a damaged block, as a sentence."""
    try:
        yield
    except (SyntaxError, ValueError, TypeError, KeyError, OverflowError, struct.error, AttributeError) as error:
        raise BadInput(
            f"expected an EXIF block that can be rewritten for a TIFF, found a damaged one ({error}): leave it out."
        ) from error
