"""How close the predicted peak memory is to what is measured: `python -m benchmarks.memory`, four minutes for the zoo.

Prints, as Markdown, every .tflite of the zoo at several sizes and numbers of threads, with the least budget of each. With
`--others`, networks of other widths, depths, scales and kinds, too, with random weights, in every precision of .tflite
and .onnx. Exits with 1 if a prediction for the zoo is off by more than 15 % at 64x64 or above.
"""

import argparse
import statistics
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch

from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import BUILT_IN
from compress.errors import BadInput, run_command
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.metadata import Precision
from export.onnx import export_onnx
from export.tflite import export_tflite
from runtime.memory import Memory, memory_of
from runtime.planner import largest_tile, least_budget
from runtime.units import show_bytes

LIMIT, FROM = 0.15, 64
ZOO = Path(__file__).parents[1] / "zoo"
SIZES, THREADS, BUDGETS = (64, 128, 256, 512), (1, 2), (16_000_000, 64_000_000, 256_000_000)
OTHER_SIZES = (128,)
NETWORKS = {
    "anchor x2, 16 channels, 2 blocks": ("anchor", {"scale": 2, "channels": 16, "blocks": 2}),
    "anchor x4, 28 channels, 6 blocks": ("anchor", {"scale": 4, "channels": 28, "blocks": 6}),
    "anchor x3, 48 channels, 8 blocks": ("anchor", {"scale": 3, "channels": 48, "blocks": 8}),
    "anchor x4, 64 channels, 16 blocks": ("anchor", {"scale": 4, "channels": 64, "blocks": 16}),
    "SRResNet x2, 64 channels, 4 blocks, PReLU": ("srresnet", {"scale": 2, "channels": 64, "blocks": 4}),
    "SRResNet x4, 32 channels, 4 blocks, ReLU": (
        "srresnet",
        {"scale": 4, "channels": 32, "blocks": 4, "activation": "relu"},
    ),
    "EDSR x2, 64 channels, 8 blocks": ("edsr", {"scale": 2, "channels": 64, "blocks": 8}),
}
FLOAT: tuple[Precision, ...] = ("float32", "float16")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--others", action="store_true", help="networks that are not in the zoo, too (ten minutes more)"
    )
    given = parser.parse_args()
    rows = []
    print(_heading("file", "threads"))
    for threads in THREADS:
        for path in sorted(ZOO.glob("*.tflite")):
            rows += _printed(path.name, threads, (memory_of(path, side, side, threads=threads) for side in SIZES))
    print(_summary("the zoo", rows))
    print(_tiles())
    if given.others:
        print(_others())
    return int(any(row.error is None or abs(row.error) > LIMIT for row in rows if row.height >= FROM))


def _others() -> str:
    """Measures files of other networks than the zoo has, of random weights. Prints the rows; gives the summaries."""
    rows: dict[str, list[Memory]] = {}
    print(_heading("network", "file"))
    with tempfile.TemporaryDirectory() as folder:
        for name, (architecture, config) in NETWORKS.items():
            torch.manual_seed(0)
            save_student(Student.of(build(architecture, config)), Path(folder) / "student.pt")
            for path in _files(Path(folder) / "student.pt"):
                found = (memory_of(path, side, side, runs=1) for side in OTHER_SIZES)
                rows.setdefault(path.suffix, []).extend(_printed(name, path.name, found))
                path.unlink()
    return "\n".join(_summary(f"other networks, {suffix}", found) for suffix, found in rows.items())


def _files(path: Path) -> Iterator[Path]:
    """The student's files, one at a time, in every precision that needs no choice of layers."""
    student = load_student(path)
    crops = calibration_crops(BUILT_IN, student.scale, count=16)
    made: dict[Precision, Student] = dict.fromkeys(FLOAT, student)
    for precision, arithmetic in (("int8", "int8"), ("int16x8", "int16")):
        save_student(quantize_student(student, crops, "mse", plain=True, arithmetic=arithmetic), path)
        made[precision] = load_student(path)
    made["int8-dynamic"] = made["int8"]
    for precision, one in made.items():
        for suffix, export in ((".tflite", export_tflite), (".onnx", export_onnx)):
            if (precision, suffix) != ("int8-dynamic", ".onnx"):
                target = path.with_name(f"{precision}{suffix}")
                export(one, target, precision)
                yield target


def _heading(*columns: str) -> str:
    names = [*columns, "LR size", "predicted, MiB", "measured, MiB", "error"]
    return f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}"


def _printed(name: str, about: object, rows: Iterable[Memory]) -> list[Memory]:
    """Prints each row as it comes."""
    found = []
    for row in rows:
        sizes = [f"{count / 2**20:.1f}" for count in (row.predicted, row.measured) if count is not None]
        error = "-" if row.error is None else f"{row.error:+.1%}"
        print("|", " | ".join([name, str(about), f"{row.height}x{row.width}", *sizes, error]), "|", flush=True)
        found.append(row)
    return found


def _summary(what: str, rows: Sequence[Memory]) -> str:
    errors = [abs(row.error) for row in rows if row.error is not None]
    if not errors:
        raise BadInput("expected a system on which memory can be measured, found another: run this on Linux.")
    return f"\n{what}: median error {statistics.median(errors):.1%}, worst {max(errors):.1%}, of {len(errors)}"


def _tiles() -> str:
    """The tile of each budget, and the least budget."""
    names = ["file", *(f"{budget // 10**6} MB" for budget in BUDGETS), "least budget"]
    lines = [f"\n| {' | '.join(names)} |", f"|{'---|' * len(names)}"]
    for path in sorted(ZOO.glob("*.tflite")):
        tiles = [str(largest_tile(path, budget)) for budget in BUDGETS]
        lines.append(f"| {' | '.join([path.name, *tiles, show_bytes(least_budget(path))])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
