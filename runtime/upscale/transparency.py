"""What a network needs to know of transparency: nothing. Its colours go on beneath, and alpha runs apart. Needs no torch.

Alpha runs through the network as a grey picture: against Lanczos, the x4 anchor's int8 file was 7.5 dB nearer to the truth
on drawn edges and as near on text too small to read; on blurred shapes it lost 0.5 to 1.6 dB at 54 dB, which nobody sees
(`benchmarks.alpha`). An edge of alpha then is as sharp as the edge of the colours that it cuts out.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFilter

from runtime.engines.base import Image

Plane = NDArray[np.uint8]


def filled_colours(rgb: Image, alpha: Plane) -> Image:
    """RGB whose fully transparent pixels take the colours of the visible ones around.

    What lies beneath full transparency is arbitrary, often black, and the network and the resampling would draw it into the
    edges. The picture is halved until one pixel is left, each level averaging the visible pixels of the one before; on the
    way back the holes of each level take the colours of the next coarser one (the push-pull of Gortler et al., The
    Lumigraph, 1996).

    Args:
        rgb: (H, W, 3) uint8.
        alpha: (H, W) uint8; pixels of 1 and more keep their colours.
    """
    if alpha.min() > 0 or alpha.max() == 0:
        return rgb
    level = Pillow.fromarray(rgb).convert("RGBA")
    level.putalpha(_all_or_nothing(Pillow.fromarray(alpha)))
    levels = [level]
    while max(level.size) > 1:
        level = level.convert("RGBa").reduce(2).convert("RGBA")  # colours times alpha: the mean of visible ones
        level.putalpha(_all_or_nothing(level.getchannel("A")))
        levels.append(level)
    filled = levels.pop()
    while levels:
        finer = levels.pop()
        filled = Pillow.alpha_composite(filled.resize(finer.size, Pillow.Resampling.BILINEAR), finer)
    return np.where((alpha > 0)[..., None], rgb, np.asarray(filled.convert("RGB")))


def _all_or_nothing(alpha: Pillow.Image) -> Pillow.Image:
    """Whatever is visible at all as 255."""
    return alpha.point([0] + [255] * 255)


class Flats:
    """Where alpha is the same all around: there the result is exactly that, so that nothing clear gains a veil.

    Args:
        alpha: (H, W) uint8 of the photograph.
        scale: of the network.
    """

    def __init__(self, alpha: Plane, scale: int):
        picture = Pillow.fromarray(alpha)
        least, most = (np.asarray(picture.filter(kind(3))) for kind in (ImageFilter.MinFilter, ImageFilter.MaxFilter))
        self._flat, self._alpha, self._scale = least == most, alpha, scale

    def restored(self, rows: Plane, first: int) -> Plane:
        """(n, s*W) uint8 of the network's result, of which `first` is the first row, with the flat parts restored."""
        wanted = np.arange(first, first + len(rows)) // self._scale
        flat, alpha = (plane[wanted].repeat(self._scale, axis=1) for plane in (self._flat, self._alpha))
        return np.where(flat, alpha, rows)


def over_white(rows: Plane) -> Plane:
    """(n, W, 2 or 4) uint8 with alpha laid over white: (n, W, 1 or 3)."""
    colours, alpha = rows[..., :-1].astype(np.uint16), rows[..., -1:].astype(np.uint16)
    return ((colours * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)
