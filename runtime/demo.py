"""The whole way on this machine, in a few minutes: `python -m runtime.demo` (what `make demo` runs).

A student is distilled a little further, quantized, exported, audited, held against PyTorch on photographs that took no
part in any of it, and used on one of them; a report shows everything.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from compress import metrics
from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, Benchmark, open_benchmark
from compress.data.bicubic import imresize
from compress.evaluate import torch_upscaler
from compress.logbook import Logbook, save_strip
from compress.progress import progress
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from compress.recipe import Recipe, read_recipe
from compress.run import versions
from compress.teachers import load_teacher
from compress.train import train
from export.tflite import PRODUCERS, TfliteFile, export_tflite
from runtime.engines import open_model
from runtime.engines.base import Image
from runtime.figures import Curve
from runtime.parity import check
from runtime.photograph import read_photograph
from runtime.report import Picture, ReportData, write_report
from runtime.upscale import save_image, upscale_photo
from runtime.verdict import ParityReport, print_report

RECIPE = Path("recipes/demo.yaml")
INT8 = "student, int8"


def main(*, out: Path = Path("runs/demo"), steps: int | None = None, recipe: Path = RECIPE, threads: int = 1) -> int:
    """Distils, quantizes, exports, checks and shows a student. Exits with 1 if a file fails the parity gate.

    Args:
        out: folder for the student, the files, the pictures and the report.
        steps: of the distillation; default: the recipe's. A finished distillation is not repeated.
        recipe: of the distillation, with a teacher.
        threads: of the engines that are timed.
    """
    plan = demo_recipe(recipe, out, steps)
    print(f"distilling {plan.model.start or plan.model.architecture} for {plan.schedule.steps} steps ({recipe})")
    student = train(plan)
    print("quantizing on training photographs")
    quantized = quantize_student(student, calibration_crops(plan.data.folder, student.scale))
    save_student(quantized, out / "student_int8.pt")
    quantized = load_student(out / "student_int8.pt")
    print("exporting")
    written = [
        export_tflite(student, out / "float32.tflite", "float32"),
        export_tflite(quantized, out / "int8.tflite", "int8"),
    ]
    for file in written:
        print(audited(file))
    benchmark = open_benchmark(BUILT_IN, student.scale)
    with progress("parity", len(benchmark)) as update:
        parity = check(quantized, [f.path for f in written], [benchmark], threads=threads, on_image=counter(update))
    print("upscaling a photograph")
    data = report_data(plan, recipe, student, parity, benchmark, written, out)
    write_report(out / "report.html", data)
    shown = [picture for picture in reversed(data.pictures) if picture.name not in ("nearest neighbour", "teacher")]
    save_strip(out / "strip.png", {picture.name: picture.image for picture in shown})
    print_report(parity)
    print(f"photograph: {out / 'photo_lr.png'} -> {out / 'photo_sr.png'}")
    print(f"report:     {out / 'report.html'}")
    return 0 if parity.passed else 1


def demo_recipe(path: Path, out: Path, steps: int | None) -> Recipe:
    """The recipe with its run below `out`, shortened to `steps`. Raises BadInput for an unusable recipe."""
    recipe = read_recipe(path)
    schedule, validation = recipe.schedule, recipe.validation
    if steps is not None:
        schedule = dataclasses.replace(schedule, steps=steps, warmup=min(schedule.warmup, steps // 10))
        validation = dataclasses.replace(validation, every=max(1, min(validation.every, steps // 3)))
    folder = out / f"train_{schedule.steps}"  # a run of other length is another run, not the same one resumed
    return dataclasses.replace(recipe, schedule=schedule, validation=validation, out=folder)


def audited(file: TfliteFile) -> str:
    """One line on what the audit found in a written file; the export has refused any with faults."""
    audit = file.audit
    operators = ", ".join(f"{count} {kind}" for kind, count in audit.operators.items())
    return f"  {file.path}: {audit.file_bytes / 1000:.1f} kB; {operators}; XNNPACK partitions: {audit.partitions}"


def counter(update: Callable[[int, str], None]) -> Callable[[str], None]:
    """Turns names of finished images into a count for a progress bar."""
    seen: list[str] = []

    def count(name: str) -> None:
        seen.append(name)
        update(len(seen), name)

    return count


def report_data(
    plan: Recipe,
    recipe: Path,
    student: Student,
    parity: ParityReport,
    benchmark: Benchmark,
    written: Sequence[TfliteFile],
    out: Path,
) -> ReportData:
    """Runs the first photograph of the benchmark through everything and gathers what the report shows."""
    name, lr, hr = next(iter(benchmark))
    save_image(lr, out / "photo_lr.png")
    upscale_photo(out / "photo_lr.png", written[1].path, out / "photo_sr.png")
    integer = read_photograph(out / "photo_sr.png").rgb
    floating = open_model(written[0].path).upscale(lr).image

    def picture(title: str, image: Image) -> Picture:
        return Picture(name=title, image=image, psnr=metrics.psnr(image, hr, student.scale))

    enlarged = np.repeat(np.repeat(lr, student.scale, axis=0), student.scale, axis=1)
    pictures = [
        picture("bicubic", imresize(lr, student.scale)),
        picture("nearest neighbour", enlarged),
        picture(INT8, integer),
        picture("student, float32", floating),
    ]
    if plan.teacher:
        teacher = load_teacher(plan.teacher, student.scale)
        pictures.append(picture("teacher", torch_upscaler(teacher.network)(lr)))
    pictures.append(Picture(name="ground truth", image=hr))
    return ReportData(
        title=f"{student.architecture.capitalize()} x{student.scale}: what ships is what was trained",
        summary=(
            f"A student of {student.deploy().parameters_count():,} parameters, distilled for {plan.schedule.steps} more "
            "steps, quantized after training, exported to TFLite, and held against PyTorch on photographs that took "
            "no part in training or calibration."
        ),
        parity=parity,
        photograph=f"Photograph: {name}, held out",
        pictures=pictures,
        opposite=INT8,
        floating=floating,
        integer=integer,
        curves=curves(plan.out / "log.csv", plan.schedule.steps),
        provenance=provenance(plan, recipe, student, parity),
        protocol=protocol(parity),
    )


def curves(log: Path, steps: int) -> list[Curve]:
    """Losses and validation PSNR of a run's log."""
    book = Logbook(log, steps)
    names = dict.fromkeys(name for row in book.rows for name in row)
    found = []
    for name in names:
        axis, _, rest = name.partition("_")
        if axis in ("loss", "psnr"):
            at, values = book.column(name)
            found.append(Curve(name=rest or "sum", axis=axis, steps=at, values=values))
    return found


