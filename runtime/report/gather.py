"""Everything that a report shows, from a student, its files and the gate's result."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from compress.checkpoint import Student
from compress.data.benchmarks import Benchmark
from compress.evaluate import torch_upscaler
from compress.logbook import Logbook
from compress.teachers import Teacher
from runtime.latency import RUNS
from runtime.parity.results import ParityReport
from runtime.report.compared import compared
from runtime.report.data import Curve, ReportData
from runtime.report.provenance import protocol, provenance
from runtime.report.scenes import Painter, scenes


def gather(
    student: Student,
    parity: ParityReport,
    benchmarks: Sequence[Benchmark],
    *,
    command: str,
    teacher: Teacher | None = None,
    photo: Path | None = None,
    curves: Sequence[Curve] = (),
    summary: str | None = None,
    threads: int = 1,
    runs: int = RUNS,
    on_image: Callable[[str], object] = lambda name: None,
) -> ReportData:
    """Runs the first photographs of the benchmarks through everything, and times the files beside the zoo's yardstick.

    Args:
        student: that the gate judged by.
        parity: the gate's result.
        benchmarks: that the gate used.
        command: what was typed, for the provenance.
        teacher: to show beside the student.
        photo: a photograph to show besides, without ground truth.
        curves: of the training.
        summary: a sentence or two under the title; default: what the student is.
        threads: of the engines.
        runs: timed runs per file.
        on_image: called with the name of every finished photograph.

    Raises:
        BadInput: see `runtime.report.scenes.scenes`.
    """
    with Painter(student, parity, torch_upscaler(teacher.network) if teacher else None, threads) as painter:
        shown = scenes(painter, benchmarks, photo, on_image=on_image)
        comparison = compared(
            student.scale, parity, painter.engines, painter.names, benchmarks, painter.size, threads, runs=runs
        )
    verdict = "what ships is what was trained" if parity.passed else "not ready to ship"
    return ReportData(
        title=f"{student.architecture.capitalize()} x{student.scale}: {verdict}",
        summary=summary or _summary(student, len({*(f.path for f in parity.files), *(r.path for r in parity.refused)})),
        parity=parity,
        scenes=shown,
        comparison=comparison,
        curves=curves,
        provenance=provenance(dataclasses.replace(student, file_hash=parity.student), parity, command),
        protocol=protocol(parity),
    )


def _summary(student: Student, files: int) -> str:
    if student.has_graph:
        count = student.deploy().parameters_count()
    else:
        count = sum(one.numel() for one in student.network().parameters())
    return f"A student of {count:,} parameters in {files} exported file{'s' * (files > 1)}, held against PyTorch."


def curves_of(log: Path) -> list[Curve]:
    """Losses and validation PSNR of a run's log.csv; none where there is no such file."""
    book = Logbook(log, last_step=2**62)
    names = dict.fromkeys(name for row in book.rows for name in row)
    found = []
    for name in names:
        axis, _, rest = name.partition("_")
        if axis in ("loss", "psnr"):
            at, values = book.column(name)
            found.append(Curve(name=rest or "sum", axis=axis, steps=at, values=values))
    return found


def counter(update: Callable[[int, str], None]) -> Callable[[str], None]:
    """Turns names of finished images into a count for a progress bar."""
    seen: list[str] = []

    def count(name: str) -> None:
        seen.append(name)
        update(len(seen), name)

    return count
