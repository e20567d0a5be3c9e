"""MultiLap, the distillation loss of CDISM: two Laplacian pyramids, one of the image and one of its high frequencies.

Jiang et al., "Compressing Deep Image Super-resolution Models" (PCS 2024), as its published code computes it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import BadInput
from compress.losses.pairs import pair

LEVELS = 5
"""Four band-pass levels and the low-pass residual."""
STEP = 2 ** (LEVELS - 1)
SMALLEST = 2 * STEP
"""Below it the coarsest blurred level is smaller than the reflected border of 2 needs."""
LAYOUT = torch.channels_last
"""Three times faster for these convolutions of single channels on a CPU."""


class MultiLap(nn.Module):
    """MultiLap(p, t) = Lap(p, t) + Lap(p - G*p, t - G*t), with Lap(p, t) = sum over i of 2^i mean |L_i(p) - L_i(t)|.

    L_0..L_3 are x - expand(reduce(x)) at each halving, L_4 is what is left. G is the binomial [1 4 6 4 1] (x) itself / 256
    with reflected borders; reduce blurs with G, then averages 2x2; expand inserts zeros, then blurs with 4 G. All of this
    is linear, so the pyramids are those of p - t. Always in float32, also inside autocast.
    """

    kernel: Tensor

    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
        self.register_buffer("kernel", torch.outer(line, line)[None, None], persistent=False)

    @staticmethod
    def check_patch(side: int) -> None:
        """Whether HR patches of that side can be used, for before the training.

        Raises:
            BadInput: the side is not a multiple of 16, or below 32.
        """
        if side % STEP or side < SMALLEST:
            fits = max(SMALLEST, round(side / STEP) * STEP)
            raise BadInput(
                f"expected HR patches for the MultiLap loss with sides that are multiples of {STEP} and at least "
                f"{SMALLEST}, found {side}: use {fits}."
            )

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """One number. Gradients reach `image` only.

        Args:
            image, target: (N, C, H, W) in [0, 1], H and W multiples of 16 and at least 32.

        Raises:
            ValueError: shapes that differ, or sides that do not fit.
        """
        image, target = pair(image, target)
        height, width = image.shape[2:]
        if height % STEP or width % STEP or min(height, width) < SMALLEST:
            raise ValueError(
                f"expected sides that are multiples of {STEP}, at least {SMALLEST}, found {width}x{height}."
            )
        with torch.autocast(image.device.type, enabled=False):
            difference = (image - target).contiguous(memory_format=LAYOUT)
            high = difference - self._blur(difference)
            return self._weighted(difference) + self._weighted(high)

    def _weighted(self, x: Tensor) -> Tensor:
        total = torch.zeros((), dtype=x.dtype, device=x.device)
        for level in range(LEVELS - 1):
            coarse = F.avg_pool2d(self._blur(x), 2)
            total = total + 2**level * (x - self._expand(coarse)).abs().mean()
            x = coarse
        return total + 2 ** (LEVELS - 1) * x.abs().mean()

    def _blur(self, x: Tensor) -> Tensor:
        channels = x.shape[1]
        kernel = self.kernel.to(x.dtype).expand(channels, 1, 5, 5)
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, groups=channels)

    def _expand(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        shape = (count, channels, 2 * height, 2 * width)
        spread = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=LAYOUT).zero_()
        spread[:, :, ::2, ::2] = x
        return 4 * self._blur(spread)
