"""What the parity gate finds: figures and failures of every file on every engine; as JSON."""

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from export.metadata import INTEGER
from runtime.engines import BY_SUFFIX
from runtime.engines.base import Description
from runtime.latency import Latency
from runtime.parity.agreement import Agreement
from runtime.parity.limits import Limits


@dataclass(frozen=True, kw_only=True)
class SetLoss:
    """Quality against ground truth on one set, of the float student and of the file.

    Attributes:
        student, file: PSNR on Y in dB (see `compress.metrics.Protocol`).
        student_lpips, file_lpips: LPIPS, lower is closer; None where it was not computed.
    """

    name: str
    images: int
    student: float
    file: float
    student_lpips: float | None = None
    file_lpips: float | None = None

    @property
    def loss(self) -> float:
        """dB, student - file."""
        return 0.0 if self.student == self.file else self.student - self.file

    @property
    def lpips_change(self) -> float | None:
        """file - student."""
        if self.student_lpips is None or self.file_lpips is None:
            return None
        return self.file_lpips - self.student_lpips


@dataclass(frozen=True, kw_only=True)
class FileParity:
    """One file's result on one engine.

    Attributes:
        name: of the file; its path, where files of several folders have that name.
        engine: as it was asked for, such as 'litert' or 'adb:SERIAL'.
        description: what the file says about itself and what ran it.
        file_bytes: size on disk.
        limits: that hold for this file on this engine.
        agreement: with the PyTorch reference of the same precision.
        sets: quality on each benchmark set.
        latency: of preparing, running and reading back; None for a file that was only evaluated or emulated (see
            `Description.native`).
        peak_bytes: memory that one inference of that size takes; None where it cannot be measured (not Linux), or for a
            file that was only evaluated or emulated.
        failures: what is wrong, one sentence each: which figure misses which limit, what the file is not; empty for a
            file that passes.
        advice: what to look for, where figures miss their limits; None where nothing can be said.
        seconds: that judging it took.
    """

    name: str
    engine: str
    description: Description
    file_bytes: int
    limits: Limits
    agreement: Agreement
    sets: tuple[SetLoss, ...]
    latency: Latency | None
    peak_bytes: int | None
    failures: tuple[str, ...]
    advice: str | None = None
    seconds: float = 0.0

    @property
    def path(self) -> Path:
        return self.description.path

    @property
    def passed(self) -> bool:
        return not self.failures

    @property
    def loss(self) -> float:
        """dB on the worst set."""
        return max(one.loss for one in self.sets)

    @property
    def lpips_change(self) -> float | None:
        """On the worst set."""
        changes = [one.lpips_change for one in self.sets if one.lpips_change is not None]
        return max(changes) if changes else None

    def verdict(self) -> str:
        """One line for a person."""
        who = _who(self.name, self.path, self.engine)
        if self.failures:
            return f"{who}: FAIL  {'; '.join((*self.failures, *([self.advice] if self.advice else [])))}"
        a = self.agreement
        if self.description.precision in INTEGER:
            figures = f"max {a.max_lsb:.0f} LSB, {100 * a.identical:.2f}% identical"
        else:
            same = "identical" if a.psnr == math.inf else f"{a.psnr:.1f} dB"
            figures = f"{same} to the reference, max {a.max_lsb:.4f} LSB"
        how = "" if self.description.native else f" ({self.description.version})"
        return f"{who}: PASS  {figures}, loss {tidy(self.loss)} dB{how}"


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A file that could not be judged on an engine, which fails it: a foreign one, say.

    Attributes:
        name: as in `FileParity`.
        path, engine: as given.
        reason: one sentence.
    """

    name: str
    path: Path
    engine: str
    reason: str

    def verdict(self) -> str:
        """One line for a person."""
        return f"{_who(self.name, self.path, self.engine)}: FAIL  {self.reason.removesuffix('.')}"


@dataclass(frozen=True, kw_only=True)
class ParityReport:
    """All files' results against one student.

    Attributes:
        student: hash of the student.pt.
        limits: of files about which no more is said, of their format, precision or engine.
        files: that were judged, in the order given, every one on each of its engines.
        refused: that could not be judged.
        pytorch: latency of the float student in PyTorch, same image, same threads.
        pytorch_peak_bytes: its peak memory; None where it cannot be measured (not Linux).
        protocol: of the quality against ground truth.
        without_lpips: why LPIPS was not computed; None where it was.
    """

    student: str
    limits: Limits
    files: tuple[FileParity, ...]
    refused: tuple[Refusal, ...]
    pytorch: Latency
    pytorch_peak_bytes: int | None
    protocol: Mapping[str, Any]
    without_lpips: str | None

    @property
    def passed(self) -> bool:
        return not self.refused and all(file.passed for file in self.files)

    def to_json(self) -> str:
        """Everything, verdicts included; figures that are not finite (PSNR of identical images) become null."""
        plain = dataclasses.asdict(self)
        for row, file in zip(plain["files"], self.files, strict=True):
            derived = {"passed": file.passed, "loss": file.loss, "lpips_change": file.lpips_change}
            row |= derived | {"verdict": file.verdict()}
        return json.dumps(_plain({"passed": self.passed, **plain}), indent=1, allow_nan=False) + "\n"


def tidy(decibel: float) -> str:
    """Two decimals, without a minus before zero."""
    return f"{round(decibel, 2) + 0.0:.2f}"


def _who(name: str, path: Path, engine: str) -> str:
    """The file's name, and the engine where it is not the format's own."""
    return name if BY_SUFFIX.get(path.suffix.lower()) == engine else f"{name} on {engine}"


def _plain(value: Any) -> Any:
    """Paths as text, and null for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, Path):
        return str(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
