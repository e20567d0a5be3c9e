"""What the parity gate says: limits, figures, verdicts; as JSON and as a table."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from export.metadata import INTEGER
from runtime.engines.base import Description
from runtime.latency import Latency

MEBIBYTE = 2**20
LOG_WIDTH = 140  # columns where there is no terminal to ask
FILES_ABREAST = 8  # columns of files that a terminal can show
HEADINGS = (
    "file",
    "precision",
    "size",
    "operators",
    "delegate",
    "to reference",
    "0 / 1 / 2 / 3+ LSB",
    "loss",
    "median",
    "p90",
    "peak memory",
)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a file must keep to pass.

    Attributes:
        float_psnr: dB between the outputs of a float file and the reference, on the worst image; at least.
        int8_lsb: largest difference of an int8 file, in steps of 1/255; at most.
        int8_real_lsb: the same for an engine that computes with real numbers between quantizers (Core ML), where a tie
            that one layer rounds otherwise may reach the output as more than one step.
        int8_within: share of an int8 file's values within 1 LSB of the reference; at least.
        loss: dB against ground truth, float student minus file, on the worst set; at most.
    """

    float_psnr: float = 60.0
    int8_lsb: float = 2.0
    int8_real_lsb: float = 4.0
    int8_within: float = 0.99
    loss: float = 0.10


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """A file's outputs against the reference's, over all values of all images.

    Attributes:
        max_lsb: largest difference in steps of 1/255; nan if any value is not finite.
        within: share of values at most 1 LSB apart.
        identical: share of values that are the same uint8 pixel.
        distribution: shares of pixels 0, 1, 2, and more LSB apart, after rounding.
        psnr: dB over R, G and B, before rounding, of the worst image; inf where all are equal.
    """

    max_lsb: float
    within: float
    identical: float
    distribution: tuple[float, ...]
    psnr: float


@dataclass(frozen=True, kw_only=True)
class SetLoss:
    """PSNR on Y against ground truth in dB (see `compress.metrics.Protocol`) on one set; `loss` = student - file."""

    name: str
    images: int
    student: float
    file: float

    @property
    def loss(self) -> float:
        return 0.0 if self.student == self.file else self.student - self.file


@dataclass(frozen=True, kw_only=True)
class FileParity:
    """One file's result.

    Attributes:
        description: what the file says about itself and what ran it.
        file_bytes: size on disk.
        agreement: with the PyTorch reference of the same precision.
        sets: quality on each benchmark set.
        latency: prepare, run and read back, in milliseconds; None for a file that was only evaluated (see `Description.native`).
        peak_bytes: memory that one inference of that size takes; None where it cannot be measured (not Linux), or for a
            file that was only evaluated.
        failures: which figure misses which limit, one sentence each; empty for a file that passes.
    """

    description: Description
    file_bytes: int
    agreement: Agreement
    sets: tuple[SetLoss, ...]
    latency: Latency | None
    peak_bytes: int | None
    failures: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.description.path.name

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def loss(self) -> float:
        """dB on the worst set."""
        return max(one.loss for one in self.sets)

    def verdict(self) -> str:
        """One line for a person."""
        if self.failures:
            return f"{self.name}: FAIL  {'; '.join(self.failures)}"
        a = self.agreement
        if self.description.precision in INTEGER:
            figures = f"max {a.max_lsb:.0f} LSB, {100 * a.identical:.2f}% identical"
        else:
            same = "identical" if a.psnr == math.inf else f"{a.psnr:.1f} dB"
            figures = f"{same} to the reference, max {a.max_lsb:.4f} LSB"
        how = "" if self.description.native else f" ({self.description.version})"
        return f"{self.name}: PASS  {figures}, loss {_tidy(self.loss)} dB{how}"


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """All files' results against one student.

    Attributes:
        student: hash of the student.pt.
        limits: that were applied.
        files: in the order given.
        pytorch: latency of the float student in PyTorch, same image, same threads.
        pytorch_peak_bytes: its peak memory; None where it cannot be measured (not Linux).
        protocol: of the PSNR against ground truth.
    """

    student: str
    limits: Limits
    files: tuple[FileParity, ...]
    pytorch: Latency
    pytorch_peak_bytes: int | None
    protocol: Mapping[str, Any]

    @property
    def passed(self) -> bool:
        return all(file.passed for file in self.files)

    def to_json(self) -> str:
        """Everything, verdicts included; figures that are not finite (PSNR of identical images) become null."""
        plain = dataclasses.asdict(self)
        for row, file in zip(plain["files"], self.files, strict=True):
            row |= {"passed": file.passed, "loss": file.loss, "verdict": file.verdict()}
        return json.dumps(_plain({"passed": self.passed, **plain}), indent=1, allow_nan=False) + "\n"


def table_rows(report: ParityReport) -> list[tuple[str, ...]]:
    """Cells under `HEADINGS`: one row per file, then the float student in PyTorch."""
    rows = [_row(file) for file in report.files]
    timed = (f"{report.pytorch.median:.2f} ms", f"{report.pytorch.p90:.2f} ms")
    return [*rows, ("student in PyTorch", "float32", *[""] * 6, *timed, _memory(report.pytorch_peak_bytes))]


def _row(file: FileParity) -> tuple[str, ...]:
    delegate, agreement = file.description.delegate, file.agreement
    outside = sum(delegate.outside.values())
    count = "1 partition" if delegate.partitions == 1 else f"{delegate.partitions} partitions"
    partitions = f"{delegate.name}, {count}" if delegate.partitions else "-"
    return (
        file.name,
        file.description.precision,
        f"{file.file_bytes / 1000:.1f} kB",
        str(sum(delegate.operators.values())),
        partitions + (f", {outside} outside" if outside and delegate.partitions else ""),
        "identical" if agreement.psnr == math.inf else f"{agreement.psnr:.1f} dB, max {agreement.max_lsb:.2g} LSB",
        " / ".join(_percent(share) for share in agreement.distribution),
        f"{_tidy(file.loss)} dB",
        *([f"{file.latency.median:.2f} ms", f"{file.latency.p90:.2f} ms"] if file.latency else ["not run"] * 2),
        _memory(file.peak_bytes),
    )


def _memory(count: int | None) -> str:
    return "not measured" if count is None else f"{count / MEBIBYTE:.1f} MiB"


def print_report(report: ParityReport) -> None:
    """The table and one green or red verdict line per file, on standard output."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=LOG_WIDTH)
    rows = [HEADINGS, *table_rows(report)]
    if len(rows) <= FILES_ABREAST:
        rows = list(zip(*rows, strict=True))  # one column per file
    table = Table(*(Column(name, overflow="fold") for name in rows[0]))
    for row in rows[1:]:
        table.add_row(*row)
    console.print(table)
    height, width = report.pytorch.lr_size
    threads = report.pytorch.threads
    console.print(f"latency and memory: LR image of {width}x{height} pixels, {threads} thread(s), on this machine")
    for file in report.files:
        console.print(Text(file.verdict(), style="bold green" if file.passed else "bold red"), soft_wrap=True)


def _percent(share: float) -> str:
    """Never 100 % or 0 % of what is not all or nothing."""
    if share in (0, 1):
        return f"{share:.0%}"
    return "<0.01%" if share < 1e-4 else ">99.99%" if share > 0.9999 else f"{share:.2%}"


def _tidy(decibel: float) -> str:
    """Two decimals, without a minus before zero."""
    return f"{round(decibel, 2) + 0.0:.2f}"


def _plain(value: Any) -> Any:
    """Paths as text, and null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
