"""Progress of long work on standard error: a bar on a terminal, a line now and then elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

LINE_EVERY = 15.0  # seconds between lines where there is no terminal


@contextlib.contextmanager
def progress(title: str, total: int, *, done: int = 0, silent: bool = False) -> Iterator[Callable[[int, str], None]]:
    """Yields `update(done, note)`, to be called with the work done so far out of `total`."""
    from rich.console import Console  # here, since devices use `Lines` and have no rich
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    if silent:
        yield lambda done, note="": None
    elif console.is_terminal:
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"),
                   TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(title, total=total, completed=done, note="")
            yield lambda done, note="": bar.update(task, completed=done, note=note)
    else:
        yield Lines(title, total, done)


class Lines:
    """Progress for log files: the first, the last, and one line every few seconds."""

    def __init__(self, title: str, total: int, done: int):
        self.title, self.total, self.first = title, total, done
        self.start = self.last = time.monotonic()

    def shown(self, done: int) -> str:
        """How much is done, in a line."""
        return f"{done}/{self.total}"

    def __call__(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if done < self.total and now - self.last < LINE_EVERY:
            return
        self.last = now
        left = (now - self.start) / max(1, done - self.first) * (self.total - done)
        print(
            f"{self.title}: {self.shown(done)} {note} {left:.0f} s left".replace("  ", " "),
            file=sys.stderr,
            flush=True,
        )
