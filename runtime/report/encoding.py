"""Pictures as data URIs that need no other file."""

import base64
import io
from collections.abc import Sequence

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow

from runtime.engines.base import Image

COLOURS = "magma"
LEVELS = 16  # colours of a heat map: 4 bits per pixel
QUALITIES = (94, 90, 82, 70, 55)


def png(image: Image) -> str:
    """(H, W, 3) uint8, without loss."""
    return _uri(_encoded(Pillow.fromarray(np.ascontiguousarray(image)), "PNG", optimize=True), "png")


def jpegs(images: Sequence[Image], budget: int) -> list[str]:
    """(H, W, 3) uint8 images, at the best quality of `QUALITIES` that keeps the sum of the URIs to `budget` bytes.

    No chroma is left out. Where even the lowest quality is too large, that is what is given.
    """
    uris: list[str] = []
    for quality in QUALITIES:
        pictures = (Pillow.fromarray(np.ascontiguousarray(image)) for image in images)
        uris = [_uri(_encoded(one, "JPEG", quality=quality, subsampling=0), "jpeg") for one in pictures]
        if sum(map(len, uris)) <= budget:
            break
    return uris


def heat_map(values: NDArray[np.int16], top: int) -> str:
    """(H, W) values in `LEVELS` colours of `COLOURS` as a PNG; 0 is the darkest, `top` and above the brightest."""
    picture = Pillow.fromarray(heat_levels(values, top), "P")
    picture.putpalette(_colours(LEVELS).tobytes())
    return _uri(_encoded(picture, "PNG", optimize=True, bits=4), "png")


def heat_levels(values: NDArray[np.int16], top: int) -> NDArray[np.uint8]:
    """Which of the `LEVELS` colours a value has: only 0 has the darkest."""
    share = np.clip(values / top, 0, 1)
    return np.ceil(share * (LEVELS - 1)).astype(np.uint8)


def heat_legend() -> str:
    """The colours of `heat_map` from 0 to its top, as CSS colour stops."""
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in _colours(9).tolist())


def _colours(count: int) -> NDArray[np.uint8]:
    return matplotlib.colormaps[COLOURS](np.linspace(0, 1, count), bytes=True)[:, :3]


def _encoded(picture: Pillow.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format=kind, **options)
    return buffer.getvalue()


def _uri(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
