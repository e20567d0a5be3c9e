"""Golden vectors, which `python -m export` writes beside its files: what the PyTorch reference makes of one photograph."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput
from compress.files import parse_json, sha256
from export.metadata import INTEGER, Metadata
from runtime.engines.base import Image, Raw
from runtime.parity.agreement import Agreement, Tally

GOLDEN, MANIFEST = "golden.npz", "manifest.json"


@dataclass(frozen=True)
class Golden:
    """An LR image, (H, W, 3) uint8, and what a file must make of it: uint8 pixels, or float32 in [0, 1]."""

    lr: Image
    sr: NDArray[np.uint8] | NDArray[np.float32]


def read_golden(folder: Path, file: Path, metadata: Metadata) -> Golden:
    """The golden vector of a file's precision.

    Args:
        folder: that `python -m export` wrote.
        file: exported; where the folder's manifest lists it, it must be the file that it lists.
        metadata: of the file.

    Raises:
        BadInput: no vectors, damaged ones, or ones of another file.
    """
    path = folder / GOLDEN
    if not path.is_file():
        raise BadInput(
            f"expected golden vectors, found none at {path}: name the folder that `python -m export` wrote with --golden."
        )
    _check_manifest(folder, file)
    wanted = f"sr_{'float32' if metadata.precision == 'float16' else metadata.precision}"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if "lr" not in arrays or wanted not in arrays:
                raise BadInput(
                    f"expected golden vectors of {metadata.precision}, found {', '.join(arrays)} in {path}: name the folder that "
                    f"{file.name} was exported to."
                )
            golden = Golden(np.asarray(arrays["lr"]), np.asarray(arrays[wanted]))
    except BadInput:
        raise
    except Exception as error:  # numpy reads headers as Python literals, and raises what its tokenizer does
        said = " ".join(str(error).split())[:200]
        raise BadInput(f"expected golden vectors, found a damaged file in {path} ({said}): export again.") from error
    height, width = golden.lr.shape[:2] if golden.lr.ndim == 3 else (0, 0)
    dtype = np.uint8 if metadata.precision in INTEGER else np.float32
    shape = (height * metadata.scale, width * metadata.scale, 3)
    if (
        golden.lr.dtype != np.uint8
        or golden.lr.shape[2:] != (3,)
        or (golden.sr.dtype, golden.sr.shape) != (dtype, shape)
    ):
        raise BadInput(
            f"expected golden vectors of an image and of x{metadata.scale}, found {golden.lr.dtype} {golden.lr.shape} and "
            f"{golden.sr.dtype} {golden.sr.shape} in {path}: name the folder that {file.name} was exported to."
        )
    return golden


def compare(raw: Raw, golden: Golden) -> Agreement:
    """How far a file's output is from its golden vector; a float file that gives pixels is held against rounded values."""
    tally = Tally()
    tally.add(raw, golden.sr)
    return tally.agreement()


def _check_manifest(folder: Path, file: Path) -> None:
    """Raises BadInput where the folder's manifest speaks of another file of that name, or of other vectors."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        manifest = parse_json(path.read_text(encoding="utf-8"))
        hashes = {row["file"]: row["sha256"] for row in manifest["files"]}
        hashes[GOLDEN] = manifest["golden"]["sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"expected the manifest of an export, found something else in {path}: export again.") from error
    for one in (file, folder / GOLDEN):
        if hashes.get(one.name, "") not in ("", sha256(one)):
            raise BadInput(f"expected the {one.name} that {path} lists, found another in {one}: export again.")
