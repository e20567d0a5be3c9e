"""The parity gate's table, and its verdicts, for a person."""

import math

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from runtime.latency import Latency, Spread
from runtime.parity.judge import MEBIBYTE
from runtime.parity.limits import Limits
from runtime.parity.results import FileParity, ParityReport, Refusal, tidy

__all__ = ["HEADINGS", "MEBIBYTE", "FileParity", "Limits", "ParityReport", "print_report", "table_rows"]

LOG_WIDTH = 120  # columns where there is no terminal to ask
STYLES = {"PASS": "bold green", "FAIL": "bold red"}
NARROWEST = 18  # columns of the terminal that a column of figures takes, borders included
HEADINGS = (
    "file",
    "engine",
    "verdict",
    "precision",
    "size",
    "operators",
    "delegate",
    "to reference",
    "largest difference",
    "0 / 1 / 2 / 3+ LSB",
    "loss",
    "LPIPS change",
    "prepare, ms: median / p90",
    "run, ms: median / p90",
    "read, ms: median / p90",
    "peak memory",
    "of PyTorch's",
)


def table_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """Cells under `HEADINGS`: one row per file and engine, then the float student in PyTorch."""
    judged = [_row(file, report) for file in report.files]
    refused = [_refused(one) for one in report.refused]
    student = ("student in PyTorch", "pytorch", "", "float32", *[""] * 8)
    times = _times(report.pytorch)
    return [*judged, *refused, (*student, *times, _memory(report.pytorch_peak_bytes), "")]


def _row(file: FileParity, report: ParityReport) -> tuple[str, ...]:
    agreement, change = file.agreement, file.lpips_change
    return (
        file.name,
        file.engine,
        "PASS" if file.passed else "FAIL",
        file.description.precision,
        f"{file.file_bytes / 1000:.1f} kB",
        str(sum(file.description.delegate.operators.values()) or "-"),
        _delegated(file),
        "identical" if agreement.psnr == math.inf else f"{agreement.psnr:.1f} dB",
        f"{agreement.max_lsb:.2g} LSB",
        " / ".join(_percent(share) for share in agreement.distribution),
        f"{tidy(file.loss)} dB",
        "not computed" if change is None else f"{round(change, 4) + 0.0:+.4f}",
        *(_times(file.latency) if file.latency else ("not run",) * 3),
        _memory(file.peak_bytes),
        _ratio(file.peak_bytes, report.pytorch_peak_bytes),
    )


def _refused(one: Refusal) -> tuple[str, ...]:
    return (one.name, one.engine, "FAIL", *["-"] * (len(HEADINGS) - 3))


def _delegated(file: FileParity) -> str:
    delegate = file.description.delegate
    outside = sum(delegate.outside.values())
    if not delegate.partitions:
        return "-"
    count = "1 partition" if delegate.partitions == 1 else f"{delegate.partitions} partitions"
    return f"{delegate.name}, {count}" + (f", {outside} outside" if outside else "")


def _times(latency: Latency) -> tuple[str, ...]:
    parts: list[Spread] = [latency.prepare, latency.run, latency.read]
    return tuple(f"{part.median:.2f} / {part.p90:.2f}" for part in parts)


def _memory(count: int | None) -> str:
    return "not measured" if count is None else f"{count / MEBIBYTE:.1f} MiB"


def _ratio(count: int | None, whole: int | None) -> str:
    return "-" if count is None or not whole else f"{count / whole:.0%}"


def print_report(report: ParityReport) -> None:
    """The table, as many files beside each other as there is room for, and a green or red verdict for each."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=LOG_WIDTH)
    rows = table_rows(report)
    abreast = max(1, console.width // NARROWEST - 1)
    pieces = -(-len(rows) // abreast)
    each = -(-len(rows) // pieces)  # pieces of one width
    for start in range(0, len(rows), each):
        some = rows[start : start + each]
        table = Table(Column(HEADINGS[0], no_wrap=True), *(Column(row[0], overflow="fold") for row in some))
        for cells in list(zip(HEADINGS, *some, strict=True))[1:]:
            table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in cells))
        console.print(table)
    height, width = report.pytorch.lr_size
    threads = report.pytorch.threads
    console.print(f"latency and memory: LR image of {width}x{height} pixels, {threads} thread(s), on this machine")
    computed = report.protocol["lpips"] if report.without_lpips is None else f"not computed: {report.without_lpips}"
    console.print(f"LPIPS: {computed}", soft_wrap=True)
    for one in (*report.files, *report.refused):
        passed = isinstance(one, FileParity) and one.passed
        console.print(Text(one.verdict(), style="bold green" if passed else "bold red"), soft_wrap=True)


def _percent(share: float) -> str:
    """Never 100 % or 0 % of what is not all or nothing."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "<0.01%" if share < 1e-4 else ">99.99%" if share > 0.9999 else f"{share:.2%}"
