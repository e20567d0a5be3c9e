"""MATLAB's bicubic: equal to the published LR files, and to a plain double loop over the definition."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from compress.data.benchmarks import open_benchmark
from compress.data.bicubic import crop_to_multiple, imresize

FACTORS = [1 / 2, 1 / 3, 1 / 4, 2, 3, 4]


def _kernel(x: float) -> float:
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x <= 2 else 0.0


def _resized_line(line: list[float], scale: float) -> list[float]:
    """One row or column by the definition: widened kernel when shrinking, mirrored borders, weights normalised."""
    size, shrink = len(line), min(scale, 1.0)
    out = []
    for position in range(math.ceil(size * scale - 1e-9)):
        centre = (position + 0.5) / scale - 0.5
        total = weights = 0.0
        for source in range(math.floor(centre - 2 / shrink) - 1, math.ceil(centre + 2 / shrink) + 2):
            weight = _kernel(shrink * (centre - source))
            mirrored = source % (2 * size)
            total += weight * line[mirrored if mirrored < size else 2 * size - 1 - mirrored]
            weights += weight
        out.append(total / weights)
    return out


def _rounded(value: float) -> int:
    return min(255, max(0, math.floor(value + 0.5)))


def _reference(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    columns = [[_rounded(v) for v in _resized_line([float(p) for p in column], scale)] for column in image.T]
    rows = [[_rounded(v) for v in _resized_line([float(p) for p in row], scale)] for row in zip(*columns, strict=True)]
    return np.array(rows, dtype=np.uint8)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("size", [(12, 24), (7, 10), (5, 3)])
def test_a_grey_image_equals_the_plain_definition(factor, size):
    image = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    assert np.array_equal(imresize(image, factor), _reference(image, factor))


@pytest.mark.parametrize("factor", FACTORS)
def test_channels_are_resized_one_by_one(factor):
    image = np.random.default_rng(2).integers(0, 256, (12, 13, 3), dtype=np.uint8)
    together = imresize(image, factor)
    assert np.array_equal(together, np.stack([imresize(image[..., c], factor) for c in range(3)], axis=2))


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("level", [0, 1, 128, 255])
def test_a_constant_image_stays_constant(factor, level):
    assert np.unique(imresize(np.full((13, 17, 3), level, dtype=np.uint8), factor)).tolist() == [level]


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize(("height", "width"), [(13, 17), (12, 24), (4, 5), (1, 1), (33, 2)])
def test_sizes_are_rounded_up(factor, height, width):
    out = imresize(np.zeros((height, width, 3), dtype=np.uint8), factor)
    divisor = round(1 / factor)
    expected = (-(-height // divisor), -(-width // divisor)) if factor < 1 else (height * factor, width * factor)
    assert out.shape == (*expected, 3)
    assert out.dtype == np.uint8


def test_cropping_keeps_the_top_left_corner():
    image = np.arange(7 * 10, dtype=np.uint8).reshape(7, 10)
    assert np.array_equal(crop_to_multiple(image, 4), image[:4, :8])
    assert np.array_equal(crop_to_multiple(image[:4, :8], 4), image[:4, :8])


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_the_published_lr_files_are_reproduced(shared_data, name, scale):
    benchmark = open_benchmark(name, scale, shared_data / "eval")
    if benchmark.lr != "files":
        pytest.skip(f"{name} has no LR files for x{scale}")
    for image, lr, hr in benchmark:
        made = imresize(hr, 1 / scale).astype(int)
        error = np.abs(made - lr)
        assert error.max() == 0, image
        if error.any():
            assert 10 * math.log10(255**2 / (error**2).mean()) > 60, image
