"""The page's files among the zoo's and published networks: quality against size and latency."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from compress import metrics
from compress.data.benchmarks import Benchmark
from compress.evaluate import bicubic_upscaler
from export.metadata import INTEGER
from runtime.engines import DEVICES
from runtime.engines.base import Engine
from runtime.latency import RUNS, measure_latency
from runtime.parity.crops import Size, crops
from runtime.parity.results import ParityReport
from runtime.report.data import Comparison, Point
from runtime.report.figures import Figures, read_figures
from runtime.report.yardstick import SIDE, yardstick


def compared(
    scale: int,
    parity: ParityReport,
    engines: Sequence[Engine],
    names: Sequence[str],
    benchmarks: Sequence[Benchmark],
    size: Size | None,
    threads: int,
    *,
    runs: int = RUNS,
) -> Comparison:
    """Points of the page's files, and of those of `runtime.report.figures` that were judged as these were.

    Files are timed with the yardstick in alternation, and the latencies of the zoo and of published networks are what
    they were over the yardstick's, times the yardstick's here. They are left out where files take one size only, since
    PSNR is of crops then, and their latencies with several threads, since theirs are of one. Files on
    devices have no latency here: it is another machine's.

    Args:
        scale: of the student.
        parity: what the gate said.
        engines: of its files, in order, as `names` are.
        benchmarks: that it used.
        size: of the LR images that all files take; None for any.
        threads: of the engines.
        runs: timed runs per file.
    """
    known = None if size else read_figures(scale)
    sets = [one.name for one in benchmarks]
    shared = next((name for name in sets if known and any(name in row.psnr for row in known.rows)), None)
    name = shared or sets[0]
    benchmark = next(one for one in benchmarks if one.name == name)
    side = min([SIDE, *(engine.metadata.largest or SIDE for engine in engines)])
    lr_size = size or (side, side)
    stick = yardstick(scale, threads)
    here = [
        engine for engine, file in zip(engines, parity.files, strict=True)
        if file.description.native and file.engine.partition(":")[0] not in DEVICES
    ]  # fmt: skip
    lr = np.random.default_rng(0).integers(0, 256, (*lr_size, 3), np.uint8)
    of_stick, *measured = measure_latency([stick, *here], lr, runs=runs)
    milliseconds = {id(engine): latency.median for engine, latency in zip(here, measured, strict=True)}
    points = [
        Point(
            name=label, group="here", integer=file.description.precision in INTEGER, file_bytes=file.file_bytes,
            milliseconds=milliseconds.get(id(engine)),
            psnr=next(one.file for one in file.sets if one.name == name),
        )
        for label, engine, file in zip(names, engines, parity.files, strict=True)
    ]  # fmt: skip
    note = ""
    if known and shared:
        rescaled = of_stick.median if threads == 1 and side == SIDE else None
        shown = {Path(label).stem for label in names}  # a file of the zoo is measured here, and not shown twice
        points += [one for one in _known_points(known, name, rescaled) if one.group == "peer" or one.name not in shown]
        note = _note(known, rescaled)
    bicubic = bicubic_upscaler(scale)
    floor = metrics.mean(metrics.psnr(bicubic(lr), hr, scale) for _, lr, hr in crops(benchmark, size))
    return Comparison(set_name=name, points=tuple(points), bicubic=floor, lr_size=lr_size, threads=threads, note=note)


def _known_points(known: Figures, name: str, stick: float | None) -> list[Point]:
    return [
        Point(
            name=row.name, group=row.group, integer=row.precision in INTEGER, file_bytes=row.file_bytes,
            milliseconds=None if stick is None else row.ratio * stick, psnr=row.psnr[name],
        )
        for row in known.rows if name in row.psnr
    ]  # fmt: skip


def _note(known: Figures, stick: float | None) -> str:
    words = "Filled points are files of this page, hollow ones .tflite files of the zoo and of published networks"
    if stick is None:
        return f"{words}, whose latencies are not shown: they were measured on one thread."
    return (
        f"{words}. Those were timed on another machine ({known.machine}, {known.made}) and are brought here by the latency "
        f"of one small float network in PyTorch that both runs timed ({stick:.1f} ms here): a guess at what they would take "
        "on this machine, not a measurement."
    )
