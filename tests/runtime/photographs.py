"""Files of photographs, some of kinds that no library here writes."""

import struct
import zlib

import numpy as np
from PIL import ImageCms

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 21, 34
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*channels: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, *channels), dtype=dtype, endpoint=True)


def png(rows: list[bytes], bits: int, colour_type: int, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of any depth, few of which Pillow writes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour_type, 0, 0, 0))
    if transparent:
        header += chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def deep_rows(pixels: np.ndarray) -> list[bytes]:
    """Those of a PNG of 16 bits per channel."""
    return [row.astype(">u2").tobytes() for row in pixels]


def packed_rows(values: np.ndarray, bits: int) -> list[bytes]:
    """Grey of few bits, one pixel behind the other, each row filled up to a byte."""
    planes = values[..., None] >> np.arange(bits)[::-1] & 1
    return [np.packbits(row.astype(np.uint8)).tobytes() for row in planes]


def tiff(
    body: bytes,
    order: str = "<",
    *,
    bits: int = 16,
    channels: int = 3,
    white: int = 2,
    orientation: int = 1,
    planar: int = 1,
) -> bytes:
    """An uncompressed TIFF in a byte order, '<' or '>', of one strip or one for every plane."""
    plane = len(body) // channels if planar == 2 else len(body)
    strips = len(body) // plane
    body += b"\0" * (len(body) % 2)
    offsets, lengths = [8 + k * plane for k in range(strips)], [plane] * strips
    tables = [struct.pack(f"{order}{channels}H", *[bits] * channels)]
    tables += [struct.pack(f"{order}{strips}I", *numbers) for numbers in (offsets, lengths)]
    bits_at, offsets_at, lengths_at = (8 + len(body) + sum(map(len, tables[:k])) for k in range(3))
    body += b"".join(tables)
    entries = [
        (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, channels, bits_at if channels > 2 else bits), (259, 3, 1, 1),
        (262, 3, 1, white), (273, 4, strips, offsets_at if strips > 1 else 8), (274, 3, 1, orientation),
        (277, 3, 1, channels), (278, 4, 1, HEIGHT), (279, 4, strips, lengths_at if strips > 1 else plane),
        (284, 3, 1, planar),
    ]  # fmt: skip
    start = 8 + len(body)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        directory += struct.pack(
            f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, value, *([0] if short else [])
        )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    return head + body + directory + struct.pack(f"{order}I", 0)


def cmyk_profile() -> bytes:
    """An ICC profile by which lightness falls with the mean of the inks, whatever their colours."""
    corners = np.array([[(bits >> k) & 1 for k in (3, 2, 1, 0)] for bits in range(16)]).mean(axis=1)
    lab = np.stack([255 * (1 - corners), np.full(16, 128), np.full(16, 128)], axis=1).astype(np.uint8)
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * int(i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + lab.tobytes() + ramp * 3
    size = 128 + 4 + 12 + len(table)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table
