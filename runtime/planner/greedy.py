"""How two libraries place values that live at different times into one block of memory: the largest first.

Both sort by size and give each value the tightest gap between the values already placed that live while it does. The
rule is as in Pisarchyk and Lee, "Efficient Memory Management for Deep Neural Net Inference" (MLSys 2020 workshop),
"greedy by size".
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Life:
    """A value that needs memory.

    Attributes:
        size: in bytes.
        first, last: numbers of the operators that make it and that read it last, both included.
    """

    size: int
    first: int
    last: int

    def meets(self, other: "Life") -> bool:
        return self.first <= other.last and other.first <= self.last


def place(lives: Mapping[str, Life]) -> dict[str, tuple[int, int]]:
    """Where each value lies in the block: (first byte, byte after the last), by name."""
    placed: dict[str, tuple[int, int]] = {}
    for name, life in sorted(lives.items(), key=lambda item: -item[1].size):
        taken = sorted(span for other, span in placed.items() if life.meets(lives[other]))
        start = _offset(taken, life.size)
        placed[name] = start, start + life.size
    return placed


def touched(spans: Iterable[tuple[int, int]]) -> int:
    """Bytes that lie in at least one of the spans."""
    total = end = 0
    for start, stop in sorted(spans):
        total += max(0, stop - max(start, end))
        end = max(end, stop)
    return total


def _offset(taken: list[tuple[int, int]], size: int) -> int:
    """Start of the tightest gap that takes `size`, or the end of all that is taken."""
    best, tightest, end = None, None, 0
    for start, stop in taken:
        gap = start - end
        if gap >= size and (tightest is None or gap < tightest):
            best, tightest = end, gap
        end = max(end, stop)
    return end if best is None else best
