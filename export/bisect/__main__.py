"""`python -m export.bisect student.pt FILE`: the first layer whose output leaves the student's, and a plot of all."""

import dataclasses
from json import dumps
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from compress.checkpoint import load_student
from compress.cli import command_line
from compress.data.sources import skimage_photographs
from compress.errors import BadInput
from compress.files import write_text
from export.bisect.compare import Comparison, compare
from export.bisect.plot import plot
from export.bisect.traces import Pixels, metadata_in, trace
from export.metadata import Sizes

LARGEST_SIDE = 96  # LR pixels: every layer's values are kept, and a fault shows in a small image too
DEFAULT_SIDE = 48


def photograph(path: Path | None, sizes: Sizes) -> Pixels:
    """The middle of a photograph, (H, W, 3), of a size that the file takes; without a path, of one that scikit-image
    installs, made smaller. Raises BadInput for what is no image, or one that is smaller than the file's size."""
    from PIL import Image, UnidentifiedImageError

    source = path or next(one for one in skimage_photographs("train") if one.stem == "astronaut")
    try:
        with Image.open(source) as opened:
            image = opened.convert("RGB")
    except (UnidentifiedImageError, FileNotFoundError, Image.DecompressionBombError) as error:
        raise BadInput(f"expected a photograph for --image, found none in {source}: name an image file.") from error
    if path is None:
        image = image.reduce(2)
    side = DEFAULT_SIDE if path is None else LARGEST_SIDE
    height, width = (min(side, image.height), min(side, image.width)) if sizes == "any" else sizes[0]
    if image.height < height or image.width < width:
        raise BadInput(
            f"expected a photograph of at least {height}x{width} for this file, found {image.height}x{image.width}: give "
            "a larger one."
        )
    top, left = (image.height - height) // 2, (image.width - width) // 2
    return np.array(image.crop((left, top, left + width, top + height)))


def main(
    student: Path,
    file: Path,
    *,
    image: Path | None = None,
    out: Path | None = None,
    json: Path | None = None,
    tolerance: float | None = None,
) -> int:
    """Finds the first layer of an exported file whose output leaves the student's. Exits with 1 if there is one.

    Args:
        student: student.pt that the file was exported from; int8 for a file of integers.
        file: a .tflite, .onnx or .mlpackage.
        image: a photograph, of which the middle is used; left out, one that scikit-image installs.
        out: PNG of the error by layer; left out, bisect.png beside the file.
        json: file for the same figures.
        tolerance: error of a layer's worst channel that is called rounding, in LSB for integers, else as a share of the
            layer's range; left out, what the file's precision allows.
    """
    loaded = load_student(student)
    loaded.deploy()
    metadata = metadata_in(file)
    if tolerance is not None and not tolerance >= 0:
        raise BadInput(f"expected a tolerance of 0 or more, found {tolerance}: leave it out for the usual one.")
    pixels = photograph(image, metadata.sizes)
    found = compare(loaded, trace(file, loaded.deploy(), pixels), pixels, tolerance)
    if not found.layers:
        raise BadInput(
            f"expected the layers of {student} in {file}, found none of them: name the student that it was exported from."
        )
    picture = out or file.with_name("bisect.png")
    plot(found, f"{file.name} against {student.name}", picture)
    _print(found, f"{file} against {student}")
    if metadata.student_sha256 != loaded.file_hash:
        print(f"the file was exported from another student.pt than {student}")
    print(f"plot: {picture}")
    if json:
        write_text(json, _json(found, file))
    culprit = found.culprit
    if culprit is None:
        print(f"no layer leaves the reference (tolerance {found.tolerance:g})")
        return 0
    why = culprit.grid or f"error {culprit.error:.3g} {_unit(culprit.unit)} in channel {culprit.channel}"
    print(f"first layer that leaves the reference: {culprit.name} ({culprit.kind}), {why}")
    return 1


def _print(found: Comparison, title: str) -> None:
    table = Table("layer", "step", "error", "largest", "unit", "channel", "", title=title)
    for layer in found.layers:
        verdict = "FIRST" if layer is found.culprit else "left" if layer.left else ""
        style = "bold red" if layer is found.culprit else "red" if layer.left else None
        table.add_row(
            layer.name, layer.kind, f"{layer.error:.3g}", f"{layer.largest:.3g}", layer.unit, str(layer.channel),
            f"{verdict} {layer.grid or ''}".strip(), style=style,
        )  # fmt: skip
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    if found.missing:
        print(f"without a value of their own in the file: {', '.join(found.missing)}")


def _unit(unit: str) -> str:
    return "LSB" if unit == "LSB" else "of the layer's range"


def _json(found: Comparison, file: Path) -> str:
    plain = dataclasses.asdict(found) | {"file": str(file), "culprit": found.culprit.name if found.culprit else None}
    return dumps(plain, indent=1) + "\n"


if __name__ == "__main__":
    command_line(main, contained=True)
