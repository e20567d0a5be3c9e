"""What the exporters' commands are asked to write: read, checked, and quantized as far as needed."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.exporting import QUANTIZED, check_masks, check_precision, refuse_integers
from export.metadata import INTEGER, Precision, Sizes


@dataclass(frozen=True)
class Order:
    """What a command was asked to write: a student, checked and quantized as far as needed, and where to."""

    student: Student
    precision: Precision
    target: Path


def take_order(
    path: Path,
    *,
    precision: Precision | None,
    known: Sequence[Precision],
    out: Path | None,
    suffix: str,
    calibration: str | None,
    force: bool,
    sparse: bool = False,
    reasons: Mapping[str, str] | None = None,
) -> Order:
    """Reads what an exporter's command was given. Writes only the int8 student, where a float one had to be calibrated.

    Args:
        path: of the student.pt.
        precision: None is that of the student.
        known: precisions that the format has.
        out: the file to write; None is the student's name with the precision, beside it.
        suffix: of the format, such as '.tflite'.
        calibration: folder of photographs, or 'skimage', for a float student in one of `QUANTIZED`.
        force: replace files that exist.
        sparse: the student must have masks.
        reasons: why the format lacks a precision.

    Raises:
        BadInput: anything of this that does not fit together; nothing is written then.
    """
    student = load_student(path)
    if sparse:
        check_masks(student)
    chosen: Precision = precision or (student.quantization.precision if student.quantization else "float32")
    if chosen not in known:
        advice = (reasons or {}).get(chosen, "choose one")
        raise BadInput(f"expected a precision out of {', '.join(known)} for {suffix}, found {chosen!r}: {advice}.")
    refuse_integers(student, chosen)
    if student.quantization:
        check_precision(student.quantization, chosen)
    elif chosen == "mixed":
        raise BadInput(
            f"expected a student with a mix of arithmetics for 'mixed', found a float one in {path}: make it with "
            "`python -m compress.quantization --budget 0.05`."
        )
    target = out or path.with_name(f"{_bare(path.stem)}_{chosen}{suffix}")
    if target.suffix != suffix:
        raise BadInput(f"expected --out to end in {suffix}, found {target}: rename it.")
    quantized = target.with_name(f"{_bare(target.stem.removesuffix(f'_{chosen}'))}_{_storage(chosen)}.pt")
    quantizes = chosen in QUANTIZED and student.quantization is None
    for file in (target, quantized) if quantizes else (target,):
        if file.exists() and not force:
            raise BadInput(
                f"expected a new file, found that {file} exists: give another --out, or --force to replace it."
            )
    if quantizes:
        student = _quantized(student, path, calibration, quantized, chosen)
    return Order(student, chosen, target)


def _bare(stem: str) -> str:
    """A student's name without the precision of its integers."""
    for precision in INTEGER:
        stem = stem.removesuffix(f"_{precision}")
    return stem


def _storage(precision: Precision) -> str:
    return "int16x8" if precision == "int16x8" else "int8"


def _quantized(student: Student, path: Path, calibration: str | None, target: Path, precision: Precision) -> Student:
    if calibration is None:
        raise BadInput(
            f"expected photographs to calibrate {path} on, found none: add --calibration FOLDER with 100 or more "
            "photographs like those the app will see, or --calibration skimage to try it out."
        )
    quantized = quantize_student(
        student,
        calibration_crops(calibration, student.scale),
        arithmetic="int16" if precision == "int16x8" else "int8",
    )
    quantized = dataclasses.replace(quantized, file_hash=save_student(quantized, target))
    print(f"wrote {target}: the {_storage(precision)} student that the file is checked against")
    return quantized


def parse_sizes(text: str) -> Sizes:
    """'any', '64x64' or '64x64,128x96' (HEIGHTxWIDTH of LR images) as metadata has it. Raises BadInput for anything else."""
    if text == "any":
        return "any"
    sizes = [re.fullmatch(r"(\d+)x(\d+)", one.strip()) for one in text.split(",")]
    found = [[int(match[1]), int(match[2])] for match in sizes if match]
    if len(found) < len(sizes):
        raise BadInput(f"expected a size like 64x64, found {text!r}: give HEIGHTxWIDTH of the LR image.")
    if any(min(size) < 1 for size in found):
        raise BadInput(f"expected a positive LR size, found {text}: use for example 64x64.")
    return found
