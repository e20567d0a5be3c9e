"""Bicubic resampling as MATLAB's `imresize` does it: the degradation that SR benchmarks are defined by.

Keys' cubic kernel with a = -0.5; when shrinking, the kernel is widened by the factor (antialiasing); borders are
mirrored with the edge pixel repeated; weights are normalised per output pixel; rows first, then columns, in double
precision, rounded to uint8 after each of the two. Equal, pixel for pixel, to the published LR files of Set5 and Set14.
"""

import functools
import math

import numpy as np
from numpy.typing import NDArray

KERNEL_WIDTH = 4.0


def imresize(image: NDArray[np.uint8], scale: float) -> NDArray[np.uint8]:
    """Resizes an image by a factor.

    Args:
        image: (H, W) or (H, W, C), 0..255.
        scale: output size over input size, for example 1/4 or 4; the output size is rounded up as in MATLAB.

    Returns:
        uint8, (ceil(H * scale), ceil(W * scale)[, C]), rounded half up and clipped.
    """
    return _to_uint8(_along(_to_uint8(_along(image, 0, scale)), 1, scale))


def crop_to_multiple(image: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    """Cuts rows and columns off the bottom and right until both sizes divide by `factor`."""
    height, width = image.shape[:2]
    return image[: height - height % factor, : width - width % factor]


def _cubic(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Keys (1981), a = -0.5."""
    x = np.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return near * (x <= 1) + far * ((x > 1) & (x <= 2))


@functools.lru_cache(maxsize=64)
def _contributions(size: int, scale: float) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Weights and source indices, (taps, output size) each, along one dimension."""
    out = math.ceil(size * scale - 1e-9)
    widened = min(scale, 1.0)
    centre = (np.arange(out) + 0.5) / scale - 0.5
    taps = math.ceil(KERNEL_WIDTH / widened) + 2
    first = np.floor(centre - KERNEL_WIDTH / widened / 2).astype(np.intp)
    index = first + np.arange(taps)[:, None]
    weight = _cubic(widened * (centre - index))
    weight /= weight.sum(axis=0)
    mirror = np.concatenate([np.arange(size), np.arange(size)[::-1]])
    used = np.any(weight != 0, axis=1)
    return weight[used], mirror[index[used] % (2 * size)]


def _to_uint8(image: NDArray[np.float64]) -> NDArray[np.uint8]:
    return np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8)


def _along(image: NDArray[np.uint8], axis: int, scale: float) -> NDArray[np.float64]:
    weights, indices = _contributions(image.shape[axis], scale)
    shape = [1] * image.ndim
    shape[axis] = -1
    total = np.zeros((*image.shape[:axis], weights.shape[1], *image.shape[axis + 1 :]))
    for weight, index in zip(weights, indices, strict=True):
        total += weight.reshape(shape) * image.take(index, axis=axis)
    return total
