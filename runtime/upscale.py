"""Upscales a photograph: `python -m runtime.upscale PHOTO --model FILE --out OUT.png`. Needs no torch.

The frame runs whole, in one piece.
"""

import argparse
import warnings
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageOps

from compress.errors import BadInput, run_command
from compress.files import written_atomically
from runtime.engines import ENGINES, open_model
from runtime.engines.base import Image, Result

SAVE_OPTIONS = {
    ".png": {"format": "PNG"},
    ".jpg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".jpeg": {"format": "JPEG", "quality": 95, "subsampling": 0},
    ".webp": {"format": "WEBP", "lossless": True},
}


def upscale_photo(
    photo: str | Path, model: str | Path, out: str | Path, *, threads: int = 1, engine: str | None = None
) -> Result:
    """Reads a photograph, super-resolves it and writes the result.

    Args:
        photo: anything that Pillow reads; turned upright as its EXIF orientation says, transparency dropped.
        model: a .tflite or .onnx of this project.
        out: .png, .jpg, .jpeg or .webp; replaced if it exists.
        threads, engine: see `runtime.engines.open_model`.

    Raises:
        BadInput: an unreadable photograph, an `out` of another kind or equal to the photograph, an unusable model.
    """
    photo, out = Path(photo), Path(out)
    if out.suffix.lower() not in SAVE_OPTIONS:
        raise BadInput(f"expected an output out of {', '.join(SAVE_OPTIONS)}, found {out.name}: rename it.")
    for taken in (photo, Path(model)):
        if out.resolve() == taken.resolve() or (out.exists() and taken.exists() and out.samefile(taken)):
            raise BadInput(f"expected an output beside its inputs, found that {out} would overwrite one: rename it.")
    lr = read_photo(photo)
    result = open_model(model, threads=threads, engine=engine).upscale(lr)
    save_image(result.image, out)
    return result


def read_photo(path: str | Path) -> Image:
    """(H, W, 3) uint8 RGB, upright. Raises BadInput for anything that is not a readable picture."""
    path = Path(path)
    if not path.is_file():
        what = "a folder" if path.is_dir() else "nothing"
        raise BadInput(f"expected a photograph, found {what} at {path}: check the path.")
    try:
        with warnings.catch_warnings(), Pillow.open(path) as picture:
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except (OSError, SyntaxError, ValueError, Pillow.DecompressionBombError, Warning) as error:  # all Pillow raises
        raise BadInput(
            f"expected a photograph, found an unreadable file at {path} ({error}): save it as PNG or JPEG."
        ) from error


def save_image(image: Image, path: Path) -> None:
    """Writes (H, W, 3) uint8 RGB atomically, in the format of the suffix."""
    with written_atomically(path) as part:
        Pillow.fromarray(image).save(part, **SAVE_OPTIONS[path.suffix.lower()])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m runtime.upscale", description=__doc__)
    parser.add_argument("photo", type=Path, help="PNG, JPEG, WebP or what else Pillow reads")
    parser.add_argument("--model", type=Path, required=True, help="a .tflite or .onnx that pocketsr exported")
    parser.add_argument("--out", type=Path, required=True, help=f"the image to write: {', '.join(SAVE_OPTIONS)}")
    parser.add_argument("--threads", type=int, default=1, help="processor threads (default: 1)")
    parser.add_argument("--engine", choices=tuple(ENGINES), help="default: what the model's suffix says")
    given = parser.parse_args()
    result = upscale_photo(given.photo, given.model, given.out, threads=given.threads, engine=given.engine)
    height, width = result.image.shape[:2]
    timing = result.timing
    print(
        f"wrote {given.out}: {width}x{height} pixels; prepared in {1000 * timing.prepare:.1f} ms, "
        f"ran in {1000 * timing.run:.1f} ms, read back in {1000 * timing.read:.1f} ms"
    )


if __name__ == "__main__":
    run_command(main, contained=True)
