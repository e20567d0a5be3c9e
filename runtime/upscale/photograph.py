"""Reads a photograph of any kind into what a network takes, and what the result must carry on. Needs no torch."""

import contextlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from compress.errors import BadInput
from runtime.engines.base import Image, first_line
from runtime.upscale.colours import Planes, planes_of, profile_for
from runtime.upscale.deep import raw_mode
from runtime.upscale.exif import kept_exif, orientation_of, upright

FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF", "PCX", "SGI", "QOI")
"""Pictures of pixels. Others that Pillow opens are documents, fonts or need a program of their own (EPS)."""
WITHOUT_MARK = {".tga": "TGA"}  # any file may look like one: only where the name says so
NAMES = (
    "png apng jpg jpeg jpe jfif mpo webp tif tiff bmp dib gif ppm pgm pbm pnm jp2 j2k avif heic heif pcx sgi qoi tga"
)
SUFFIXES = frozenset(f".{name}" for name in NAMES.split())
"""Names that promise a picture: what a folder's upscale takes, or names as unreadable."""
MAX_MEGAPIXELS = 120.0
"""A phone's 108 megapixels pass; what takes gigabytes to decode must be asked for."""
REDUCED = 1  # the bit of a TIFF's NewSubfileType that marks a smaller copy of another page
SUBFILE_TYPE = 254


@dataclass(frozen=True, kw_only=True)
class Photograph:
    """A decoded photograph, upright.

    Attributes:
        rgb: (H, W, 3) uint8 RGB for the network; grey is repeated.
        alpha: (H, W) uint8 opacity; None where all of it is opaque.
        grey: whether the three channels are one.
        icc: the colour profile that the result carries; None is sRGB.
        exif: the EXIF block that the result carries, for an upright picture, without a thumbnail.
        notes: what could not be kept, in words for the user.
    """

    rgb: Image
    alpha: NDArray[np.uint8] | None
    grey: bool
    icc: bytes | None
    exif: bytes | None
    notes: tuple[str, ...]

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.rgb.shape[0], self.rgb.shape[1]


def read_photograph(path: str | Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> Photograph:
    """Decodes a still picture.

    Args:
        path: of one of FORMATS; its content counts, not its name.
        max_megapixels: larger ones are refused before they are decoded.

    Raises:
        BadInput: nothing there, no picture, a damaged, animated or too large one.
    """
    path = Path(path)
    notes: list[str] = []
    with _opened(path, max_megapixels) as picture:
        notes += check_still(picture, path)
        raw = raw_mode(picture)
        exif, lost = kept_exif(picture)
        orientation = orientation_of(picture)
        icc = picture.info.get("icc_profile")
        planes = planes_of(picture, raw, lambda: _again(path))
    notes += lost + planes.notes
    icc, dropped = profile_for(planes, icc)
    notes += dropped
    colours, alpha = upright(planes.colours, orientation), _seen(planes, orientation)
    rgb = colours if colours.ndim == 3 else np.repeat(colours[..., None], 3, axis=2)
    return Photograph(rgb=rgb, alpha=alpha, grey=planes.colours.ndim == 2, icc=icc, exif=exif, notes=tuple(notes))


def pixels_of(path: str | Path, *, max_megapixels: float = MAX_MEGAPIXELS) -> int:
    """How many pixels a photograph has, without decoding it. Raises BadInput for what its header tells; `read_photograph`."""
    path = Path(path)
    with _opened(path, max_megapixels) as picture:
        check_still(picture, path)
        return picture.width * picture.height


def check_still(picture: Pillow.Image, path: Path) -> list[str]:
    """Notes on what else is in the file. Raises BadInput for an animation or several pages."""
    if not getattr(picture, "is_animated", False):
        return []
    if picture.format == "MPO":
        return ["the first of the file's pictures"]
    if picture.format == "TIFF":
        if _only_copies(picture):
            return []
        raise BadInput(
            f"expected one photograph, found a TIFF of several pages at {path}: save its pages as files of their own."
        )
    raise BadInput(
        f"expected a still picture, found an animated {picture.format} at {path}: save a frame of it as PNG."
    )


def _only_copies(picture: Pillow.Image) -> bool:
    """Whether all further pages of a TIFF are smaller copies of the first."""
    for page in range(1, getattr(picture, "n_frames", 1)):
        picture.seek(page)
        if not int(picture.tag_v2.get(SUBFILE_TYPE, 0)) & REDUCED:
            return False
    picture.seek(0)
    return True


def _seen(planes: Planes, orientation: int) -> NDArray[np.uint8] | None:
    """Alpha, upright; None where nothing is transparent."""
    if planes.alpha is None or planes.alpha.min() == 255:
        return None
    return upright(planes.alpha, orientation)


@contextlib.contextmanager
def _opened(path: Path, max_megapixels: float) -> Iterator[Pillow.Image]:
    """An open picture; whatever its decoder raises until the block ends is a BadInput."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise BadInput(f"expected a photograph, found {what} at {path}: check the path.")
    if not path.stat().st_size:
        raise BadInput(f"expected a photograph, found an unreadable file at {path} (it is empty): copy it again.")
    try:
        with _unwarned(), _again(path) as picture:
            width, height = picture.size
            if width * height > max_megapixels * 1e6:
                raise BadInput(
                    f"expected a photograph of at most {max_megapixels:g} megapixels, found {width * height / 1e6:.0f} "
                    f"({width}x{height}) at {path}: allow more with --max-megapixels if you trust it."
                )
            yield picture
    except BadInput:
        raise
    except MemoryError as error:
        raise BadInput(
            f"expected a photograph that fits into memory, found that {path} needs more than there is: use fewer --jobs, or a "
            "smaller one."
        ) from error
    except UnidentifiedImageError as error:
        raise BadInput(
            f"expected a photograph, found an unreadable file at {path} (no known kind of picture): save it as PNG or JPEG."
        ) from error
    except Exception as error:  # decoders raise anything on damaged files: OSError, SyntaxError, struct.error, ...
        raise BadInput(
            f"expected a photograph, found an unreadable file at {path} ({first_line(error)}): save it as PNG or JPEG."
        ) from error


@contextlib.contextmanager
def _unwarned() -> Iterator[None]:
    """Without Pillow's warnings on damaged EXIF and the like."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _again(path: Path) -> Pillow.Image:
    """Opens the file without decoding its pixels, and without Pillow's own limit on their number."""
    Pillow.init()
    known = [name for name in (*FORMATS, *filter(None, [WITHOUT_MARK.get(path.suffix.lower())])) if name in Pillow.OPEN]
    limit, Pillow.MAX_IMAGE_PIXELS = Pillow.MAX_IMAGE_PIXELS, None
    try:
        picture = Pillow.open(path, formats=known)
        if picture.format == "TIFF":
            picture.filename = ""  # else Pillow maps some into memory, and minds too late that they lie on their side
        return picture
    finally:
        Pillow.MAX_IMAGE_PIXELS = limit
