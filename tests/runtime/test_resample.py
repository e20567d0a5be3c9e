"""Resampling in strips: Pillow's own result, whatever the strips."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from runtime.upscale.resample import Resampler

LANCZOS = Image.Resampling.LANCZOS


def whole(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pillow's result across, then down."""
    across = Image.fromarray(pixels).resize((width, len(pixels)), LANCZOS)
    return np.asarray(across.resize((width, height), LANCZOS))


def in_strips(pixels: np.ndarray, height: int, width: int, cuts: list[int]) -> np.ndarray:
    resampler = Resampler(pixels.shape[:2], (height, width))
    return np.concatenate([rows for strip in np.split(pixels, cuts) for rows in resampler.push(strip)])


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.tuples(*[st.integers(1, 90)] * 4),
    rows=st.lists(st.integers(0, 90), max_size=6),
    hard=st.booleans(),
    seed=st.integers(0, 99),
)
def test_strips_are_the_whole_image(sizes, rows, hard, seed):
    before, width_before, after, width_after = sizes
    pixels = np.random.default_rng(seed).integers(0, 256, (before, width_before, 3), np.uint8)
    if hard:  # edges from 0 to 255, where Lanczos overshoots and is clipped
        pixels = np.where(pixels > 127, np.uint8(255), np.uint8(0))
    cuts = sorted({cut for cut in rows if 0 < cut < before})
    assert np.array_equal(in_strips(pixels, after, width_after, cuts), whole(pixels, after, width_after))


@pytest.mark.parametrize("height", [777, 3001, 4999])
def test_far_down_a_tall_image(height):
    """Where positions in single precision would be off."""
    pixels = np.random.default_rng(0).integers(0, 256, (4001, 5, 3), np.uint8)
    found = in_strips(pixels, height, 4, list(range(64, 4001, 64)))
    assert np.array_equal(found, whole(pixels, height, 4))


def test_a_photograph_as_pillow_resizes_it_in_one_call():
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    expected = np.asarray(Image.fromarray(pixels).resize((300, 225), LANCZOS))
    assert np.array_equal(in_strips(pixels, 225, 300, [100, 200]), expected)
