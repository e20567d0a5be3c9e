"""Progress of work on photographs, on standard error, without rich, which a device may lack. Needs no torch.

On a terminal a bar, elsewhere the lines of `compress.progress`. It only goes forward.
"""

import shutil
import sys
import time
from types import TracebackType

from compress.progress import Lines

REDRAWN = 0.1  # seconds between two pictures of the bar
PARTS = 1000
WIDTH = 30


class Bar:
    """Shows how much is done and how long the rest may take; a context manager.

    Args:
        title: in front of it.
        total: of the work, in any unit.
    """

    def __init__(self, title: str, total: float):
        self._title, self._total, self._done = title, max(total, 1e-9), 0.0
        self._start, self._drawn = time.monotonic(), 0.0
        self._terminal = sys.stderr.isatty()
        self._lines = _Shares(title, PARTS, 0)

    def __enter__(self) -> "Bar":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wipe()

    def show(self, done: float, note: str = "") -> None:
        """Takes the work done so far, of which less than before counts as no more; `note` stands behind the bar."""
        done = min(max(self._done, done), self._total)
        share, forward = done / self._total, done > self._done
        self._done = done
        if not self._terminal:
            if forward:
                self._lines(int(PARTS * share), note)
        elif time.monotonic() - self._drawn > REDRAWN:
            self._drawn = time.monotonic()
            text = f"{self._title} {_drawn(share)} {share:4.0%} {self._left(share)} {note}"
            columns = shutil.get_terminal_size().columns - 1
            print("\r\x1b[K" + text[:columns], end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line of its own on standard error, above the bar."""
        self._wipe()
        print(text, file=sys.stderr, flush=True)

    def _left(self, share: float) -> str:
        if share <= 0:
            return "-:-- left"
        seconds = round((time.monotonic() - self._start) * (1 - share) / share)
        minutes, hours = seconds // 60 % 60, seconds // 3600
        return f"{hours}:{minutes:02}:{seconds % 60:02} left" if hours else f"{minutes}:{seconds % 60:02} left"

    def _wipe(self) -> None:
        if self._terminal:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            self._drawn = 0.0


class _Shares(Lines):
    """In hundredths: pixels by the million tell nobody anything."""

    def shown(self, done: int) -> str:
        return f"{done / self.total:.0%}"


def _drawn(share: float) -> str:
    full = int(WIDTH * share)
    return "[" + "#" * full + "." * (WIDTH - full) + "]"
