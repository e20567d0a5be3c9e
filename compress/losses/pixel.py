"""Losses of single pixels: (N, C, H, W) images in [0, 1], not clipped, to one number, the mean over all values."""

from torch import Tensor

from compress.losses.pairs import pair


def l1(image: Tensor, target: Tensor) -> Tensor:
    """Mean |image - target|. Gradients reach `image` only.

    Raises:
        ValueError: shapes that differ.
    """
    image, target = pair(image, target)
    return (image - target).abs().mean()


def mse(image: Tensor, target: Tensor) -> Tensor:
    """Mean (image - target)^2. Gradients reach `image` only.

    Raises:
        ValueError: shapes that differ.
    """
    image, target = pair(image, target)
    return (image - target).square().mean()


def charbonnier(image: Tensor, target: Tensor, eps: float = 1e-12) -> Tensor:
    """Mean sqrt((image - target)^2 + eps): L1 that is smooth where the images agree. Gradients reach `image` only.

    Charbonnier et al., "Two Deterministic Half-Quadratic Regularization Algorithms" (ICIP 1994). Identical images
    have the loss sqrt(eps).

    Args:
        eps: added to the squared difference; 1e-12 as in CDISM (others: 1e-6, or 1e-3 squared, which is the same).

    Raises:
        ValueError: shapes that differ.
    """
    image, target = pair(image, target)
    return ((image - target).square() + eps).sqrt().mean()
