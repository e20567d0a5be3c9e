"""The benchmark's tables."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Column, Table

from runtime.bench.measure import Measurement
from runtime.bench.profile import Operator
from runtime.latency import Spread
from runtime.units import show_bytes

LOG_WIDTH = 140  # columns where there is no terminal to ask
HEADINGS = (
    "file",
    "engine",
    "precision",
    "threads",
    "size",
    "prepare, ms",
    "run, ms",
    "read, ms",
    "speed-up",
    "MP/s",
    "peak memory",
)
LAST_OPERATORS = 0.995  # of the time, after which operators are only counted


def console() -> Console:
    """Of the terminal's width, or of one that suits a log."""
    found = Console(highlight=False)
    return found if found.is_terminal else Console(highlight=False, width=LOG_WIDTH)


def measurements(rows: Sequence[Measurement]) -> Table:
    """A row per file, engine and number of threads. `speed-up` is over the first number of threads."""
    table = Table(
        *(Column(name, overflow="fold", justify="left" if i < 3 else "right") for i, name in enumerate(HEADINGS))
    )
    first: dict[tuple[str, str], float] = {}
    for one in rows:
        cells = ["evaluated"] * 3 + ["-", "-"]
        if one.latency:
            parts: list[Spread] = [one.latency.prepare, one.latency.run, one.latency.read]
            base = first.setdefault((str(one.description.path), one.engine), one.latency.median)
            cells = [f"{part.median:.2f} / {part.p90:.2f}" for part in parts]
            cells += [f"{base / one.latency.median:.2f}", f"{one.megapixels_per_second:.1f}"]
        peak = "not measured" if one.peak_bytes is None else show_bytes(one.peak_bytes)
        about = (one.name, one.engine, one.description.precision, str(one.threads), f"{one.file_bytes / 1000:.1f} kB")
        table.add_row(*about, *cells, peak)
    return table


def profile(name: str, operators: Sequence[Operator]) -> Table:
    """Operators by time, the longest first, and their share; what takes next to nothing is summed up."""
    total = sum(one.milliseconds for one in operators)
    title = f"{name}: {total:.2f} ms in {len(operators)} operators"
    table = Table(
        Column("operator", overflow="fold"), Column("kind", overflow="fold"), Column("ms", justify="right"),
        Column("share", justify="right"), title=title, title_justify="left", min_width=len(title) + 2,
    )  # fmt: skip
    ordered, shown = sorted(operators, key=lambda one: -one.milliseconds), 0.0
    for i, one in enumerate(ordered):
        if shown >= LAST_OPERATORS * total:
            rest = ordered[i:]
            table.add_row(f"{len(rest)} more", "", f"{sum(other.milliseconds for other in rest):.3f}", "")
            break
        shown += one.milliseconds
        table.add_row(one.name, one.kind, f"{one.milliseconds:.3f}", f"{one.milliseconds / total:.1%}")
    return table
