"""LPIPS as a training loss (Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018)."""

from torch import Tensor, nn

from compress.errors import BadInput
from compress.frozen import Frozen
from compress.losses.pairs import full_precision, pair
from compress.metrics import LPIPS_SMALLEST, Backbone, lpips_network


class LpipsLoss(nn.Module):
    """Mean LPIPS v0.1 over the batch, with the weights of the lpips package; gradients reach the image only.

    The same figure as `compress.metrics.lpips_metric` gives for the rounded images.

    Args:
        backbone: 'alex' to compare with published figures, 'vgg' is the usual one to train with, 'squeeze' the smallest.

    Raises:
        BadInput: the lpips package or its backbone's weights cannot be had.
    """

    def __init__(self, backbone: Backbone = "alex"):
        super().__init__()
        self.distance = Frozen(lpips_network(backbone))

    @staticmethod
    def check_patch(side: int) -> None:
        """Whether HR patches of that side can be used, for before the training.

        Raises:
            BadInput: the side is below 32.
        """
        if side < LPIPS_SMALLEST:
            raise BadInput(
                f"expected HR patches of at least {LPIPS_SMALLEST} pixels for the LPIPS loss, found {side}: "
                f"use {LPIPS_SMALLEST} or more."
            )

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """One number, 0 for identical images.

        Args:
            image, target: (N, 3, H, W) RGB in [0, 1], H and W at least 32; scaled to [-1, 1] inside.

        Raises:
            ValueError: shapes that differ, or images that are too small.
        """
        image, target = pair(image, target)
        if min(image.shape[2:]) < LPIPS_SMALLEST:
            raise ValueError(f"expected sides of at least {LPIPS_SMALLEST}, found {tuple(image.shape[2:])}.")
        return full_precision(self.distance(2 * image - 1, 2 * target - 1)).mean()
