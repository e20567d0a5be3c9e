"""Benchmark sets: folders of HR images, with the LR images they are published with or LR made here."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.data.bicubic import crop_to_multiple, imresize
from compress.data.images import SUFFIXES, find_images, read_image
from compress.data.sources import skimage_photographs
from compress.errors import BadInput

Image = NDArray[np.uint8]

BUILT_IN = "skimage"
ROOT_VARIABLE = "POCKETSR_DATA"
DEFAULT_ROOT = Path("data/eval")
SMALLEST_INSIDE = 11  # SSIM's window


@dataclass(frozen=True)
class Pair:
    """Files of one image; `lr` is None where the LR image is to be made from `hr`."""

    name: str
    hr: Path
    lr: Path | None


@dataclass(frozen=True)
class Benchmark:
    """A set at one scale. Iterating reads one image at a time: (name, lr, hr), both (H, W, 3) uint8 RGB, 0..255.

    `hr` is cut at the bottom and right to exactly `scale` times the size of `lr`; grey images are repeated to RGB.
    Iterating raises BadInput for an unreadable image, an image too small to judge, and LR that does not fit its HR.
    """

    name: str
    scale: int
    pairs: tuple[Pair, ...]

    @property
    def lr(self) -> Literal["files", "imresize"]:
        """Where LR images come from: files of the set, or `compress.data.bicubic.imresize`."""
        return "imresize" if self.pairs[0].lr is None else "files"

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[str, Image, Image]]:
        for pair in self.pairs:
            hr = crop_to_multiple(read_image(pair.hr), self.scale)
            smallest = 2 * self.scale + SMALLEST_INSIDE
            if min(hr.shape[:2]) < smallest:
                raise BadInput(
                    f"expected images of at least {smallest}x{smallest} pixels at x{self.scale}, found {_size(hr)} in "
                    f"{pair.hr}: take it out of the set."
                )
            lr = imresize(hr, 1 / self.scale) if pair.lr is None else read_image(pair.lr)
            if (lr.shape[0] * self.scale, lr.shape[1] * self.scale) != hr.shape[:2]:
                raise BadInput(
                    f"expected LR of 1/{self.scale} of the {_size(hr)} of {pair.hr}, found {_size(lr)} in {pair.lr}: "
                    "use LR and HR of one release, or take the LR folder away to have LR made by imresize."
                )
            yield pair.name, lr, hr


def data_root(root: Path | None = None) -> Path:
    """The folder of benchmark sets: `root`, else the environment's POCKETSR_DATA, else data/eval."""
    return Path(root or os.environ.get(ROOT_VARIABLE) or DEFAULT_ROOT)


def find_benchmarks(root: Path | None = None) -> list[str]:
    """Names that `open_benchmark` knows: folders of the root with an `HR` folder or images, and the built-in set."""
    folder = data_root(root)
    found = (
        sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and hr_images(entry))
        if folder.is_dir()
        else []
    )
    return [*found, BUILT_IN]


def open_benchmark(name: str, scale: int, root: Path | None = None) -> Benchmark:
    """A benchmark set.

    LR files are taken from `LR_bicubic/X4`, `LR_bicubic_X4` or `LR_X4` (for x4) where one is there. Otherwise LR is
    made from HR by MATLAB's bicubic; the result says which it was.

    Args:
        name: a set below the root (case does not matter), 'skimage', or the path of any folder of images.
        scale: HR size over LR size, 2 or more.
        root: see `data_root`.

    Raises:
        BadInput: unknown set, no images in it, an impossible scale, or an HR image without its LR file.
    """
    if scale < 2:
        raise BadInput(f"expected a scale of 2 or more, found {scale}: networks here take 2, 3 or 4.")
    if name == BUILT_IN:
        return Benchmark(name, scale, tuple(Pair(p.stem, p, None) for p in skimage_photographs("test")))
    folder = _folder(name, root)
    hr_folder = _hr_folder(folder)
    lr_folder = _lr_folder(folder, scale)
    lr_files = {p.stem.lower(): p for p in find_images(lr_folder)} if lr_folder else None
    pairs = []
    for path in find_images(hr_folder):
        lr = None if lr_files is None else _partner(path, lr_files, scale)
        if lr_files is not None and lr is None:
            raise BadInput(
                f"expected an LR file for {path.name} such as {path.stem}x{scale}.png, found none in {lr_folder}: "
                "complete that folder, or take it away to have LR made by imresize."
            )
        pairs.append(Pair(path.relative_to(hr_folder).with_suffix("").as_posix(), path, lr))
    return Benchmark(folder.name, scale, tuple(pairs))


def _folder(name: str, root: Path | None) -> Path:
    parent = data_root(root)
    known = {entry.lower(): parent / entry for entry in find_benchmarks(root)}
    if name.lower() in known:
        return known[name.lower()]
    if Path(name).is_dir():
        return Path(name)
    raise BadInput(
        f"expected a benchmark set out of {', '.join(find_benchmarks(root))} or a folder of images, "
        f"found {name!r}: sets are looked for in {parent}, which --data or {ROOT_VARIABLE} changes."
    )


def hr_images(folder: Path) -> list[Path]:
    """Files of the HR images of a set: those in its `HR` folder, or in itself where it has none."""
    hr = _hr_folder(folder)
    return sorted(entry for entry in hr.iterdir() if entry.suffix.lower() in SUFFIXES)


def _hr_folder(folder: Path) -> Path:
    return folder / "HR" if (folder / "HR").is_dir() else folder


def _lr_folder(folder: Path, scale: int) -> Path | None:
    names = [f"LR_bicubic/X{scale}", f"LR_bicubic/x{scale}", f"LR_bicubic_X{scale}", f"LR_X{scale}"]
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _partner(hr: Path, lr_files: dict[str, Path], scale: int) -> Path | None:
    """The LR file of an HR file: babyx4.png of baby.png, img_001_SRF_4_LR.png of img_001_SRF_4_HR.png."""
    stem = hr.stem.lower()
    bare = stem.removesuffix("_hr")
    candidates = (f"{bare}_lr", f"{bare}x{scale}", f"{bare}_x{scale}", f"{bare}_lrx{scale}", bare, stem)
    return next((lr_files[name] for name in candidates if name in lr_files), None)


def _size(image: Image) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"
