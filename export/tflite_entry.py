"""One metadata entry of a .tflite, read with nothing but the standard library: a device has no schema of the format.

A .tflite is a FlatBuffer. A table begins with the distance back to its vtable, which holds, after two lengths, the place of
each field within the table, 0 where it is absent; a vector or string begins with its length; whatever is not a number is
stored as the distance to it. Of the schema (LiteRT, tflite/converter/schema/schema.fbs) this needs

    Model.metadata -> [Metadata], Metadata.name, Metadata.buffer -> the index into Model.buffers -> [Buffer], Buffer.data

Sizes and distances are the file's word, so each is held against the file's size before it is followed. Nothing is followed
twice, and what would be read is limited, so that no file takes long or much memory.
"""

import struct
from typing import BinaryIO

MAGIC = b"TFL3"
# places in the vtable, 4 + 2 * number of the field
MODEL_BUFFERS, MODEL_METADATA = 12, 16
METADATA_NAME, METADATA_BUFFER = 4, 6
BUFFER_DATA = 4
MOST_ENTRIES = 1024  # files have about five
MOST_BYTES = 1 << 20  # of an entry; ours have about two thousand


class Damaged(Exception):
    """Not the bytes of a .tflite; the message says what is wrong with them."""


def read_entry(file: BinaryIO, name: bytes) -> bytes | None:
    """The content of the metadata entry `name`; None where the file has no such entry.

    Args:
        file: opened for reading bytes, seekable; only what leads to the entry is read.
        name: of the entry.

    Raises:
        Damaged: the bytes lead out of the file, or in them stands what no .tflite has.
    """
    content = _Content(file)
    model = content.follow(0)
    entries = content.field(model, MODEL_METADATA)
    if entries is None:
        return None
    first, count = content.vector(entries, 4)
    if count > MOST_ENTRIES:
        raise Damaged(f"{count} metadata entries")
    for number in range(count):
        entry = content.follow(first + 4 * number)
        if content.is_string(content.field(entry, METADATA_NAME), name):
            index = content.field(entry, METADATA_BUFFER)
            return content.buffer(model, 0 if index is None else content.unsigned(index))
    return None


class _Content:
    """Numbers, tables and vectors in a file; all positions are held against its size."""

    def __init__(self, file: BinaryIO):
        self._file, self._size = file, file.seek(0, 2)

    def read(self, position: int, count: int) -> bytes:
        if not 0 <= position <= position + count <= self._size:
            raise Damaged(f"{count} bytes at {position} of {self._size}")
        self._file.seek(position)
        found = self._file.read(count)
        if len(found) != count:
            raise Damaged("a file that became shorter")
        return found

    def unsigned(self, position: int) -> int:
        return struct.unpack("<I", self.read(position, 4))[0]

    def follow(self, position: int) -> int:
        """Where the distance at a position leads."""
        return position + self.unsigned(position)

    def field(self, table: int, place: int) -> int | None:
        """Where a table has a field; None where it is absent."""
        vtable = table - struct.unpack("<i", self.read(table, 4))[0]
        (length,) = struct.unpack("<H", self.read(vtable, 2))
        if place + 2 > length:
            return None
        (offset,) = struct.unpack("<H", self.read(vtable + place, 2))
        return table + offset if offset else None

    def vector(self, position: int, width: int) -> tuple[int, int]:
        """Where the first item lies of the vector that a field leads to, and how many there are, of `width` bytes each."""
        start = self.follow(position)
        count = self.unsigned(start)
        if start + 4 + width * count > self._size:
            raise Damaged(f"{count} items at {start} of {self._size} bytes")
        return start + 4, count

    def is_string(self, position: int | None, wanted: bytes) -> bool:
        if position is None:
            return False
        first, length = self.vector(position, 1)
        return length == len(wanted) and self.read(first, length) == wanted

    def buffer(self, model: int, index: int) -> bytes:
        buffers = self.field(model, MODEL_BUFFERS)
        first, count = (0, 0) if buffers is None else self.vector(buffers, 4)
        if index >= count:
            raise Damaged(f"an entry in buffer {index} of {count}")
        data = self.field(self.follow(first + 4 * index), BUFFER_DATA)
        if data is None:
            raise Damaged("an empty entry")
        start, length = self.vector(data, 1)
        if length > MOST_BYTES:
            raise Damaged(f"an entry of {length} bytes")
        return self.read(start, length)
