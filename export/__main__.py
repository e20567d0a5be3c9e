"""`python -m export student.pt`: a student in every format and precision, one folder with all that its users need."""

import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from compress.checkpoint import load_student, save_student
from compress.cli import command_line
from compress.errors import BadInput
from compress.progress import progress
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.exporting import (
    QUANTIZED,
    check_masks,
    refuse_integers,
    sizes_of,
)
from export.folder import MANIFEST, export_all, images_text
from export.formats import EVERY, FORMATS
from export.metadata import Precision
from export.order import parse_sizes
from export.sparse.report import Comparison, print_comparisons
from export.sparse.tflite import check_tensorflow


def main(
    student: Path,
    *,
    out: Path | None = None,
    formats: Sequence[str] = (),
    precisions: Sequence[Precision] = EVERY,
    size: str | None = None,
    calibration: str | None = None,
    sparse: bool = False,
    force: bool = False,
) -> None:
    """Exports a student to all formats and precisions, into one folder with manifest, golden vectors and model card.

    Args:
        student: student.pt, float or int8; a float one gives files of integers where --calibration is given.
        out: the folder; left out, the student's name with _export, beside it.
        formats: out of tflite, onnx, coreml, executorch and ncnn; left out, those that are installed.
        precisions: out of float32, float16, int8, int8-weights and int8-dynamic; every format has most of them.
        size: 'any', or sizes of the LR image as HEIGHTxWIDTH, several with commas between them; left out, any where the
            network allows it, else 64x64.
        calibration: folder of photographs, or 'skimage', to quantize a float student with.
        sparse: store the zeros of a student with 2:4, block or other masks sparse, in every format that can.
        force: replace an existing folder.
    """
    formats = formats or [name for name, one in FORMATS.items() if one.installed]
    if unknown := [name for name in formats if name not in FORMATS]:
        raise BadInput(f"expected formats out of {', '.join(FORMATS)}, found {unknown[0]!r}: correct the name.")
    for name in formats:
        FORMATS[name].require()
    given = load_student(student)
    sizes = sizes_of(given, parse_sizes(size) if size else None)
    if sparse:
        check_masks(given)
        if "tflite" in formats:
            check_tensorflow()
    target = out or student.with_name(f"{student.stem}_export")
    if target.exists() and not force:
        raise BadInput(
            f"expected a new folder, found that {target} exists: give another --out, or --force to replace it."
        )
    if target.exists() and not (target / MANIFEST).is_file():
        raise BadInput(
            f"expected a folder that this command wrote, found other things in {target}: give another --out."
        )
    with tempfile.TemporaryDirectory() as scratch:
        integers = student if given.quantization else None
        if not given.has_graph:
            for precision in precisions if tuple(precisions) != EVERY else ():  # asked for by name
                refuse_integers(given, precision)
            precisions = [one for one in precisions if one not in QUANTIZED]
        elif integers is None and calibration:
            integers = Path(scratch) / "student_int8.pt"
            save_student(quantize_student(given, calibration_crops(calibration, given.scale)), integers)
        chosen: list[Precision] = [one for one in precisions if integers or one not in QUANTIZED]
        if given.quantization:  # what its integers are, whichever that is
            chosen = [given.quantization.precision if one == "int8" else one for one in chosen]
        if not chosen:
            raise BadInput(
                f"expected an int8 student or photographs to calibrate on, found neither for {', '.join(precisions)}: add "
                "--calibration FOLDER."
            )
        total = sum(one in FORMATS[kind].precisions for kind in formats for one in chosen)
        done = 0
        with progress("export", total) as update:

            def count(name: str) -> None:
                nonlocal done
                done += 1
                update(done, name)

            rows = export_all(
                student, target, formats=formats, precisions=chosen, integer_student=integers, sizes=sizes,
                sparse=sparse,
                command=shlex.join(["python", "-m", "export", *sys.argv[1:]]), on_file=count,
            )  # fmt: skip
    table = Table("file", "precision", "kB", "operators", "images", title=str(target))
    for row in rows:
        table.add_row(
            row["file"], row["precision"], f"{row['bytes'] / 1000:.1f}", str(sum(row["operators"].values())),
            images_text(row["images"]),
        )  # fmt: skip
    Console(width=None if sys.stdout.isatty() else 110).print(table)
    if compared := [row["sparsity"] for row in rows if "sparsity" in row]:
        print_comparisons([Comparison(**one) for one in compared])
    judge = "student_int8.pt" if integers else "student.pt"
    files = " ".join(str(target / row["file"]) for row in rows)
    print(f"check them: python -m runtime.parity {target / judge} {files}")
    if len(chosen) < len(precisions):
        print(
            "int8 was left out: give an int8 student, or --calibration FOLDER with photographs like those the app will see"
        )


if __name__ == "__main__":
    command_line(main)
