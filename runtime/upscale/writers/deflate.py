"""Deflate for differences of pixels.

Those of photographs are noise to the search for repetitions: run lengths and Huffman codes alone (zlib's Z_RLE) gave PNGs 1%
larger than level 6 on a super-resolved photograph and 1% smaller on a camera's, five times as fast; Pillow's
`optimize` (level 9) gained another 5% at a thirtieth of the speed. Drawings do repeat. So every piece is tried on a
sample of it, and takes the search where that saves SAVES or more.
"""

import zlib

SAMPLE = 1 << 15  # bytes of a piece
SAVES = 0.04
SEARCH = 6  # zlib's level
RAW, STREAM = -zlib.MAX_WBITS, zlib.MAX_WBITS  # deflate alone, or with zlib's header and checksum


def deflated(piece: bytes, *, kind: int = STREAM, last: bool = True) -> bytes:
    """A piece of differences, compressed.

    Args:
        piece: bytes.
        kind: RAW or STREAM.
        last: end the stream; False ends on a byte's border, so that another piece may follow, whichever way it is compressed.
    """
    start = max(0, (len(piece) - SAMPLE) // 2)
    middle = piece[start : start + SAMPLE]
    search = len(_compressed(middle, True, RAW, True)) < (1 - SAVES) * len(_compressed(middle, False, RAW, True))
    return _compressed(piece, search, kind, last)


def _compressed(data: bytes, search: bool, kind: int, last: bool) -> bytes:
    level, strategy = (SEARCH, zlib.Z_FILTERED) if search else (1, zlib.Z_RLE)
    worker = zlib.compressobj(level, zlib.DEFLATED, kind, zlib.DEF_MEM_LEVEL, strategy)
    return worker.compress(data) + worker.flush(zlib.Z_FINISH if last else zlib.Z_FULL_FLUSH)
