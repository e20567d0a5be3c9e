"""Runs exported files on real photographs, and holds them against the student that they came from."""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from compress import metrics
from compress.checkpoint import Student
from compress.data.benchmarks import Benchmark
from compress.errors import BadInput
from runtime.engines.base import Image
from runtime.latency import RUNS, Latency, measure_latency
from runtime.names import told_apart
from runtime.parity.case import Case
from runtime.parity.crops import Size, common_size, crops
from runtime.parity.limits import Limits, Policy, limits_for
from runtime.parity.quality import Distance, Scores, set_loss
from runtime.parity.references import References
from runtime.parity.results import ParityReport, Refusal
from runtime.selection import choose


def check(
    student: Student,
    paths: Sequence[Path],
    benchmarks: Sequence[Benchmark],
    limits: Limits | Sequence[Policy] | None = None,
    *,
    engines: Sequence[str] = (),
    lpips: metrics.Backbone | None = None,
    without_lpips: str = "not asked for",
    threads: int = 1,
    runs: int = RUNS,
    memory: bool = True,
    on_image: Callable[[str], object] = lambda name: None,
) -> ParityReport:
    """Holds exported files against the student that they came from.

    A file that cannot be judged (without our metadata, of another scale, range or precision than the student can judge,
    or one that its engine refuses) fails with a sentence, and the others are judged all the same.

    Args:
        student: from `load_student`; an int8 student judges int8 files by its integers, files of int8 weights by those
            weights, of dynamic range by `DynamicStudent`, and float files by its float network; a float student judges
            float files only.
        paths: of the files.
        benchmarks: at the student's scale, each with at least one image.
        limits: over those that are built in, each of a sequence over the last; plain `Limits` are for every file.
        engines: names for `runtime.engines.open_model`: a file runs on each that takes it; default: on its format's own.
        lpips: backbone of LPIPS; None leaves it out.
        without_lpips: why it is left out.
        threads: of every engine.
        runs: timed runs per file.
        memory: measure peak memory, in a fresh process for every file.
        on_image: called with the name of every finished image.

    Raises:
        BadInput: a student that was not saved, no image, no file, nothing at a path, an engine that is unknown, not
            installed or takes none of the files, files of fixed sizes that have none in common, or a limit on LPIPS
            without LPIPS.
    """
    if student.file_hash is None:
        raise BadInput("expected a student.pt that was saved, found a student without a file: save and load it first.")
    policies = [Policy(every=limits)] if isinstance(limits, Limits) else limits or ()
    distance = metrics.lpips_metric(lpips) if lpips else None
    references = References(student, threads)
    chosen = choose(list(paths), engines)
    names = told_apart(one.path for one in chosen)
    cases = [Case(one, names[one.path], policies) for one in chosen]
    with contextlib.ExitStack() as opened:
        for case in cases:
            opened.callback(case.close)
            case.attempt(lambda case=case: case.open(references, threads))
            if lpips is None and case.limits.lpips_change is not None:
                raise BadInput(
                    f"expected LPIPS for the limit on lpips_change, found that it is not computed ({without_lpips}): name "
                    "a backbone with --lpips, or leave the limit out."
                )
        size = common_size([case.model for case in cases if case.model])
        seen = [_see(cases, references, benchmark, size, distance, on_image) for benchmark in benchmarks]
        if not any(image is not None for image in seen):
            raise BadInput("expected at least one benchmark image, found none: name a set with --sets or --images.")
        timed = next(image for image in seen if image is not None)
        pytorch = _time(cases, references, timed, runs)
        peak = references.engine.peak_memory(timed.shape[0], timed.shape[1]) if memory else None
        for case in cases:
            case.attempt(lambda case=case: case.conclude(references, timed, pytorch, peak, memory=memory))
    protocol = dataclasses.asdict(
        metrics.Protocol(lr=benchmarks[0].lr, lpips=f"lpips v0.1, {lpips}, whole images" if lpips else None)
    )
    if len({one.lr for one in benchmarks}) > 1:
        protocol["lr"] = ", ".join(f"{one.name} by {one.lr}" for one in benchmarks)
    if size:
        protocol["crop"] = f"{size[1]}x{size[0]} LR pixels in the middle"
    return ParityReport(
        student=student.file_hash,
        limits=limits_for("", "", "", *policies),
        files=tuple(case.result for case in cases if case.result),
        refused=tuple(
            Refusal(name=c.name, path=c.path, engine=c.engine, reason=c.reason) for c in cases if c.reason is not None
        ),
        pytorch=pytorch,
        pytorch_peak_bytes=peak,
        protocol=protocol,
        without_lpips=None if lpips else without_lpips,
    )


def _see(
    cases: Sequence[Case],
    references: References,
    benchmark: Benchmark,
    size: Size | None,
    distance: Distance | None,
    on_image: Callable[[str], object],
) -> Image | None:
    """Shows every file all images of a set, and returns the first of them."""
    first = None
    scores, found = Scores(distance, benchmark.scale), [Scores(distance, benchmark.scale) for _ in cases]
    for name, lr, hr in crops(benchmark, size):
        first = lr if first is None else first
        references.upscale(lr)
        scores.add(references.floating, hr)
        for case, mine in zip(cases, found, strict=True):
            case.attempt(lambda case=case, mine=mine, lr=lr, hr=hr: case.see(lr, hr, references, mine))
        on_image(name)
    for case, mine in zip(cases, found, strict=True):
        if case.model and mine.psnr:
            case.sets.append(set_loss(benchmark, scores, mine))
    return first


def _time(cases: Sequence[Case], references: References, lr: Image, runs: int) -> Latency:
    """Gives every file that runs natively its latency, and returns that of the float student in PyTorch."""
    while True:
        native = [case for case in cases if case.model and case.model.describe().native]
        try:
            pytorch, *measured = measure_latency(
                [references.engine, *(c.model for c in native if c.model)], lr, runs=runs
            )
        except BadInput:
            if all([case.attempt(lambda case=case: case.model and case.model.upscale(lr)) for case in native]):
                raise  # not because of any file
            continue
        for case, latency in zip(native, measured, strict=True):
            case.latency = latency
        return pytorch
