"""Image files to RGB pixels, and folders to lists of usable images."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from compress.errors import BadInput

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


class UnreadableImage(BadInput):
    """A file that does not decode to a picture."""


@dataclass(frozen=True)
class Skipped:
    """An image file that is not used, and why."""

    path: Path
    reason: str


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """Decodes an image to (H, W, 3) RGB, 0..255; grey is repeated, alpha dropped, 16 bit reduced to 8.

    Raises:
        UnreadableImage: no such file, not an image, damaged, or too large to be one (decompression bomb).
    """
    path = Path(path)
    try:
        with warnings.catch_warnings(), Image.open(path) as image:
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            if image.mode.startswith("I;16") or image.mode in ("I", "F"):
                grey = np.asarray(image, dtype=np.float64)
                top = 255.0 if grey.max(initial=0) <= 255 else 65535.0
                eight = np.clip(np.rint(grey * (255 / top)), 0, 255).astype(np.uint8)
                return np.repeat(eight[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except FileNotFoundError as error:
        raise UnreadableImage(f"expected an image, found nothing at {path}: check the path.") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError, Warning) as error:
        raise UnreadableImage(f"expected an image, found an unreadable file at {path} ({error}): remove it.") from error


def find_images(folder: str | Path) -> list[Path]:
    """All image files below a folder, by suffix, sorted by name.

    Raises:
        BadInput: no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "a file" if folder.is_file() else "nothing"
        raise BadInput(f"expected a folder of images, found {what} at {folder}: check the path.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        raise BadInput(f"expected images ({', '.join(sorted(SUFFIXES))}), found none below {folder}: check the path.")
    return paths
