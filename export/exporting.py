"""What the exporters share: what can be exported, as what, to where, and what the file says about itself."""

import dataclasses
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from compress.checkpoint import VALUE_RANGE, Student, load_student, save_student
from compress.deploy import Conv, DeployGraph
from compress.errors import BadInput
from compress.quantization.calibration import calibration_crops
from compress.quantization.dynamic import DynamicStudent
from compress.quantization.equalization import equalized
from compress.quantization.ptq import quantize_student
from compress.quantization.scheme import PIXELS, Quantization
from export.metadata import INTEGER, Image, Layout, Metadata, PixelType, Precision, Sizes

QUANTIZED: tuple[Precision, ...] = (*INTEGER, "int8-weights", "int8-dynamic")
"""Precisions whose integers are those of an int8 student."""
FIXED_SIZE = [64, 64]
"""(height, width) of the LR image where a network takes one size only and none was asked for."""


@dataclass(frozen=True)
class ExportedFile:
    """A written file, or folder of files, what it says about itself, and its operators by name."""

    path: Path
    metadata: Metadata
    operators: Mapping[str, int]

    @property
    def files(self) -> tuple[Path, ...]:
        """All that was written."""
        return (self.path,) if self.path.is_file() else tuple(file for file in self.path.rglob("*") if file.is_file())

    @property
    def file_bytes(self) -> int:
        """Size on disk."""
        return sum(file.stat().st_size for file in self.files)

    def summary(self) -> str:
        """Two lines for a person: what was written, and its operators."""
        sizes = self.metadata.sizes
        ending = f" up to {self.metadata.largest}x{self.metadata.largest}" if self.metadata.largest else ""
        size = f"any{ending}" if sizes == "any" else ", ".join(f"{width}x{height}" for height, width in sizes)
        operators = ", ".join(f"{count} {kind}" for kind, count in self.operators.items())
        kilobytes = f"{self.file_bytes / 1000:.1f} kB"
        return f"wrote {self.path}: {self.metadata.precision}, {kilobytes}, {size} image size\n  {operators}"


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


def check_precision(quantization: Quantization, precision: Precision) -> None:
    """Raises BadInput where a student's arithmetic is not that of the file that is asked for."""
    if precision in INTEGER and precision != quantization.precision:
        raise BadInput(
            f"expected a student whose arithmetic is {precision}, found one that is {quantization.precision}: leave the "
            "precision out, or quantize the float student anew."
        )


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


def refuse_integers(student: Student, precision: Precision) -> None:
    """Raises BadInput for integers of a network that has none."""
    if precision in QUANTIZED and not student.has_graph:
        raise BadInput(
            f"expected float32 or float16 for {student.architecture}, found {precision}: its attention does not fit the "
            "deploy graph, for which int8 is defined; distil a student (anchor, srresnet, edsr) from it."
        )


def sizes_of(student: Student, sizes: Sizes | None) -> Sizes:
    """The LR sizes of a file: those asked for; for None, any where the network allows it, else 64x64.

    Raises:
        BadInput: several sizes, or any, for a network that takes one, or one that it cannot take.
    """
    if student.has_graph:
        return sizes or "any"
    chosen = sizes or [FIXED_SIZE]
    if chosen == "any" or len(chosen) > 1:
        found = "any size" if chosen == "any" else f"{len(chosen)} sizes"
        raise BadInput(
            f"expected one size for {student.architecture}, found {found}: its attention depends on it, so export a file for "
            "each size."
        )
    student.fixed(*chosen[0])
    return chosen


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


def has_masks(student: Student) -> bool:
    """Whether a student's weights have a sparse form in files."""
    return student.sparsity is not None and student.has_graph


def check_masks(student: Student) -> None:
    """Raises BadInput for a student whose weights have no sparse form in files."""
    if student.sparsity is None:
        raise BadInput(
            "expected a student with masks to store sparse, found one without: prune it with `python -m "
            "compress.pruning.magnitude`, or leave --sparse out."
        )
    if not student.has_graph:
        raise BadInput(
            f"expected a student that fits the deploy graph to store sparse, found {student.architecture}, whose files are "
            "written dense: leave --sparse out."
        )


def parts(student: Student, precision: Precision) -> tuple[DeployGraph, Quantization | None]:
    """The deploy graph to write, and the integers and scales to write with it.

    Precisions of `INTEGER`: both. int8-weights and int8-dynamic: the scales of the weights are to be used, those of the
    activations are not; the graph's weights are the real values of the integers, its biases the float ones. Otherwise
    there is no quantization.

    Raises:
        BadInput: an architecture that does not fit the deploy graph, a float student for integers, or one of another
            arithmetic.
    """
    refuse_integers(student, precision)
    graph = student.deploy()
    if precision not in QUANTIZED:
        return graph, None
    if student.quantization is None:
        raise BadInput(
            "expected an int8 student, found a float one: calibrate it with --calibration FOLDER, or quantize it with "
            "`python -m compress.quantization`."
        )
    check_precision(student.quantization, precision)
    graph = equalized(graph, student.quantization.equalization)
    if precision not in INTEGER:
        for name, operator, _ in graph.steps():
            if isinstance(operator, Conv):
                layer = student.quantization.layers[name]
                operator.weight = layer.weight.float() * layer.scale[:, None, None, None]
    return graph, student.quantization


def reference_network(student: Student, precision: Precision) -> nn.Module:
    """What a file of that precision is held against: (1, 3, H, W) in [0, 1] to (1, 3, s*H, s*W) in [0, 1], in eval mode.

    Raises:
        BadInput: as `parts`.
    """
    if precision not in QUANTIZED:
        return student.network()
    graph, quantization = parts(student, precision)
    if precision in INTEGER:
        return student.reference()
    assert quantization is not None
    return DynamicStudent(graph, quantization).eval() if precision == "int8-dynamic" else graph.eval()


def describe(
    student: Student,
    precision: Precision,
    *,
    layout: Layout,
    producers: Sequence[str],
    pixels: PixelType = "int8",
    pictures: bool = False,
    sizes: Sizes = "any",
) -> Metadata:
    """The metadata of a file that takes pixels of type `pixels` in a precision of `INTEGER`, and float32 ones else.

    Args:
        layout: of the images.
        pixels: see above.
        pictures: pixels of that type in every precision.
        sizes: (height, width) of the LR images that it takes.
        producers: packages whose versions it names.

    Raises:
        BadInput: a student that was never saved.
    """
    if student.file_hash is None:
        raise BadInput("expected a student that was saved, found one without a file: save it with save_student first.")
    image = Image("float32", layout)
    if pixels != "float32" and (precision in INTEGER or pictures):
        image = Image(pixels, layout, scale=PIXELS.scale, zero_point=PIXELS.zero_point if pixels == "int8" else 0)
    return Metadata(
        architecture=student.architecture,
        scale=student.scale,
        precision=precision,
        value_range=VALUE_RANGE,
        input=image,
        output=image,
        receptive_radius=student.deploy().receptive_radius() if student.has_graph else None,
        sizes=sizes,
        student_sha256=student.file_hash,
        quality=student.metrics,
        calibration=student.quantization.calibration if student.quantization and precision in QUANTIZED else None,
        producer={name: importlib.metadata.version(name) for name in producers},
    )