def provenance(plan: Recipe, recipe: Path, student: Student, parity: ParityReport) -> dict[str, str]:
    """What was made from what, for the report."""
    origin, calibration = student.provenance, parity.files[-1].description.metadata.calibration or {}
    data = origin["data"]
    teacher = origin["teacher"]
    producer = parity.files[-1].description.metadata.producer
    programs = {**versions(), **{name: producer[name] for name in PRODUCERS}}
    return {
        "float student": student.file_hash or "",
        "int8 student": parity.student,
        "recipe": str(recipe),
        "start": str(plan.model.start or "random weights"),
        "teacher": teacher["description"] if teacher else "none",
        "training images": f"{data['images']} of {data['source']}, manifest {data['manifest_sha256'][:16]}",
        "calibration": f"{calibration['crops']} crops of {calibration['images']} images of {calibration['source']}, "
        f"ranges by {calibration['range']}, pixels {calibration['sha256'][:16]}",
        "versions": ", ".join(f"{name} {version}" for name, version in programs.items()),
        "engine": parity.files[-1].description.version,
    }


def protocol(parity: ParityReport) -> list[str]:
    """How the figures came about, in words."""
    limits, found = parity.limits, parity.protocol
    return [
        f"Against the reference: the raw output of each file on {parity.files[0].sets[0].images} held-out photographs; "
        "int8 files against the integer arithmetic of the int8 student, float files against the float network.",
        f"A float file passes from {limits.float_psnr:g} dB (R, G and B, worst photograph); an int8 file with no value "
        f"more than {limits.int8_lsb:g} LSB off and {limits.int8_within:.0%} within 1 LSB; either may lose "
        f"{limits.loss:g} dB at most against the float student.",
        f"Quality against ground truth: PSNR on {found['colour']}; {found['rounding']}; a border of {found['border']} "
        f"pixels left out; {found['psnr']}.",
        "LR images: "
        + ("the set's own files." if found["lr"] == "files" else "MATLAB's bicubic imresize of the photographs."),
        f"Latency: the network alone, median and 90th percentile of {parity.pytorch.runs} runs after a warm-up, models "
        "taking turns in one process. Peak memory: growth of the resident set of a fresh process over opening, "
        "allocating and one run.",
    ]


if __name__ == "__main__":
    command_line(main, contained=True)
