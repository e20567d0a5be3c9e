"""Calibration: crops that are real, counted and repeatable."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from compress.errors import BadInput
from compress.quantization.calibration import calibration_crops, neighbour_correlation


def test_calibration_is_counted_hashed_and_repeatable(photographs):
    first = calibration_crops(str(photographs), 2, count=16, side=24)
    again = calibration_crops(str(photographs), 2, count=16, side=24)
    other = calibration_crops(str(photographs), 2, count=16, side=24, seed=1)
    assert first.crops.shape == (16, 3, 24, 24)
    assert torch.equal(first.crops, again.crops)
    assert first.sha256 == again.sha256 != other.sha256
    assert first.describe() == {
        "source": photographs.name, "images": 3, "crops": 16, "side": 24, "sha256": first.sha256
    }  # fmt: skip


def _fill(folder: Path, make) -> Path:
    folder.mkdir()
    for i in range(3):
        Image.fromarray(make(i).astype(np.uint8)).save(folder / f"{i}.png")
    return folder


def test_content_that_is_no_photograph_is_refused(tmp_path, photographs):
    draw = np.random.default_rng(0)
    noise = _fill(tmp_path / "noise", lambda i: draw.integers(0, 256, (200, 200, 3)))
    flat = _fill(tmp_path / "flat", lambda i: np.full((200, 200, 3), 60 * i))
    with pytest.raises(BadInput, match=r"random-looking pixels in .*noise"):
        calibration_crops(str(noise), 2)
    with pytest.raises(BadInput, match=r"flat colours in .*flat"):
        calibration_crops(str(flat), 2)
    crops = calibration_crops(str(photographs), 2, count=16, side=24).crops
    assert neighbour_correlation((crops * 255).byte().permute(0, 2, 3, 1).numpy()) > 0.8


def test_too_little_to_calibrate_on_is_refused(tmp_path, photographs):
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="found none below"):
        calibration_crops(str(tmp_path / "empty"), 2)
    with pytest.raises(BadInput, match="found nothing at"):
        calibration_crops(str(tmp_path / "missing"), 2)
    with pytest.raises(BadInput, match=r"at least 16 calibration crops .* found 15"):
        calibration_crops(str(photographs), 2, count=15, side=24)
    with pytest.raises(BadInput, match="smaller than 130 pixels"):
        calibration_crops(str(photographs), 2, side=65)
