"""PSNR, SSIM and LPIPS, as published tables of super-resolution compute them. Needs numpy alone (LPIPS: torch)."""

import contextlib
import functools
import math
import pickle
import urllib.error
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput

Image = NDArray[np.uint8]
Plane = NDArray[np.float64]
Backbone = Literal["alex", "squeeze", "vgg"]

LPIPS_SMALLEST = 32
BACKBONE_FILES = {
    "alex": "alexnet-owt-7be5be79.pth",
    "squeeze": "squeezenet1_1-b8a52dc0.pth",
    "vgg": "vgg16-397923af.pth",
}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How figures were computed. Two figures are comparable only where their protocols are equal.

    Attributes:
        colour: the channel of PSNR and SSIM, and its standard.
        rounding: of the super-resolved image and of the channel.
        border: pixels left out on every side; always the scale.
        psnr: how images combine.
        ssim: window and constants.
        lpips: network version and backbone, or None where it was not computed.
        lr: 'files' where the set comes with LR images, 'imresize' where they were made here.
    """

    colour: str = "Y = 16 + (65.481 R + 128.553 G + 24.966 B) / 255, BT.601 limited range"
    rounding: str = "SR clipped and rounded to uint8; Y not rounded"
    border: str = "scale"
    psnr: str = "peak 255, per image, then the mean over images; identical images are inf and left out of the mean"
    ssim: str = "Gaussian 11x11, sigma 1.5, valid windows, population covariance, K 0.01 0.03, L 255"
    lpips: str | None = None
    lr: Literal["files", "imresize"] = "files"


PROTOCOL = Protocol()


def luma(rgb: Image) -> Plane:
    """Y of ITU-R BT.601 in limited range, not rounded, as MATLAB's `rgb2ycbcr` before its rounding.

    Args:
        rgb: (H, W, 3) uint8, 0..255.

    Returns:
        (H, W), 16..235.
    """
    return 16.0 + rgb.astype(np.float64) @ np.array([65.481, 128.553, 24.966]) / 255.0


def psnr(sr: Image, hr: Image, border: int) -> float:
    """Peak signal-to-noise ratio of Y in dB, peak 255; inf for identical images.

    Args:
        sr, hr: (H, W, 3) uint8, 0..255.
        border: pixels cut from every side first.

    Raises:
        ValueError: sizes differ, or nothing is left within the border.
    """
    return plane_psnr(*_inner(sr, hr, border))


def ssim(sr: Image, hr: Image, border: int) -> float:
    """Structural similarity of Y, at most 1; nan where less than 11 pixels are left on a side.

    Args:
        sr, hr: (H, W, 3) uint8, 0..255.
        border: pixels cut from every side first.

    Raises:
        ValueError: sizes differ, or nothing is left within the border.
    """
    return plane_ssim(*_inner(sr, hr, border))


def plane_psnr(x: Plane, y: Plane) -> float:
    """PSNR in dB of two (H, W) planes, peak 255; inf where they are equal."""
    error = float(np.mean((x - y) ** 2))
    return math.inf if error == 0 else 10 * math.log10(255.0**2 / error)


def plane_ssim(x: Plane, y: Plane) -> float:
    """SSIM of two (H, W) planes of range 255, after Wang et al., IEEE TIP 13(4), 2004; nan below 11x11 pixels."""
    if min(x.shape) < 11:
        return math.nan
    mean_x, mean_y = _blur(x), _blur(y)
    variance_x, variance_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
    covariance = _blur(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(similarity / ((mean_x**2 + mean_y**2 + c1) * (variance_x + variance_y + c2))))


def mean(values: Iterable[float]) -> float:
    """The mean of the finite values; where there are none, inf if any was inf (all identical), else nan."""
    values = list(values)
    finite = [value for value in values if math.isfinite(value)]
    if finite:
        return math.fsum(finite) / len(finite)
    return math.inf if math.inf in values else math.nan


@functools.cache
def lpips_metric(backbone: Backbone = "alex") -> Callable[[Image, Image], float]:
    """LPIPS v0.1 (Zhang et al. 2018): a function of two (H, W, 3) uint8 images; 0 for identical ones, lower is closer.

    The network is built once per backbone and sees whole images, no border cut, scaled to [-1, 1].
    Images below 32 pixels on a side vanish inside the backbones: nan.

    Raises:
        BadInput: the lpips package is missing, torchvision does not fit torch, or no backbone weights.
    """
    network = lpips_network(backbone)
    import torch

    def tensor(image: Image) -> torch.Tensor:
        return torch.from_numpy(image.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None]

    def distance(sr: Image, hr: Image) -> float:
        if min(hr.shape[:2]) < LPIPS_SMALLEST:
            return math.nan
        with torch.no_grad():
            return float(network(tensor(sr), tensor(hr)))

    return distance


def lpips_network(backbone: Backbone) -> Any:
    """LPIPS v0.1 as the lpips package builds it: a network of two (N, 3, H, W) images in [-1, 1].

    Raises:
        BadInput: the lpips package is missing, torchvision does not fit torch, or no backbone weights.
    """
    with optional_packages("or leave LPIPS out"):
        import lpips
    name, file = f"LPIPS's {backbone} backbone", BACKBONE_FILES[backbone]
    with imagenet_weights(name, file, "or use another backbone"), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision by its old argument names
        return lpips.LPIPS(net=backbone, version="0.1", verbose=False)


@contextlib.contextmanager
def optional_packages(otherwise: str) -> Iterator[None]:
    """Says in a sentence why torchvision, or what needs it, cannot be imported; `otherwise` ends it.

    Raises:
        BadInput: a package is missing, or torchvision does not fit torch.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        name = error.name
        raise BadInput(f"expected the package {name}, found no {name}: pip install {name}, {otherwise}.") from error
    except RuntimeError as error:
        raise BadInput(
            f"expected a torchvision built for this torch, found that they do not fit ({_line(error)}): install both "
            f"from the same index and release, {otherwise}."
        ) from error


