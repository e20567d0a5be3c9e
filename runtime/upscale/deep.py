"""Pictures of more than 8 bits per channel, scaled to 8 and rounded. Needs no torch.

Pillow holds colours in 8 bits and keeps the high byte of each 16-bit number, which darkens by half a level on average. So
such a file is decoded twice, the second time as if its numbers lay in the other byte order: that gives the low bytes.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

Plane = NDArray[np.uint8]
Deep = tuple[Plane, Plane | None, str]
OPPOSITE = {";16B": ";16L", ";16L": ";16B", ";16N": ";16B" if sys.byteorder == "little" else ";16L"}
ROUNDED = "16 bits per channel rounded to 8"
BITS, PHOTOMETRIC, SAMPLE_FORMAT = 258, 262, 339  # tags of a TIFF
WHITE_IS_ZERO, UNSIGNED = 0, 1  # values of the last two


def deep_planes(picture: Pillow.Image, raw: str, again: Callable[[], Pillow.Image]) -> Deep | None:
    """Colours, alpha and a note for a picture of more than 8 bits per channel.

    None for others, and for those whose low bytes Pillow does not give (CMYK, colours multiplied with alpha).

    Args:
        picture: opened.
        raw: its `raw_mode`.
        again: opens the same file once more.
    """
    if picture.mode.startswith("I;16"):
        return _grey(picture, raw)
    if picture.mode in ("I", "F"):
        return _wide(picture)
    if not is_deep(raw):
        if max(_tiff_tag(picture, BITS, (8,))) > 8:
            raise ValueError("more than 8 bits per channel in a layout that Pillow decodes wrongly")
        return None
    if raw == "LA;16B":
        return _grey_with_alpha(again)
    if raw[:-4] not in ("RGB", "RGBA", "RGBX"):
        return None
    high, low = np.asarray(picture), np.asarray(_decoded(again, raw[:-4] + OPPOSITE[raw[-4:]]))
    eight, alpha = rounded(high, low), None
    transparent = picture.info.get("transparency")
    if raw.startswith("RGBA"):
        alpha = eight[..., 3]
    elif isinstance(transparent, tuple):
        colours = high.astype(np.uint16) << 8 | low
        alpha = np.where((colours[..., :3] == transparent).all(axis=2), 0, 255).astype(np.uint8)
    return eight[..., :3], alpha, ROUNDED


def rounded(high: Plane, low: Plane) -> Plane:
    """rint(v / 257) of v = 256 * high + low: since v / 257 = high + (low - high) / 257."""
    difference = low.astype(np.int16) - high
    return (high + (difference > 128).astype(np.uint8)) - (difference < -128).astype(np.uint8)


def raw_mode(picture: Pillow.Image) -> str:
    """How the pixels lie in the file, in Pillow's words; empty where that is not one and the same everywhere.

    To be asked before anything decodes the picture, which forgets it (reading a PNG's EXIF decodes).
    """
    found = {_first(tile.args) for tile in getattr(picture, "tile", [])}
    return found.pop() if len(found) == 1 else ""


def is_deep(raw: str) -> bool:
    """Whether a raw mode is one of several channels of 16 bits."""
    return raw[-4:] in OPPOSITE


def _first(arguments: object) -> str:
    """Of a decoder's arguments, where the raw mode stands."""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _decoded(again: Callable[[], Pillow.Image], raw: str) -> Pillow.Image:
    """The file decoded as if its pixels lay in another raw mode of the same length."""
    picture = again()
    picture.tile = [
        tile._replace(args=(raw, *tile.args[1:]) if isinstance(tile.args, tuple) else raw) for tile in picture.tile
    ]
    picture.load()
    return picture


def _tiff_tag(picture: Pillow.Image, tag: int, otherwise: Any) -> Any:
    """What a TIFF says; `otherwise` where it says nothing, and for other files."""
    return getattr(picture, "tag_v2", {}).get(tag, otherwise)


def _grey(picture: Pillow.Image, raw: str) -> Deep:
    grey = np.asarray(picture).astype(np.uint16)
    if raw == "I;12":  # Pillow leaves these 12 bits below
        grey = grey << 4 | grey >> 8
    if _tiff_tag(picture, PHOTOMETRIC, None) == WHITE_IS_ZERO:  # Pillow minds this up to 8 bits only
        grey = 65535 - grey
    transparent = picture.info.get("transparency")
    alpha = np.where(grey == transparent, 0, 255).astype(np.uint8) if isinstance(transparent, int) else None
    return rounded((grey >> 8).astype(np.uint8), (grey & 255).astype(np.uint8)), alpha, ROUNDED


def _grey_with_alpha(again: Callable[[], Pillow.Image]) -> Deep:
    """Two 16-bit numbers per pixel, read as four bytes."""
    four = np.asarray(_decoded(again, "RGBA"))
    return rounded(four[..., 0], four[..., 1]), rounded(four[..., 2], four[..., 3]), ROUNDED


def _wide(picture: Pillow.Image) -> Deep:
    """32-bit integers and floats, whose white no file states: the first usual one that holds all values."""
    values = np.asarray(picture)
    if picture.mode == "I" and _tiff_tag(picture, SAMPLE_FORMAT, (UNSIGNED,)) == (UNSIGNED,):
        values = values.view(np.uint32)  # which Pillow takes for signed
    grey = np.nan_to_num(values.astype(np.float64), posinf=0.0, neginf=0.0)
    whites = (1.0, 255.0, 65535.0) if picture.mode == "F" else (255.0, 65535.0, 2.0**31 - 1)
    top = float(grey.max(initial=0.0))
    white = next((white for white in whites if top <= white), top)
    eight = np.rint(np.clip(grey / white, 0, 1) * 255).astype(np.uint8)
    kind = "32-bit floats" if picture.mode == "F" else "32-bit integers"
    return eight, None, f"{kind} rounded to 8 bits, {white:g} taken as white"
