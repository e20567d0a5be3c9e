"""Golden vectors, which `python -m export` writes beside its files: what the PyTorch reference makes of one photograph."""

import json
import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput
from compress.files import sha256
from export.metadata import INTEGER, Metadata
from runtime.engines.base import Image, Raw, to_pixels, to_real

GOLDEN, MANIFEST = "golden.npz", "manifest.json"
INTEGER_LSB, INTEGER_WITHIN = 2.0, 0.99  # the gate's own limits, see runtime.parity
FLOAT_PSNR = 60.0
APART = 4  # 0, 1, 2, or more LSB


@dataclass(frozen=True)
class Golden:
    """An LR image, (H, W, 3) uint8, and what a file must make of it: uint8 pixels, or float32 in [0, 1]."""

    lr: Image
    sr: NDArray[np.uint8] | NDArray[np.float32]


@dataclass(frozen=True)
class Agreement:
    """A file's output against its golden vector.

    Attributes:
        max_lsb: largest difference in steps of 1/255; nan if any value is not finite.
        within: share of values at most 1 LSB apart.
        distribution: shares of pixels 0, 1, 2, and more LSB apart, after rounding.
        psnr: dB over R, G and B; inf where all are equal.
        failures: which figure misses which limit.
    """

    max_lsb: float
    within: float
    distribution: tuple[float, ...]
    psnr: float
    failures: tuple[str, ...]


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
            golden = Golden(arrays["lr"], arrays[wanted])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BadInput(f"expected golden vectors, found a damaged file in {path} ({error}): export again.") from error
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


def compare(raw: Raw, golden: Golden, metadata: Metadata) -> Agreement:
    """Holds a file's output against its golden vector, with the limits of the gate. A float file that gives pixels is held
    against rounded values."""
    pixels = to_pixels(golden.sr)
    expected = to_real(pixels if raw.dtype == np.uint8 else golden.sr)
    difference = np.abs(to_real(raw) - expected) * 255
    apart = np.abs(to_pixels(raw).astype(np.int16) - pixels)
    counts = np.bincount(np.minimum(apart, APART - 1).ravel(), minlength=APART)
    error = float(np.mean(difference**2))
    largest = float(np.max(difference))  # nan where one value is
    within = float(np.mean(difference <= 1 + 1e-6))
    psnr = math.inf if error == 0 else 10 * math.log10(255**2 / error)
    failures = []
    if metadata.precision in INTEGER:
        if not largest <= INTEGER_LSB + 1e-6:
            failures.append(f"largest difference {largest:.0f} LSB, limit {INTEGER_LSB:.0f} LSB")
        if not within >= INTEGER_WITHIN:
            failures.append(f"{within:.2%} of values within 1 LSB, limit {INTEGER_WITHIN:.0%}")
    elif not psnr >= FLOAT_PSNR:
        failures.append(f"PSNR against the reference {psnr:.2f} dB, limit {FLOAT_PSNR:g} dB")
    return Agreement(largest, within, tuple(float(n) / apart.size for n in counts), psnr, tuple(failures))


def _check_manifest(folder: Path, file: Path) -> None:
    """Raises BadInput where the folder's manifest speaks of another file of that name, or of other vectors."""
    path = folder / MANIFEST
    if not path.is_file():
        return
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        hashes = {row["file"]: row["sha256"] for row in manifest["files"]}
        hashes[GOLDEN] = manifest["golden"]["sha256"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BadInput(f"expected the manifest of an export, found something else in {path}: export again.") from error
    for one in (file, folder / GOLDEN):
        if hashes.get(one.name, "") not in ("", sha256(one)):
            raise BadInput(f"expected the {one.name} that {path} lists, found another in {one}: export again.")
