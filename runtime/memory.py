"""What a file takes in memory: predicted from the file, measured, and the tile that a budget allows. Needs no torch.

Both are the bytes that one inference adds to the peak resident memory of a process; docs/memory.md explains the terms.
Exits with 1 where a tile takes more than the budget that it was chosen for.
"""

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.errors import BadInput, run_command
from runtime.engines import BY_SUFFIX, ENGINE_HELP, open_model
from runtime.engines.base import check_threads
from runtime.planner import NoPrediction, Plan, largest_tile, plan
from runtime.units import parse_bytes, show_bytes

SIDE, RUNS = 256, 3


@dataclass(frozen=True, kw_only=True)
class Memory:
    """One row of the table.

    Attributes:
        file, engine: what was run, and by what.
        height, width: of the LR image.
        terms: of the prediction, in bytes; None where there is none.
        measured: bytes, the median of several runs; None where it was not or cannot be measured: another system than Linux, a
            file that is only evaluated or emulated.
        budget: that the size was chosen for; None where the size was given.
    """

    file: str
    engine: str
    height: int
    width: int
    terms: dict[str, int] | None
    measured: int | None
    budget: int | None = None

    @property
    def predicted(self) -> int | None:
        return None if self.terms is None else sum(self.terms.values())

    @property
    def error(self) -> float | None:
        """Of the prediction, as a fraction of what was measured."""
        if self.predicted is None or self.measured is None:
            return None
        return self.predicted / self.measured - 1

    @property
    def over(self) -> bool:
        """Whether more than the budget was measured."""
        return self.budget is not None and self.measured is not None and self.measured > self.budget


def memory_of(
    path: Path,
    height: int,
    width: int,
    *,
    engine: str | None = None,
    threads: int = 1,
    runs: int = RUNS,
    budget: int | None = None,
) -> Memory:
    """Predicts and measures one file. `budget` is only noted.

    Raises:
        BadInput: a file or size that cannot be run, or a prediction of more than the machine has.
    """
    default = BY_SUFFIX.get(path.suffix.lower())
    try:
        planned: Plan | None = plan(path, height, width, threads=threads) if engine in (None, default) else None
    except NoPrediction:
        planned = None
    if runs and planned:
        _check_room(planned.total, path, height, width)
    return Memory(
        file=str(path),
        engine=engine or default or "?",
        height=height,
        width=width,
        terms=dict(planned.terms) if planned else None,
        measured=_measured(path, height, width, engine, threads, runs) if runs else None,
        budget=budget,
    )


def _measured(path: Path, height: int, width: int, engine: str | None, threads: int, runs: int) -> int | None:
    """Median of several measurements; None where the engine has none. Raises BadInput."""
    with open_model(path, engine=engine, threads=threads) as opened:
        found = [opened.peak_memory(height, width) for _ in range(runs)]
    sizes = [size for size in found if size is not None]
    return int(statistics.median(sizes)) if sizes else None


def _check_room(predicted: int, path: Path, height: int, width: int) -> None:
    """Raises BadInput for an inference that would fill the machine before it fails."""
    if sys.platform != "linux":
        return
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if predicted > installed:
        raise BadInput(
            f"expected an inference that fits into the {show_bytes(installed)} of this machine, found {show_bytes(predicted)} "
            f"predicted for {width}x{height} pixels of {path}: measure less, or only predict with --runs 0."
        )


def main() -> int:
    given = _parser().parse_args()
    check_threads(given.threads)
    if given.runs < 0:
        raise BadInput(f"expected 0 runs or more, found {given.runs}: use more.")
    if given.budget is not None and (given.size or given.height is not None or given.width is not None):
        raise BadInput("expected --budget or a size, found both: the budget chooses the size.")
    options = {"engine": given.engine, "threads": given.threads, "runs": given.runs}
    rows = []
    for path in given.files:
        if given.budget is not None:
            budget = parse_bytes(given.budget)
            side = largest_tile(path, budget, threads=given.threads)
            rows.append(memory_of(path, side, side, budget=budget, **options))
        else:
            rows += [memory_of(path, height, width, **options) for height, width in _sizes(given)]
    print(as_json(rows) if given.json else as_table(rows))
    return int(any(row.over for row in rows))


def as_json(rows: Sequence[Memory]) -> str:
    """A list of objects: the attributes of each row, with `predicted`, `error` and `over`."""
    more = [{"predicted": row.predicted, "error": row.error, "over": row.over} for row in rows]
    return json.dumps([asdict(row) | one for row, one in zip(rows, more, strict=True)], indent=1)


def as_table(rows: Sequence[Memory]) -> str:
    """For people: a line a row, and below it the terms of its prediction."""
    head = ("file", "engine", "LR size", "predicted", "measured", "error")
    cells = [head, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    lines = []
    for line, row in zip(cells, [None, *rows], strict=True):
        left = (cell.ljust(size) for cell, size in zip(line[:3], widths[:3], strict=True))
        right = (cell.rjust(size) for cell, size in zip(line[3:], widths[3:], strict=True))
        lines.append("  ".join([*left, *right]))
        if row is not None and row.terms is not None:
            lines.append("    " + ", ".join(f"{name} {show_bytes(size)}" for name, size in row.terms.items() if size))
        if row is not None and row.budget is not None:
            lines.append(f"    {_verdict(row)}")
    return "\n".join(lines)


def _cells(row: Memory) -> tuple[str, ...]:
    sizes = ["-" if count is None else show_bytes(count) for count in (row.predicted, row.measured)]
    error = "-" if row.error is None else f"{row.error:+.1%}"
    return (Path(row.file).name, row.engine, f"{row.height}x{row.width}", *sizes, error)


def _verdict(row: Memory) -> str:
    assert row.budget is not None
    if row.measured is None:
        return f"the largest tile for {row.budget:,} bytes ({show_bytes(row.budget)}), not measured"
    found = "MORE than" if row.over else "within"
    return f"the largest tile for {row.budget:,} bytes ({show_bytes(row.budget)}): measured {found} the budget"


def _sizes(given: argparse.Namespace) -> list[tuple[int, int]]:
    """(height, width) of the images, as the options say."""
    if given.size:
        if given.height is not None or given.width is not None:
            raise BadInput("expected --size or --height and --width, found both: leave one out.")
        return [_size(text) for text in given.size]
    height = given.width if given.height is None else given.height
    width = height if given.width is None else given.width
    return [(SIDE if height is None else height, SIDE if width is None else width)]


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d{1,6})(?:x(\d{1,6}))?", text.strip())
    if not found or not int(found[1]) or found[2] == "0":
        raise BadInput(f"expected a size such as 128 or 128x96, found {text!r}: give HEIGHTxWIDTH of the LR image.")
    return int(found[1]), int(found[2] or found[1])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="exported files, or a student.pt")
    parser.add_argument("--height", type=int, help=f"of the LR image, in pixels (default: the width, or {SIDE})")
    parser.add_argument("--width", type=int, help=f"of the LR image, in pixels (default: the height, or {SIDE})")
    parser.add_argument("--size", nargs="+", metavar="HxW", help="several LR sizes, such as 64 128x96")
    parser.add_argument(
        "--budget", metavar="BYTES", help="such as 64MB: choose the largest square tile, and measure it"
    )
    parser.add_argument("--engine", help=f"{ENGINE_HELP}; default: what the file's suffix says")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default: 1)")
    parser.add_argument(
        "--runs", type=int, default=RUNS, help=f"measurements, whose median counts; 0 only predicts (default: {RUNS})"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    return parser


if __name__ == "__main__":
    run_command(main, contained=True)
