"""The EXIF block and the orientation of a photograph. Needs no torch."""

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags
from PIL import Image as Pillow

from runtime.engines.base import first_line

Base, IFD = ExifTags.Base, ExifTags.IFD
KEPT = (
    Base.ImageDescription, Base.Make, Base.Model, Base.XResolution, Base.YResolution, Base.ResolutionUnit, Base.Software,
    Base.DateTime, Base.Artist, Base.HostComputer, Base.Rating, Base.RatingPercent, Base.Copyright, Base.XPTitle,
    Base.XPComment, Base.XPAuthor, Base.XPKeywords, Base.XPSubject, IFD.Exif, IFD.GPSInfo,
)  # fmt: skip
"""What speaks of the picture. The rest of a first directory, in a TIFF above all, speaks of how its pixels are stored."""
LARGEST = 65_000  # bytes: a JPEG has room for 65,533


def orientation_of(picture: Pillow.Image) -> int:
    """How the decoded picture lies, 1 to 8 as EXIF counts; 1, upright, where nothing readable says so."""
    if picture.format == "TIFF":
        return 1  # Pillow turns these itself when it decodes them
    try:
        found = int(picture.getexif().get(Base.Orientation, 1))
    except Exception:  # damaged EXIF raises anything
        return 1
    return found if 1 <= found <= 8 else 1


def upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns and mirrors (H, W) or (H, W, 3) as the EXIF orientation says; contiguous."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def kept_exif(picture: Pillow.Image) -> tuple[bytes | None, list[str]]:
    """The EXIF block for an upright picture of another size, and notes on what had to go.

    Orientation becomes 1; the thumbnail and the sizes in pixels, which would be wrong, are left out.
    """
    try:
        found = picture.getexif()
        kept = Pillow.Exif()
        kept.endian = found.endian  # camera makers' notes are in the file's byte order
        for tag in KEPT:
            if tag in (IFD.Exif, IFD.GPSInfo):
                inside = dict(found.get_ifd(tag))
                inside.pop(Base.ExifImageWidth, None)
                inside.pop(Base.ExifImageHeight, None)
                if IFD.Interop in inside:
                    inside[IFD.Interop] = found.get_ifd(IFD.Interop)
                if inside:
                    kept[tag] = inside
            elif tag in found:
                kept[tag] = _unchanged(found[tag])
        if Base.Orientation in found:
            kept[Base.Orientation] = 1
        return _fitting(kept) if len(kept) else (None, [])
    except Exception as error:  # damaged EXIF raises anything
        return None, [f"EXIF that cannot be read left out ({first_line(error)})"]


def _unchanged(value: object) -> object:
    """A value that Pillow writes as it was: it reads text as Latin-1, whatever that is, and would write it as ASCII."""
    return value.encode("latin-1", "replace") if isinstance(value, str) else value


def _fitting(exif: Pillow.Exif) -> tuple[bytes | None, list[str]]:
    """As bytes, without the camera maker's notes where they would not fit into a JPEG."""
    written = exif.tobytes()
    if len(written) <= LARGEST:
        return written, []
    if IFD.Exif in exif:
        exif[IFD.Exif] = {tag: value for tag, value in exif[IFD.Exif].items() if tag != IFD.MakerNote}
        written = exif.tobytes()
        if len(written) <= LARGEST:
            return written, ["the camera maker's notes in the EXIF left out, too large"]
    return None, ["EXIF left out, too large"]
