"""What all losses of two tensors share."""

import torch
from torch import Tensor


def pair(image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float32 at least, whatever autocast made of them, and the target without its gradient.

    Raises:
        ValueError: the shapes differ; torch would broadcast them.
    """
    if image.shape != target.shape:
        raise ValueError(f"expected two tensors of one shape, found {tuple(image.shape)} and {tuple(target.shape)}.")
    return full_precision(image), full_precision(target.detach())


def full_precision(x: Tensor) -> Tensor:
    """Itself in float32, or in float64 where it already is."""
    return x if x.dtype == torch.float64 else x.float()
