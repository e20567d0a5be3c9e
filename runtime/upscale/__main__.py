"""Upscales a photograph or a folder of them. Needs numpy, Pillow and the engine of the model; no torch.

A photograph is read upright, runs through the network in tiles, is resampled to the size that is asked for, and is written
strip by strip, with its EXIF, its colour profile and its transparency. docs/photographs.md says what happens to each kind.

A folder is mirrored into another one. The command may be killed and run again: what is finished is skipped. What cannot be
upscaled is named, the rest goes on, and the command exits with 1.
"""

import argparse
import os
import sys
from pathlib import Path

from compress.errors import BadInput, run_command
from runtime.engines import ENGINE_HELP, open_model
from runtime.planner import largest_tile
from runtime.units import parse_bytes
from runtime.upscale.crew import Opening
from runtime.upscale.enlarge import Settings
from runtime.upscale.folder import FolderReport, upscale_folder
from runtime.upscale.photograph import MAX_MEGAPIXELS
from runtime.upscale.single import check_out, upscale_open
from runtime.upscale.sizes import Target
from runtime.upscale.writers import SUFFIXES
from runtime.windows import LARGEST

FORMATS = {"png": ".png", "jpg": ".jpg", "webp": ".webp", "tiff": ".tiff"}


def suffix_for(photo: Path, kind: str | None) -> str:
    """Of the result of a photograph, where `kind` is what the user asked for."""
    if kind:
        return FORMATS[kind]
    return photo.suffix if photo.suffix.lower() in SUFFIXES else ".png"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.upscale", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "photo",
        type=Path,
        metavar="PHOTO|FOLDER",
        help="a picture, or a folder of pictures, looked into all the way down",
    )
    add("--model", type=Path, required=True, metavar="FILE", help="what pocketsr exported: .tflite, .onnx, ...")
    add(
        "--out",
        type=Path,
        metavar="PATH",
        help="the file or folder to write (default: beside PHOTO or FOLDER, as NAME_x4)",
    )
    add(
        "--scale",
        type=float,
        metavar="S",
        help="times the photograph's size, 1.5 say (default: the network's own scale)",
    )
    add("--width", type=int, metavar="PIXELS", help="of the result; alone, it keeps the proportions")
    add("--height", type=int, metavar="PIXELS", help="of the result; with --width, both are exact")
    add(
        "--tile",
        default="auto",
        metavar="auto|N",
        help="pixels of the photograph that the network sees at once, N by N",
    )
    add("--memory", metavar="SIZE", help="what one tile may take in the network, 64MB say: the largest tile that fits")
    add(
        "--format",
        choices=tuple(FORMATS),
        help="of the results (default: the photograph's own; PNG for what is none of these)",
    )
    add(
        "--quality",
        type=int,
        metavar="1-100",
        help="of JPEG, or of WebP, which is lossless otherwise (default for JPEG: 95)",
    )
    add("--jobs", type=int, default=1, metavar="N", help="photographs of a folder at work at once (default: 1)")
    add("--threads", type=int, default=1, metavar="N", help="processor threads for each (default: 1)")
    add("--engine", help=f"{ENGINE_HELP}; default: what the model's suffix says")
    add("--max-megapixels", type=float, default=MAX_MEGAPIXELS, metavar="MP",
        help=f"refuse larger photographs unread (default: {MAX_MEGAPIXELS:g})")  # fmt: skip
    return parser


def main() -> int:
    given = _parser().parse_args()
    settings = Settings(
        target=Target(given.scale, given.width, given.height),
        tile=_tile(given),
        quality=given.quality,
        max_megapixels=given.max_megapixels,
    )
    if not given.photo.is_dir():
        return _one(given, settings)
    if given.jobs < 1:
        raise BadInput(f"expected 1 job or more, found {given.jobs}: use the number of processor cores.")
    opening = Opening(given.model, given.engine, given.threads)
    report = upscale_folder(
        given.photo, given.out, opening, settings, lambda photo: suffix_for(photo, given.format), given.jobs
    )
    _print_report(report)
    return 1 if report.failed else 0


def _tile(given: argparse.Namespace) -> int | None:
    if given.memory is not None:
        if given.tile != "auto":
            raise BadInput("expected --tile or --memory, found both: leave one of them out.")
        return largest_tile(given.model, parse_bytes(given.memory), threads=given.threads, most=LARGEST)
    if given.tile == "auto":
        return None
    try:
        return int(given.tile)
    except ValueError as error:
        raise BadInput(f"expected --tile auto or a number of pixels, found {given.tile!r}: 256, say.") from error


def _one(given: argparse.Namespace, settings: Settings) -> int:
    with open_model(given.model, threads=given.threads, engine=given.engine) as engine:
        name = f"{given.photo.stem}_{settings.target.label(engine.scale)}{suffix_for(given.photo, given.format)}"
        out = given.out or given.photo.with_name(name)
        if out.is_dir():
            out = out / name
        if given.format and out.suffix.lower() not in _family(given.format):
            raise BadInput(
                f"expected an output named {FORMATS[given.format]}, found {out.name}: leave out --format, or rename it."
            )
        check_out(out, (given.photo, given.model))
        done = upscale_open(given.photo, engine, out, settings)
    (before_height, before_width), (height, width) = done.before, done.after
    tiles = f"{done.tiles} tile{'s' if done.tiles != 1 else ''}"
    print(
        f"wrote {done.out}: {width}x{height} pixels from {before_width}x{before_height} in {done.seconds:.1f} s "
        f"({tiles}, {done.speed:.1f} megapixels per second)"
    )
    for note in done.notes:
        print(f"note: {note}")
    return 0


def _family(kind: str) -> set[str]:
    """The suffixes of a format."""
    return {"jpg": {".jpg", ".jpeg"}, "tiff": {".tif", ".tiff"}}.get(kind, {FORMATS[kind]})


def _print_report(report: FolderReport) -> None:
    if report.written:
        pixels = sum(one.after[0] * one.after[1] for one in report.written) / 1e6
        print(
            f"wrote {_count(len(report.written))} into {report.out}: {pixels:.1f} megapixels in {report.seconds:.1f} s "
            f"({sum(one.tiles for one in report.written)} tiles, {pixels / report.seconds:.1f} megapixels per second)"
        )
    else:
        print(f"wrote nothing into {report.out}")
    if report.skipped:
        print(f"skipped {_count(report.skipped)} that were done before")
    if passed_over := report.tree.passed_over():
        print(f"passed over {passed_over}")
    for note, count in report.notes.most_common():
        print(f"note on {_count(count)}: {note}")
    if report.failed:
        print(f"{len(report.failed)} could not be upscaled", file=sys.stderr)


def _count(photographs: int) -> str:
    return f"{photographs} photograph{'' if photographs == 1 else 's'}"


def _of_folder(arguments: list[str]) -> bool:
    """Whether they name a folder to upscale, whose photographs have processes that contain crashes as they are."""
    others = ("--out", "--model")  # may be folders as well
    return any(
        os.path.isdir(one) for before, one in zip(["", *arguments], arguments, strict=False) if before not in others
    )


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be text
    run_command(main, contained=not _of_folder(sys.argv[1:]))
