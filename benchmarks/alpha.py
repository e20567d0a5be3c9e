"""Should alpha go through the network or through Lanczos? PSNR of both on masks that were reduced and enlarged again.

`python -m benchmarks.alpha [--model zoo/anchor_x4_int8.tflite]`

Masks: drawn shapes with antialiased edges, the same blurred (a soft shadow), and scikit-image's scanned page of text,
inverted. Each is reduced by three filters, since nobody knows how a mask came to its size.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter
from rich.console import Console
from rich.table import Table

from compress.cli import command_line
from compress.data.sources import skimage_photographs
from runtime.engines import open_model
from runtime.engines.base import Engine
from runtime.upscale.transparency import Flats

SIDE, FINER = 1024, 4
FILTERS = (Image.Resampling.BICUBIC, Image.Resampling.BOX, Image.Resampling.LANCZOS)


def main(*, model: Path = Path("zoo/anchor_x4_int8.tflite")) -> None:
    """Prints how near both come to the masks, in dB.

    Args:
        model: the network.
    """
    engine = open_model(model)
    table = Table("mask", "reduced by", "network", "Lanczos", title=f"alpha, x{engine.scale}, PSNR in dB")
    for name, mask in {"shapes": shapes(), "blurred shapes": blurred(), "text": page()}.items():
        mask = mask.crop((0, 0, *(side - side % engine.scale for side in mask.size)))
        for kind in FILTERS:
            small = mask.resize((mask.width // engine.scale, mask.height // engine.scale), kind)
            lanczos = np.asarray(small.resize(mask.size, Image.Resampling.LANCZOS))
            found = [psnr(enlarged, np.asarray(mask)) for enlarged in (by_network(engine, small), lanczos)]
            table.add_row(name, kind.name.lower(), *(f"{value:.2f}" for value in found))
    Console().print(table)


def shapes() -> Image.Image:
    """A disc, a triangle and strokes of several widths, white on black."""
    scale = SIDE * FINER / 4096
    picture = Image.new("L", (SIDE * FINER, SIDE * FINER))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([scale * at for at in (200, 300, 2200, 2000)], fill=255)
    draw.polygon([scale * at for at in (2500, 300, 3900, 1800, 2400, 2300)], fill=255)
    for k in range(12):
        ends = (200 + k * 280, 2500, 700 + k * 250, 3900)
        draw.line([scale * at for at in ends], fill=255, width=16 + k * 8)
    return picture.resize((SIDE, SIDE), Image.Resampling.BOX)


def blurred() -> Image.Image:
    return shapes().filter(ImageFilter.GaussianBlur(12))


def page() -> Image.Image:
    """Text as a mask: ink is opaque."""
    with Image.open(skimage_photographs("train")[0].with_name("page.png")) as picture:
        return picture.convert("L").point([255 - value for value in range(256)])


def by_network(engine: Engine, small: Image.Image) -> NDArray[np.uint8]:
    """As `runtime.upscale.enlarge` makes alpha."""
    alpha = np.asarray(small)
    grey = Image.fromarray(engine.upscale(np.repeat(alpha[..., None], 3, axis=2)).image).convert("L")
    return Flats(alpha, engine.scale).restored(np.asarray(grey), 0)


def psnr(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return float(10 * np.log10(255**2 / np.mean((found.astype(float) - truth) ** 2)))


if __name__ == "__main__":
    command_line(main)