@contextlib.contextmanager
def imagenet_weights(network: str, file: str, otherwise: str) -> Iterator[None]:
    """Says in a sentence why torchvision has no weights of a network, and where in torch.hub's folder their file goes.

    `otherwise` ends it.

    Raises:
        BadInput: no weights and no network to fetch them through, or a damaged file.
    """
    import torch

    try:
        yield
    except (urllib.error.URLError, OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise BadInput(
            f"expected the ImageNet weights of {network}, found none that can be used ({_line(error)}): "
            f"put {file} into {torch.hub.get_dir()}/checkpoints (TORCH_HOME moves it), {otherwise}."
        ) from error


def _line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _inner(sr: Image, hr: Image, border: int) -> tuple[Plane, Plane]:
    """Y of both within the border."""
    if sr.shape != hr.shape or sr.ndim != 3 or sr.shape[2] != 3:
        raise ValueError(f"expected two (H, W, 3) images of one size, found {sr.shape} and {hr.shape}.")
    height, width = hr.shape[:2]
    if min(height, width) <= 2 * border:
        raise ValueError(f"expected an image larger than twice its border of {border}, found {width}x{height}.")
    inside = np.s_[border : height - border, border : width - border]
    return luma(sr[inside]), luma(hr[inside])


def _blur(image: Plane) -> Plane:
    """Gaussian mean of every full 11x11 window: (H, W) to (H - 10, W - 10)."""
    offsets = np.arange(-5, 6)
    weights = np.exp(-(offsets**2) / (2 * 1.5**2))
    weights /= weights.sum()
    height, width = image.shape
    rows = sum((weight * image[i : i + height - 10] for i, weight in enumerate(weights)), np.zeros(()))
    return sum((weight * rows[:, i : i + width - 10] for i, weight in enumerate(weights)), np.zeros(()))
