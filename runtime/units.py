"""Numbers of bytes as people write them."""

import re
from fractions import Fraction

from compress.errors import BadInput

UNITS = {"": 1, "B": 1}
UNITS |= {f"{letter}B": 1000**power for power, letter in enumerate("KMGT", 1)}
UNITS |= {f"{letter}IB": 1024**power for power, letter in enumerate("KMGT", 1)}
NUMBER = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([A-Za-z]*)", re.ASCII)
MEBIBYTE = 1024**2


def parse_bytes(text: str) -> int:
    """Bytes of "64MB" (millions), "64MiB" (1024 * 1024), "1.5GB" or "67108864"; a fraction of a byte is dropped.

    Raises:
        BadInput: anything else, or less than one byte.
    """
    found = NUMBER.fullmatch(text.strip())
    unit = UNITS.get(found[2].upper()) if found else None
    count = int(Fraction(found[1]) * unit) if found and unit and len(found[1]) < 20 else 0
    if count < 1:
        raise BadInput(f"expected a number of bytes such as 64MB, 64MiB or 1.5GB, found {text!r}: write it like that.")
    return count


def show_bytes(count: int) -> str:
    """As "12.3 MiB"; below a tenth of that as "12 KiB"."""
    return f"{count / MEBIBYTE:,.1f} MiB" if abs(count) >= MEBIBYTE / 10 else f"{count / 1024:,.0f} KiB"
