"""What every engine does: open a file, describe it, upscale one image, and say how long each part took."""

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput
from export.metadata import INTEGER, Metadata
from export.metadata import Image as ImageSpec

Image = NDArray[np.uint8]
Raw = NDArray[np.int8] | NDArray[np.uint8] | NDArray[np.float32]
THREADS_MOST = 1024  # LiteRT crashes on some tens of thousands
ZERO_POINTS = {"int8": -128, "uint8": 0}  # of the pixel value 0
BLOCK = 2**16  # values that are converted at a time


@dataclass(frozen=True, kw_only=True)
class Delegate:
    """What an engine hands to accelerated kernels.

    Attributes:
        name: 'XNNPACK', or 'none'.
        operators: of the file, counted by name; empty where the engine does not run a file of operators.
        partitions: pieces of the graph that the delegate runs; 1 is the best possible.
        outside: operators left to the engine's own kernels, counted by name.
    """

    name: str = "none"
    operators: Mapping[str, int] = field(default_factory=dict)
    partitions: int = 0
    outside: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Description:
    """An opened file: where it lies, what it says about itself, and what runs it.

    Attributes:
        native: False where the file's operators are only evaluated, so that time and memory say nothing about it.
    """

    path: Path
    engine: str
    version: str
    threads: int
    metadata: Metadata
    delegate: Delegate
    native: bool = True

    @property
    def precision(self) -> str:
        return self.metadata.precision


@dataclass(frozen=True)
class Timing:
    """Seconds of one inference.

    Attributes:
        prepare: resizing and allocating, where the size changed, and writing the input.
        run: the network alone.
        read: reading the output back and turning it into uint8.
    """

    prepare: float
    run: float
    read: float


@dataclass(frozen=True)
class Result:
    """One super-resolved image.

    Attributes:
        image: (s*H, s*W, 3) uint8 RGB.
        raw: what the file gave, same shape: uint8 pixels, int8 = pixel - 128, or float32 in [0, 1] before rounding.
        timing: of this inference.
    """

    image: Image
    raw: Raw
    timing: Timing


class Engine(ABC):
    """An opened model, which `with` closes. One image at a time; not to be shared between threads."""

    def __init__(self, path: Path, metadata: Metadata, threads: int):
        check_threads(threads)
        self.path, self.metadata, self.threads = path, metadata, threads

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def scale(self) -> int:
        return self.metadata.scale

    def close(self) -> None:  # noqa: B027
        """Gives back what the model holds outside of this process, where it does; it runs no more images afterwards."""

    def file_bytes(self) -> int:
        """Size on disk, of all its files where the model is a folder."""
        files = [self.path] if self.path.is_file() else [file for file in self.path.rglob("*") if file.is_file()]
        return sum(file.stat().st_size for file in files)

    @abstractmethod
    def describe(self) -> Description:
        """What was opened and what runs it."""

    @abstractmethod
    def prepare(self, lr: Image) -> None:
        """Makes room for an image of that size, where the last one had another, and writes the input."""

    @abstractmethod
    def run(self) -> None:
        """Runs the network on the input that `prepare` wrote."""

    @abstractmethod
    def read(self) -> Raw:
        """The output of the last run, (s*H, s*W, 3); a copy."""

    def upscale(self, lr: Image) -> Result:
        """Super-resolves one image.

        Args:
            lr: (H, W, 3) uint8 RGB.

        Raises:
            BadInput: another type or shape, or a size that the file does not take.
        """
        self._check(lr)
        start = self._seconds()
        self.prepare(lr)
        prepared = self._seconds()
        self.run()
        ran = self._seconds()
        raw = self.read()
        image = to_pixels(raw)
        timing = Timing(prepared - start, ran - prepared, self._seconds() - ran)
        return Result(image, raw, timing)

    def peak_memory(self, height: int, width: int) -> int | None:
        """Bytes that opening the file and one inference add to the peak memory of a fresh process.

        Args:
            height, width: of the LR image.

        Returns:
            None where that cannot be measured: on another system than Linux, or for a file that is only evaluated.

        Raises:
            BadInput: see `runtime.peak.peak_memory`.
        """
        description = self.describe()
        if not description.native:
            return None
        return peak_of_file(self.path, description.engine, height, width, self.threads)

    def _seconds(self) -> float:
        """The clock of `Timing`: without what only handing an image to another process takes."""
        return time.perf_counter()

    def _check(self, lr: Image) -> None:
        if lr.dtype != np.uint8 or lr.ndim != 3 or lr.shape[2] != 3 or 0 in lr.shape:
            raise BadInput(
                f"expected an RGB image as uint8 of shape (H, W, 3), found {lr.dtype} of shape {lr.shape}: "
                "convert it first."
            )
        sizes, largest = self.metadata.sizes, self.metadata.largest
        if sizes == "any" and largest and max(lr.shape[:2]) > largest:
            raise BadInput(
                f"expected an image of at most {largest}x{largest} pixels, found {lr.shape[1]}x{lr.shape[0]}: {self.path} "
                "takes no larger one, export it again with --largest or --size."
            )
        if sizes != "any" and list(lr.shape[:2]) not in [list(size) for size in sizes]:
            known = ", ".join(f"{width}x{height}" for height, width in sizes)
            raise BadInput(
                f"expected an image of {known} pixels, found {lr.shape[1]}x{lr.shape[0]}: {self.path} takes no "
                "other size."
            )


