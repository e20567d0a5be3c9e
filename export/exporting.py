"""What the exporters share: what can be exported, as what, to where, and what the file says about itself."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from compress.checkpoint import VALUE_RANGE, Student
from compress.deploy import Conv, DeployGraph
from compress.errors import BadInput
from compress.quantization.dynamic import DynamicStudent
from compress.quantization.equalization import equalized
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


def check_precision(quantization: Quantization, precision: Precision) -> None:
    """Raises BadInput where a student's arithmetic is not that of the file that is asked for."""
    if precision in INTEGER and precision != quantization.precision:
        raise BadInput(
            f"expected a student whose arithmetic is {precision}, found one that is {quantization.precision}: leave the "
            "precision out, or quantize the float student anew."
        )


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
