"""The gate: does a file compute what the trained student computes? `python -m runtime.parity student.pt FILE...`

Every file runs on real photographs, and its output is held against the PyTorch reference of the same precision:
integers against integers, floats against floats. What it costs in quality is counted against the float student.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from compress import files, metrics
from compress.checkpoint import Student, load_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, Benchmark, open_benchmark
from compress.errors import BadInput
from compress.progress import progress
from export.exporting import QUANTIZED, check_precision, reference_network
from export.metadata import INTEGER
from runtime.crops import common_size, crops
from runtime.engines import open_model
from runtime.engines.base import Engine, Raw, to_pixels, to_real
from runtime.engines.pytorch import PytorchEngine
from runtime.latency import RUNS, measure_latency
from runtime.verdict import Agreement, FileParity, Limits, ParityReport, SetLoss, print_report

LSB = 1 / 255
APART = 4  # 0, 1, 2, or more LSB


def check(
    student: Student,
    paths: Sequence[Path],
    benchmarks: Sequence[Benchmark],
    limits: Limits | None = None,
    *,
    threads: int = 1,
    runs: int = RUNS,
    on_image: Callable[[str], object] = lambda name: None,
) -> ParityReport:
    """Holds exported files against the student that they came from.

    Args:
        student: from `load_student`; an int8 student judges int8 files by its integers, files of int8 weights by those
            weights, of dynamic range by `DynamicStudent`, and float files by its float network; a float student judges
            float files only.
        paths: of the files.
        benchmarks: at the student's scale, each with at least one image.
        limits: default: `Limits()`.
        threads: of every engine.
        runs: timed runs per file.
        on_image: called with the name of every finished image.

    Raises:
        BadInput: a file that cannot be run, has no metadata, another scale, or is int8 where the student is float.
    """
    if student.file_hash is None:
        raise BadInput("expected a student.pt that was saved, found a student without a file: save and load it first.")
    limits = limits or Limits()
    engines = [open_model(path, threads=threads) for path in paths]
    for engine in engines:
        _check_fits(engine, student)
    floats = dataclasses.replace(student, quantization=None)
    float_engine = PytorchEngine(floats, threads=threads)
    references = {"float32": float_engine, "float16": float_engine}
    for precision in {engine.metadata.precision for engine in engines} - set(references):
        owner = student if precision in INTEGER else floats
        references[precision] = PytorchEngine(owner, threads=threads, network=reference_network(student, precision))
    size = common_size(engines)
    tallies = [_Tally() for _ in engines]
    quality: list[list[SetLoss]] = [[] for _ in engines]
    timed = None
    for benchmark in benchmarks:
        wanted: list[float] = []
        found: list[list[float]] = [[] for _ in engines]
        for name, lr, hr in crops(benchmark, size):
            timed = lr if timed is None else timed
            expected = {id(one): one.upscale(lr) for one in references.values()}
            wanted.append(metrics.psnr(expected[id(float_engine)].image, hr, student.scale))
            for engine, tally, row in zip(engines, tallies, found, strict=True):
                result = engine.upscale(lr)
                reference = expected[id(references[engine.metadata.precision])]
                # a float file that gives pictures is held against rounded values, too
                tally.add(result.raw, reference.image if result.raw.dtype == np.uint8 else reference.raw)
                row.append(metrics.psnr(result.image, hr, student.scale))
            on_image(name)
        for row, losses in zip(found, quality, strict=True):
            losses.append(_set_loss(benchmark, wanted, row))
    if timed is None:
        raise BadInput("expected at least one benchmark image, found none: name a set with --sets or --images.")
    native = [engine for engine in engines if engine.describe().native]
    pytorch, *measured = measure_latency([float_engine, *native], timed, runs=runs)
    latencies = {id(engine): latency for engine, latency in zip(native, measured, strict=True)}
    results = []
    for engine, tally, sets in zip(engines, tallies, quality, strict=True):
        result = FileParity(
            description=engine.describe(),
            file_bytes=engine.file_bytes(),
            agreement=tally.agreement(),
            sets=tuple(sets),
            latency=latencies.get(id(engine)),
            peak_bytes=engine.peak_memory(timed.shape[0], timed.shape[1]),
            failures=(),
        )
        results.append(dataclasses.replace(result, failures=tuple(_failures(result, student, limits))))
    protocol = dataclasses.asdict(metrics.Protocol(lr=benchmarks[0].lr))
    if size:
        protocol["crop"] = f"{size[1]}x{size[0]} LR pixels in the middle"
    return ParityReport(
        student=student.file_hash,
        limits=limits,
        files=tuple(results),
        pytorch=pytorch,
        pytorch_peak_bytes=float_engine.peak_memory(timed.shape[0], timed.shape[1]),
        protocol=protocol,
    )


class _Tally:
    """Counts differences image by image."""

    def __init__(self) -> None:
        self.values = self.within = 0
        self.apart = np.zeros(APART, np.int64)
        self.largest, self.worst = 0.0, math.inf

    def add(self, found: Raw, expected: Raw) -> None:
        difference = np.abs(to_real(found) - to_real(expected)) / LSB
        self.values += difference.size
        self.within += int(np.count_nonzero(difference <= 1 + 1e-6))
        pixels = np.abs(to_pixels(found).astype(np.int16) - to_pixels(expected))
        self.apart += np.bincount(np.minimum(pixels, APART - 1).ravel(), minlength=APART)
        self.largest = float(np.maximum(self.largest, difference.max()))  # keeps nan, unlike max()
        error = float(np.mean(difference**2))
        psnr = math.inf if error == 0 else 10 * math.log10(255**2 / error)
        self.worst = float(np.minimum(self.worst, psnr))

    def agreement(self) -> Agreement:
        shares = tuple(float(count) / self.values for count in self.apart)
        return Agreement(
            max_lsb=self.largest, within=self.within / self.values, identical=shares[0], distribution=shares,
            psnr=self.worst,
        )  # fmt: skip


def _set_loss(benchmark: Benchmark, student: list[float], file: list[float]) -> SetLoss:
    return SetLoss(name=benchmark.name, images=len(file), student=metrics.mean(student), file=metrics.mean(file))


def _check_fits(engine: Engine, student: Student) -> None:
    """Raises BadInput for a file that cannot be compared with the student at all."""
    if engine.scale != student.scale:
        raise BadInput(
            f"expected a file of the student's scale x{student.scale}, found x{engine.scale} in {engine.path}: "
            "give the student.pt that it was exported from."
        )
    if engine.metadata.precision in QUANTIZED and student.quantization is None:
        raise BadInput(
            f"expected the int8 student of the int8 file {engine.path}, found a float student: give the int8 "
            "student.pt that the export wrote beside the file."
        )
    if student.quantization:
        check_precision(student.quantization, engine.metadata.precision)


def _failures(result: FileParity, student: Student, limits: Limits) -> list[str]:
    """The limits that a file misses. Written so that nan misses."""
    failures, agreement, metadata = [], result.agreement, result.description.metadata
    made_from = {student.file_hash}
    if metadata.precision not in QUANTIZED:
        made_from.add(student.provenance.get("float_student_sha256"))
    if metadata.student_sha256 not in made_from:
        failures.append(
            f"stale: made from another student ({metadata.student_sha256[:12]}, the one given is "
            f"{str(student.file_hash)[:12]}): export it again"
        )
    if metadata.precision in INTEGER:
        most = limits.int8_real_lsb if result.description.engine == "coreml" else limits.int8_lsb
        if not agreement.max_lsb <= most:
            failures.append(f"largest difference {agreement.max_lsb:.2f} LSB, limit {most:g} LSB")
        if not agreement.within >= limits.int8_within:
            failures.append(f"{agreement.within:.2%} of values within 1 LSB, limit {limits.int8_within:.2%}")
    elif not agreement.psnr >= limits.float_psnr:
        failures.append(f"PSNR against the reference {agreement.psnr:.2f} dB, limit {limits.float_psnr:g} dB")
    for one in result.sets:
        if not one.loss <= limits.loss:
            failures.append(f"loss on {one.name} {one.loss:.3f} dB, limit {limits.loss:g} dB")
    return failures


def main(
    student: Path,
    paths: list[Path],
    *,
    sets: Sequence[str] = (),
    data: Path | None = None,
    images: Path | None = None,
    json: Path | None = None,
    threads: int = 1,
    float_psnr: float = Limits.float_psnr,
    int8_lsb: float = Limits.int8_lsb,
    int8_real_lsb: float = Limits.int8_real_lsb,
    int8_within: float = Limits.int8_within,
    loss: float = Limits.loss,
) -> int:
    """Holds exported files against the student that they came from. Exits with 0 for pass, 1 for fail, 2 for bad input.

    Args:
        student: the student.pt; for int8 files the int8 one, which judges float files of the same student as well.
        paths: exported files.
        sets: benchmark sets below the data folder; default: 'skimage', photographs that are held out from training.
        data: folder of benchmark sets; default: the environment's POCKETSR_DATA, else data/eval.
        images: folder of HR photographs of yours to compare on.
        json: file for all figures.
        threads: of every engine.
        float_psnr: least PSNR in dB between a float file and the reference.
        int8_lsb: largest difference of an int8 file, in LSB.
        int8_real_lsb: the same for Core ML, which computes with real numbers between quantizers.
        int8_within: least share of an int8 file's values within 1 LSB.
        loss: largest loss in dB against ground truth.
    """
    loaded = load_student(student)
    names = [*sets, *([str(images)] if images else [])] or [BUILT_IN]
    benchmarks = [open_benchmark(name, loaded.scale, data) for name in names]
    limits = Limits(
        float_psnr=float_psnr, int8_lsb=int8_lsb, int8_real_lsb=int8_real_lsb, int8_within=int8_within, loss=loss
    )
    total, done = sum(map(len, benchmarks)), 0
    with progress("parity", total) as update:

        def count(name: str) -> None:
            nonlocal done
            done += 1
            update(done, name)

        report = check(loaded, paths, benchmarks, limits, threads=threads, on_image=count)
    print_report(report)
    if json:
        files.write_text(json, report.to_json())
    return 0 if report.passed else 1


if __name__ == "__main__":
    command_line(main)
