"""The pixels of any Pillow picture as 8-bit grey or RGB and alpha. Needs no torch."""

import io
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from runtime.upscale.deep import deep_planes, is_deep

Plane = NDArray[np.uint8]
FEW_BITS = {"L;2": 85, "L;4": 17}
"""What Pillow multiplies grey of 2 or 4 bits with, but not the grey that a PNG names as transparent."""
SPACES = {2: b"GRAY", 3: b"RGB "}  # what an ICC profile must be for, by the dimensions of the pixels


@dataclass(frozen=True)
class Planes:
    """Pixels as they lie in the file.

    Attributes:
        colours: (H, W) grey or (H, W, 3) RGB, uint8.
        alpha: (H, W) uint8, or None.
        notes: what was reduced, in words for the user.
        converted: whether the colours have left the file's own colour space for sRGB.
    """

    colours: Plane
    alpha: Plane | None = None
    notes: list[str] = field(default_factory=list)
    converted: bool = False


def planes_of(picture: Pillow.Image, raw: str, again: Callable[[], Pillow.Image]) -> Planes:
    """Decodes an opened picture; see `runtime.upscale.deep.deep_planes`."""
    deep = deep_planes(picture, raw, again)
    if deep:
        colours, alpha, note = deep
        return Planes(colours, alpha, [note])
    notes = ["16 bits per channel cut to 8"] if is_deep(raw) else []  # CMYK, or colours multiplied with alpha
    if picture.mode in ("CMYK", "LAB"):
        converted, note = _to_srgb(picture)
        return Planes(np.asarray(converted), notes=[*notes, note], converted=True)
    if raw in FEW_BITS and isinstance(picture.info.get("transparency"), int):
        picture.info["transparency"] *= FEW_BITS[raw]
    if picture.mode in ("1", "L", "LA", "La"):
        if picture.has_transparency_data:
            return _split(picture.convert("LA"), notes)
        return Planes(np.asarray(picture.convert("L")), notes=notes)
    if picture.has_transparency_data:
        return _split(picture.convert("RGBA"), notes)
    return Planes(np.asarray(picture.convert("RGB")), notes=notes)


def profile_for(planes: Planes, icc: bytes | None) -> tuple[bytes | None, list[str]]:
    """The ICC profile that fits what was decoded, and a note where it has to go."""
    if not icc or planes.converted:
        return None, []
    if icc[36:40] != b"acsp":
        return None, ["a damaged ICC profile left out"]
    if icc[16:20] != SPACES[planes.colours.ndim]:
        found = icc[16:20].decode("latin-1").strip()
        return None, [f"an ICC profile for {found or 'other'} pixels left out"]
    return icc, []


def _split(picture: Pillow.Image, notes: list[str]) -> Planes:
    """LA or RGBA in two."""
    colours, alpha = picture.convert("L" if picture.mode == "LA" else "RGB"), picture.getchannel("A")
    return Planes(np.asarray(colours), np.asarray(alpha), notes)


def _to_srgb(picture: Pillow.Image) -> tuple[Pillow.Image, str]:
    """CMYK and L*a*b* by colour management, where the file or the space says what its numbers mean."""
    from PIL import ImageCms  # raises ImportError only when used: Pillow without LittleCMS

    icc, mode = picture.info.get("icc_profile"), picture.mode
    try:
        source = (
            ImageCms.createProfile("LAB")
            if mode == "LAB"
            else ImageCms.ImageCmsProfile(io.BytesIO(icc))
            if icc
            else None
        )
        if source is not None:
            found = ImageCms.profileToProfile(
                picture,
                source,
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
            assert found is not None, "None only for a conversion in place"
            how = "" if mode == "LAB" else " by its ICC profile"
            return found, f"{mode} turned into sRGB{how}"
    except (ImageCms.PyCMSError, ImportError, OSError):
        pass
    if mode == "LAB":
        raise ValueError("L*a*b* colours, which this Pillow cannot convert")
    return picture.convert("RGB"), f"{mode} turned into RGB by formula, without a usable ICC profile"
