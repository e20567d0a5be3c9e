"""Calibration crops: real LR image content, counted and hashed."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compress.data.cache import Pair, collect
from compress.data.images import find_images
from compress.data.sources import DEFAULT_SOURCE, skimage_photographs
from compress.errors import BadInput

CROPS = 128
LR_SIDE = 64
NATURAL_CORRELATION = 0.5  # photographs reduced by bicubic: above 0.8; noise: 0


@dataclass(frozen=True)
class CalibrationCrops:
    """LR crops (N, 3, side, side), float32 RGB in [0, 1], with what identifies them."""

    crops: Tensor
    source: str
    images: int
    sha256: str

    def describe(self) -> dict[str, Any]:
        """For provenance."""
        side = self.crops.shape[-1]
        return {
            "source": self.source,
            "images": self.images,
            "crops": len(self.crops),
            "side": side,
            "sha256": self.sha256,
        }


def calibration_crops(
    folder: str, scale: int, *, count: int = CROPS, side: int = LR_SIDE, seed: int = 0
) -> CalibrationCrops:
    """Cuts LR crops out of photographs.

    Args:
        folder: of HR photographs, or 'skimage'; their LR versions are made by MATLAB's bicubic.
        scale: of the student.
        count: crops; at least 16. 100 to 300 are customary.
        side: of a crop, in LR pixels.
        seed: of the positions.

    Raises:
        BadInput: no such folder, no usable image, too few crops asked for, or content that is no photograph.
    """
    if count < 16 or side < 16:
        raise BadInput(
            f"expected at least 16 calibration crops of at least 16x16, found {count} of {side}x{side}: use more."
        )
    paths = skimage_photographs("train") if folder == DEFAULT_SOURCE else find_images(folder)
    pairs = collect(paths, scale, side).pairs
    crops = np.stack([_draw_crop(pairs, side, np.random.default_rng((seed, i))) for i in range(count)])
    _refuse_noise(crops, folder)
    tensor = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    name = folder if folder == DEFAULT_SOURCE else Path(folder).name
    return CalibrationCrops(tensor, name, len(pairs), hashlib.sha256(crops.tobytes()).hexdigest())


def _draw_crop(pairs: Sequence[Pair], side: int, draw: np.random.Generator) -> NDArray[np.uint8]:
    lr = pairs[int(draw.integers(len(pairs)))].lr
    top = int(draw.integers(lr.shape[0] - side + 1))
    left = int(draw.integers(lr.shape[1] - side + 1))
    return np.asarray(lr[top : top + side, left : left + side])


def neighbour_correlation(crops: NDArray[np.uint8]) -> float:
    """Correlation of horizontally neighbouring pixels over all crops (N, h, w, 3): near 1 in photographs, 0 in noise."""
    grey = crops.astype(np.float64).mean(axis=3)
    left, right = grey[:, :, :-1].ravel(), grey[:, :, 1:].ravel()
    if left.std() == 0 or right.std() == 0:
        return 0.0
    return float(np.corrcoef(left, right)[0, 1])


def _refuse_noise(crops: NDArray[np.uint8], folder: str) -> None:
    within = crops.astype(np.float64).std(axis=(1, 2))
    if within.max() == 0:
        raise BadInput(
            f"expected photographs to calibrate on, found flat colours in {folder}: name a folder of photographs."
        )
    found = neighbour_correlation(crops)
    if found < NATURAL_CORRELATION:
        raise BadInput(
            f"expected photographs to calibrate on, found random-looking pixels in {folder} (neighbours correlate "
            f"{found:.2f}, in photographs above {NATURAL_CORRELATION}): name a folder of photographs."
        )
