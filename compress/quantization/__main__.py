"""`python -m compress.quantization student.pt --out student_int8.pt`."""

from pathlib import Path

from compress.checkpoint import load_student, save_student
from compress.cli import command_line
from compress.quantization.calibration import CROPS, calibration_crops
from compress.quantization.observers import RangeRule
from compress.quantization.ptq import quantize_student


def main(
    student: Path, *, out: Path, calibration: str = "skimage", rule: RangeRule = "mse", crops: int = CROPS
) -> None:
    """Quantizes a float student to int8 (post-training).

    Args:
        student: a float student.pt.
        out: the int8 student.pt to write.
        calibration: folder of photographs, or 'skimage' for those that scikit-image installs.
        rule: how the range of each value is chosen.
        crops: number of LR crops to observe.
    """
    given = load_student(student)
    quantized = quantize_student(given, calibration_crops(calibration, given.scale, count=crops), rule)
    save_student(quantized, out)
    print(f"wrote {out}: int8, {len(quantized.quantization.layers)} layers, calibrated on {crops} crops")  # type: ignore[union-attr]


if __name__ == "__main__":
    command_line(main)
