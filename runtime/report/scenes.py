"""The pictures of a report: photographs through the student, its files, and what they are compared with."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress import metrics
from compress.checkpoint import Student
from compress.data.benchmarks import Benchmark
from compress.data.bicubic import imresize
from compress.data.images import read_image
from compress.errors import BadInput
from compress.evaluate import Upscaler
from export.metadata import INTEGER
from runtime.engines import open_model
from runtime.engines.base import Image
from runtime.names import told_apart
from runtime.parity.crops import Size, common_size, crops
from runtime.parity.references import References
from runtime.parity.results import FileParity, ParityReport
from runtime.report.data import Picture, Scene

VIEW = (320, 480)
"""Height and width of a scene, in pixels of the result."""
MOST = 4
FLOAT = "student, float32"
CONTEXT = 16  # LR pixels around a window of a photograph, where the student's receptive field has no radius


class Painter:
    """All that makes pictures of an LR image; `with` closes its engines.

    Args:
        student: of the gate.
        parity: what the gate said; its files are opened again, in the engines that ran them.
        teacher: an upscaler to show beside the student, or None.
        threads: of the engines.

    Raises:
        BadInput: a file that cannot be opened, or files without an image size in common.
    """

    def __init__(self, student: Student, parity: ParityReport, teacher: Upscaler | None, threads: int):
        self.student, self.teacher = student, teacher
        self.engines = [open_model(file.path, engine=file.engine, threads=threads) for file in parity.files]
        self.names = labels(parity.files)
        self._references = References(student, threads)
        for engine in self.engines:
            self._references.prepare(engine.metadata.precision)
        self.size = common_size(self.engines)

    def __enter__(self) -> "Painter":
        return self

    def __exit__(self, *_: object) -> None:
        for engine in self.engines:
            engine.close()

    def paint(self, lr: Image, hr: Image | None) -> tuple[Picture, ...]:
        """Every version of the SR image, whole; figures of PSNR where there is a ground truth."""
        scale = self.student.scale

        def psnr(image: Image) -> float | None:
            return None if hr is None else metrics.psnr(image, hr, scale)

        self._references.upscale(lr)
        bicubic, floating = imresize(lr, scale), self._references.floating
        pictures = [
            Picture(name="bicubic", kind="bicubic", image=bicubic, psnr=psnr(bicubic)),
            Picture(name=FLOAT, kind="student", image=floating, psnr=psnr(floating)),
        ]
        for name, engine in zip(self.names, self.engines, strict=True):
            image, precision = engine.upscale(lr).image, engine.metadata.precision
            pictures.append(
                Picture(
                    name=name, kind="file", image=image, psnr=psnr(image), reference=self._references.result(precision).image,
                    integer=precision in INTEGER,
                )
            )  # fmt: skip
        if self.teacher:
            taught = self.teacher(lr)
            pictures.append(Picture(name="teacher", kind="teacher", image=taught, psnr=psnr(taught)))
        if hr is not None:
            pictures.append(Picture(name="ground truth", kind="truth", image=hr))
        return tuple(pictures)


def labels(files: Sequence[FileParity]) -> list[str]:
    """A name for every file: its own, folders that tell it from others, and its engine's where it ran on several engines."""
    of = told_apart(file.path for file in files)
    names = [of[file.path] for file in files]
    return [
        name if names.count(name) == 1 else f"{name} on {file.engine}" for name, file in zip(names, files, strict=True)
    ]