def peak_of_file(path: Path, engine: str, height: int, width: int, threads: int) -> int | None:
    """`Engine.peak_memory` of a file that need not be open."""
    from runtime.peak import NotLinux, peak_memory  # which opens files with the engines, and so imports this module

    try:
        return peak_memory(path, height, width, engine=engine, threads=threads)
    except NotLinux:
        return None


def check_threads(threads: int) -> None:
    """Raises BadInput for a number of threads that no engine runs with."""
    if not 1 <= threads <= THREADS_MOST:
        raise BadInput(f"expected 1 to {THREADS_MOST} threads, found {threads}: use the number of fast cores.")


def from_pixels(lr: Image, spec: ImageSpec) -> Raw:
    """uint8 pixels as a file wants them: the same, int8 = pixel - 128, or float32 = pixel / 255."""
    if spec.dtype == "uint8":
        return lr
    if spec.dtype == "int8":
        return (lr ^ np.uint8(0x80)).view(np.int8)
    return np.divide(lr, np.float32(255), dtype=np.float32)


def to_pixels(raw: Raw) -> Image:
    """A file's output as uint8 pixels: the same, int8 + 128, or rint(255 * clip(y, 0, 1)); NaN becomes 0."""
    if raw.dtype == np.uint8:
        return np.asarray(raw, np.uint8)
    if raw.dtype == np.int8:
        return np.ascontiguousarray(raw).view(np.uint8) ^ np.uint8(0x80)
    image = np.empty(raw.shape, np.uint8)
    rows = max(1, BLOCK // max(1, raw[:1].size))  # whole images of temporaries would cost more than the network
    for top in range(0, len(raw), rows):
        part = raw[top : top + rows]
        image[top : top + rows] = np.rint(np.nan_to_num(np.clip(part, 0, 1)) * np.float32(255))
    return image


def to_real(raw: Raw) -> NDArray[np.float64]:
    """A file's output as values in [0, 1], floats before rounding."""
    if raw.dtype.name in ZERO_POINTS:
        return (raw.astype(np.float64) - ZERO_POINTS[raw.dtype.name]) / 255
    return raw.astype(np.float64)


def check_metadata(metadata: Metadata, path: Path) -> None:
    """Raises BadInput for metadata that contradicts itself or that no engine here can honour."""
    wanted = ("float32", *(ZERO_POINTS if metadata.precision in INTEGER else ("uint8",)))
    for name, spec in (("input", metadata.input), ("output", metadata.output)):
        if spec.dtype not in wanted or spec.color != "RGB":
            raise BadInput(
                f"expected {' or '.join(wanted)} RGB pixels at the {name} of a file of precision {metadata.precision}, found "
                f"metadata that says {spec.dtype} {spec.color} in {path}: export it again."
            )
        if spec.dtype in ZERO_POINTS and not is_pixel_scale(spec.scale, spec.zero_point, spec.dtype):
            raise BadInput(
                f"expected {name} pixels with scale 1/255 and zero point {ZERO_POINTS[spec.dtype]}, found "
                f"metadata that says {spec.scale} "
                f"and {spec.zero_point} in {path}: export it again."
            )
    if tuple(metadata.value_range) != (0.0, 1.0):
        raise BadInput(f"expected the value range (0, 1), found {metadata.value_range} in {path}: export it again.")


def check_dtype(which: str, spec: ImageSpec, found: str, path: Path) -> None:
    """Raises BadInput where the engine sees another type of image than the metadata says; `which` is input or output."""
    if found != spec.dtype:
        raise BadInput(
            f"expected an {which} of {spec.dtype}, as the metadata says, found {found} in {path}: export it again."
        )


def first_line(error: BaseException) -> str:
    """What an engine said, short enough for a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")


def is_pixel_scale(scale: float | None, zero_point: int | None, dtype: str) -> bool:
    """Whether int8 or uint8 values with this scale and zero point stand for the pixels 0 to 255 in order."""
    return scale is not None and abs(scale * 255 - 1) < 1e-6 and zero_point == ZERO_POINTS[dtype]
