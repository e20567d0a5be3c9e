"""Messages between two processes over a pipe: a JSON object and raw bytes, each with its length in front.

Nothing is unpickled.
"""

import json
import struct
from typing import Any, BinaryIO

LENGTHS = struct.Struct("<IQ")  # of the JSON, of the bytes


def send(pipe: BinaryIO, message: dict[str, Any], content: bytes | memoryview = b"") -> None:
    """Writes a message and what belongs to it."""
    text = json.dumps(message).encode()
    pipe.write(LENGTHS.pack(len(text), len(content)) + text)
    pipe.write(content)
    pipe.flush()


def receive(pipe: BinaryIO) -> tuple[dict[str, Any], bytes]:
    """Reads a message and what belongs to it. Raises EOFError where the pipe ends before it does."""
    lengths = LENGTHS.unpack(_exactly(pipe, LENGTHS.size))
    text, content = (_exactly(pipe, length) for length in lengths)
    return json.loads(text), content


def _exactly(pipe: BinaryIO, count: int) -> bytes:
    found = pipe.read(count)
    if len(found) != count:
        raise EOFError(f"{len(found)} of {count} bytes")
    return found