def scenes(
    painter: Painter,
    benchmarks: Sequence[Benchmark],
    photo: Path | None = None,
    *,
    most: int = MOST,
    on_image: Callable[[str], object] = lambda name: None,
) -> tuple[Scene, ...]:
    """The first photographs of every set in turn, `most` at most, and a photograph of the user's before them.

    Nothing is chosen by its result; a photograph larger than `VIEW` is cut to where its LR image has most detail.

    Args:
        benchmarks: sets with ground truth; may be empty if there is a photo.
        photo: to upscale, without ground truth.
        on_image: called with the name of every finished photograph.

    Raises:
        BadInput: nothing to show, or a photograph that cannot be read or is smaller than the files take.
    """
    found: list[Scene] = []
    if photo:
        found.append(_of_photograph(painter, photo))
        on_image(found[-1].name)
    for benchmark, (name, lr, hr) in itertools.islice(_in_turn(benchmarks, painter.size), most - len(found)):
        window = _window(lr, VIEW, painter.student.scale)
        pictures = painter.paint(lr, hr)
        found.append(Scene(name=name, source=benchmark.name, pictures=tuple(_cut(one, window) for one in pictures)))
        on_image(name)
    if not found:
        raise BadInput("expected a photograph to show, found none: name a set with --sets, or a --photo.")
    return tuple(found)


def _in_turn(
    benchmarks: Sequence[Benchmark], size: Size | None
) -> Iterator[tuple[Benchmark, tuple[str, Image, Image]]]:
    """The first image of each set, then the second of each, and so on."""
    streams = [zip(itertools.repeat(benchmark), crops(benchmark, size), strict=False) for benchmark in benchmarks]
    for turn in itertools.zip_longest(*streams):
        yield from (one for one in turn if one is not None)


def _of_photograph(painter: Painter, photo: Path) -> Scene:
    """A window of a photograph, computed with enough around it to be what the whole would give there."""
    lr, scale = read_image(photo), painter.student.scale
    if painter.size:
        height, width = painter.size
        if lr.shape[0] < height or lr.shape[1] < width:
            raise BadInput(
                f"expected a photograph of at least {width}x{height} pixels, the size that the files take, found "
                f"{lr.shape[1]}x{lr.shape[0]} in {photo}: use a larger one."
            )
        top, left = _most_detailed(lr, height, width)
        pictures = painter.paint(np.ascontiguousarray(lr[top : top + height, left : left + width]), None)
        return Scene(name=photo.name, source="photograph of yours", pictures=pictures)
    radius = painter.student.deploy().receptive_radius() if painter.student.has_graph else CONTEXT
    rows, columns = _window(lr, VIEW, scale)
    top, left = max(0, rows.start // scale - radius), max(0, columns.start // scale - radius)
    near = lr[top : rows.stop // scale + radius, left : columns.stop // scale + radius]
    inside = (
        slice(rows.start - scale * top, rows.stop - scale * top),
        slice(columns.start - scale * left, columns.stop - scale * left),
    )
    pictures = painter.paint(np.ascontiguousarray(near), None)
    return Scene(name=photo.name, source="photograph of yours", pictures=tuple(_cut(one, inside) for one in pictures))


def _cut(picture: Picture, window: tuple[slice, slice]) -> Picture:
    reference = None if picture.reference is None else picture.reference[window]
    return dataclasses.replace(picture, image=picture.image[window], reference=reference)


def _window(lr: Image, view: tuple[int, int], scale: int) -> tuple[slice, slice]:
    """Rows and columns of the SR image: `view` at most, where the LR image has most detail."""
    height, width = (min(length, wanted // scale) for length, wanted in zip(lr.shape[:2], view, strict=True))
    top, left = _most_detailed(lr, height, width)
    return slice(scale * top, scale * (top + height)), slice(scale * left, scale * (left + width))


def _most_detailed(image: Image, height: int, width: int) -> tuple[int, int]:
    """Top and left of the window with the largest sum of gradients."""
    grey = image.astype(np.float64).mean(axis=2)
    gradient = np.zeros_like(grey)
    gradient[:-1] += np.abs(np.diff(grey, axis=0))
    gradient[:, :-1] += np.abs(np.diff(grey, axis=1))
    total: NDArray[np.float64] = np.pad(gradient, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    sums = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    top, left = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(top), int(left)
