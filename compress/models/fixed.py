"""The deployed form of a network whose operators do not fit the deploy graph: float, for LR images of one size."""

import copy

from torch import Tensor, nn

from compress.deploy import Clip
from compress.errors import BadInput


class FixedSize(nn.Module):
    """(1, 3, H, W) in [0, 1] to (1, 3, s*H, s*W) in [0, 1], for the one size that it was made for.

    Nothing in it depends on the size of its input but by constants, no tensor has a rank above 4, and pixel shuffle and
    clipping are modules (`nn.PixelShuffle`, `Clip`) that an exporter may replace.

    Args:
        network: is copied; `network.unclipped(lr, *context)` is what is computed before the clipping.
        context: constants that depend on the size.
    """

    def __init__(self, network: nn.Module, *context: Tensor):
        super().__init__()
        self.network, self.clip = copy.deepcopy(network), Clip()
        self._context = [f"context_{i}" for i in range(len(context))]
        for name, constant in zip(self._context, context, strict=True):
            self.register_buffer(name, constant)

    def forward(self, lr: Tensor) -> Tensor:
        return self.clip(self.network.unclipped(lr, *(self.get_buffer(name) for name in self._context)))


def check_sides(name: str, height: int, width: int, *, least: int = 1, multiple: int = 1) -> None:
    """Raises BadInput for LR sides below `least` pixels, or that are no multiples of `multiple`."""
    if min(height, width) < least:
        raise BadInput(
            f"expected an LR size of at least {least}x{least} for {name}, found {height}x{width}: choose a larger one."
        )
    if height % multiple or width % multiple:
        near = "x".join(str(max(1, round(side / multiple)) * multiple) for side in (height, width))
        raise BadInput(
            f"expected LR sides that are multiples of {name}'s window of {multiple}, found {height}x{width}: use {near}."
        )
