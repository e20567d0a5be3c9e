"""Decoded training images, once, on disk: HR and LR as uint8 arrays that a process maps instead of reading.

An entry is named by the SHA-256 of the image file and the scale, so a changed file is decoded again and a moved one
is not. Entries are written atomically; an interrupted preparation goes on where it stopped.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress import files
from compress.data.bicubic import crop_to_multiple, imresize
from compress.data.images import Skipped, UnreadableImage, read_image
from compress.errors import BadInput


@dataclass(frozen=True)
class Pair:
    """One training image: mapped arrays, LR (h, w, 3) and HR (scale*h, scale*w, 3), uint8 RGB."""

    path: Path
    file_hash: str
    lr: NDArray[np.uint8]
    hr: NDArray[np.uint8]


@dataclass(frozen=True)
class Collection:
    """The usable images of a source and the ones left out."""

    scale: int
    pairs: list[Pair]
    skipped: list[Skipped]

    def manifest_hash(self) -> str:
        """SHA-256 over the hashes of the image files, in order: names the training data in provenance."""
        return hashlib.sha256("\n".join(pair.file_hash for pair in self.pairs).encode()).hexdigest()


def cache_folder() -> Path:
    """Where caches go: $POCKETSR_CACHE, else pocketsr in the user's cache folder."""
    chosen = os.environ.get("POCKETSR_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(chosen) if chosen else base / "pocketsr"


def collect(
    paths: Sequence[Path], scale: int, smallest_lr: int, on_progress: Callable[[int, int], None] | None = None
) -> Collection:
    """Decodes the images, or finds them in the cache.

    Args:
        paths: image files.
        scale: HR is cropped to multiples of it; LR is HR reduced by MATLAB's bicubic.
        smallest_lr: images whose LR has a side below this many pixels are skipped.
        on_progress: called with (done, total).

    Raises:
        BadInput: not one usable image.
    """
    pairs: list[Pair] = []
    skipped: list[Skipped] = []
    for done, path in enumerate(paths, 1):
        found = _pair(path, scale, smallest_lr)
        if isinstance(found, Pair):
            pairs.append(found)
        else:
            skipped.append(found)
        if on_progress:
            on_progress(done, len(paths))
    if not pairs:
        reasons = "; ".join(f"{s.path.name}: {s.reason}" for s in skipped[:3])
        raise BadInput(
            f"expected at least one usable image, found none out of {len(paths)} ({reasons}): name another folder."
        )
    return Collection(scale, pairs, skipped)


def _pair(path: Path, scale: int, smallest_lr: int) -> Pair | Skipped:
    try:
        file_hash = files.sha256(path)
        folder = cache_folder() / "images"
        hr_file, lr_file = folder / f"{file_hash}_hr_x{scale}.npy", folder / f"{file_hash}_lr_x{scale}.npy"
        if not (hr_file.exists() and lr_file.exists()):
            hr = crop_to_multiple(read_image(path), scale)
            if min(hr.shape[:2]) < scale * smallest_lr:
                return Skipped(path, f"{hr.shape[1]}x{hr.shape[0]} is smaller than {scale * smallest_lr} pixels")
            save_array(hr_file, hr)
            save_array(lr_file, imresize(hr, 1 / scale))
    except UnreadableImage:
        return Skipped(path, "not readable as an image")
    except PermissionError:
        return Skipped(path, "no permission to read it")
    lr = np.load(lr_file, mmap_mode="r")
    if min(lr.shape[:2]) < smallest_lr:
        return Skipped(
            path, f"{scale * lr.shape[1]}x{scale * lr.shape[0]} is smaller than {scale * smallest_lr} pixels"
        )
    return Pair(path, file_hash, lr, np.load(hr_file, mmap_mode="r"))


def save_array(path: Path, array: NDArray[np.uint8]) -> None:
    """Writes a .npy atomically."""
    with files.written_atomically(path) as part, part.open("wb") as file:
        np.save(file, np.ascontiguousarray(array))
