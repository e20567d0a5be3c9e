"""One photograph, from file to file."""

import os
from pathlib import Path

from compress.errors import BadInput
from runtime.engines import open_model
from runtime.engines.base import Engine, Image
from runtime.upscale.bar import Bar
from runtime.upscale.enlarge import Enlarged, Settings, enlarge
from runtime.upscale.tree import sweep_one
from runtime.upscale.writers import SUFFIXES, open_writer


def upscale_photo(
    photo: str | Path,
    model: str | Path,
    out: str | Path,
    *,
    threads: int = 1,
    engine: str | None = None,
    settings: Settings | None = None,
) -> Enlarged:
    """Upscales one photograph.

    Args:
        photo: any still picture that `runtime.upscale.photograph` reads.
        model: a file of this project that `runtime.engines` opens.
        out: the file to write; its suffix is the format. Replaced if it exists.
        threads, engine: see `runtime.engines.open_model`.
        settings: size, tiles, quality; default: the network's own size, written as well as the format can.

    Raises:
        BadInput: an unreadable photograph, an `out` of another kind or one that is an input, an unusable model.
    """
    photo, model, out = Path(photo), Path(model), Path(out)
    check_out(out, (photo, model))
    with open_model(model, threads=threads, engine=engine) as opened:
        return upscale_open(photo, opened, out, settings or Settings())


def upscale_open(photo: Path, engine: Engine, out: Path, settings: Settings) -> Enlarged:
    """`upscale_photo` with a model that is open already, and a bar of its progress."""
    sweep_one(out)
    with Bar("upscale", 1.0) as bar:
        done = enlarge(photo, engine, out, settings, step=bar.show)
        bar.show(1.0)
    return done


def save_image(image: Image, path: Path) -> None:
    """Writes (H, W, 3) uint8 RGB atomically, in the format of the suffix."""
    height, width = image.shape[:2]
    with open_writer(path, width, height, mode="RGB") as writer:
        writer.write(image)


def check_out(out: Path, inputs: tuple[Path, ...]) -> None:
    """Raises BadInput for a result that would overwrite an input, or that is of no known format."""
    if out.suffix.lower() not in SUFFIXES:
        raise BadInput(f"expected an output out of {', '.join(SUFFIXES)}, found {out.name}: rename it.")
    for taken in inputs:
        if os.path.realpath(out) == os.path.realpath(taken) or (
            out.exists() and taken.exists() and out.samefile(taken)
        ):
            raise BadInput(f"expected an output beside its inputs, found that {out} would overwrite one: rename it.")
