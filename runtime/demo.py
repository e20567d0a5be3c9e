"""The whole way on this machine, in a few minutes: `python -m runtime.demo` (what `make demo` runs).

A student is distilled a little further, quantized, exported, audited, held against PyTorch on photographs that took no
part in any of it, and used on one of them; a report shows everything.
"""

import dataclasses
from pathlib import Path

from compress.checkpoint import load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, open_benchmark
from compress.logbook import save_strip
from compress.progress import progress
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from compress.recipe import Recipe, read_recipe
from compress.teachers import load_teacher
from compress.train import train
from export.onnx import export_onnx
from export.tflite import TfliteFile, export_tflite
from runtime.parity.gate import check
from runtime.parity.quality import backbone_here
from runtime.parity.verdict import print_report
from runtime.report.gather import counter, curves_of, gather
from runtime.report.page import write_report
from runtime.upscale.single import save_image, upscale_photo

RECIPE = Path("recipes/demo.yaml")


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
    other = export_onnx(quantized, out / "int8.onnx", "int8")
    print(f"  {other.path}: {other.file_bytes / 1000:.1f} kB")
    paths = [file.path for file in (*written, other)]
    benchmark = open_benchmark(BUILT_IN, student.scale)
    backbone, without = backbone_here()
    with progress("parity", len(benchmark)) as update:
        parity = check(
            quantized, paths, [benchmark], lpips=backbone, without_lpips=without, threads=threads,
            on_image=counter(update),
        )  # fmt: skip
    print("upscaling a photograph")
    _, lr, _ = next(iter(benchmark))
    save_image(lr, out / "photo_lr.png")
    upscale_photo(out / "photo_lr.png", out / "int8.tflite", out / "photo_sr.png")
    shown = gather(
        quantized,
        parity,
        [benchmark],
        command=f"python -m runtime.demo --recipe {recipe} --steps {plan.schedule.steps}",
        teacher=load_teacher(plan.teacher, student.scale) if plan.teacher else None,
        curves=curves_of(plan.out / "log.csv"),
        summary=(
            f"A student of {student.deploy().parameters_count():,} parameters, distilled for {plan.schedule.steps} more "
            "steps, quantized after training, exported to TFLite and ONNX, and held against PyTorch on photographs that took "
            "no part in training or calibration."
        ),
        threads=threads,
    )
    write_report(out / "report.html", shown)
    strip = [picture for picture in reversed(shown.scenes[0].pictures) if picture.kind != "teacher"]
    save_strip(out / "strip.png", {picture.name: picture.image for picture in strip})
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


if __name__ == "__main__":
    command_line(main, contained=True)
