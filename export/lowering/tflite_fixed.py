"""A network of one image size in operators that have a native TFLite counterpart; what fits the deploy graph is in tflite.py."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.deploy import Clip, shuffle_order
from compress.models.fixed import FixedSize
from export.lowering.tflite import depth_to_space


class _NativeShuffle(nn.Module):
    """`nn.PixelShuffle` of channels in the order (r, r, C)."""

    def __init__(self, block: int):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return depth_to_space(x.permute(0, 2, 3, 1), self.block).permute(0, 3, 1, 2)


class _NativeClip(nn.Module):
    """Clipping without RELU_0_TO_1, which delegates refuse."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x) - F.relu(x - 1)


def tflite_fixed(network: FixedSize) -> FixedSize:
    """The same network, changed in place: shuffles, with the convolutions before them reordered, and clipping."""
    for module in network.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, nn.PixelShuffle):
                _reorder(module[int(name) - 1], child.upscale_factor)  # type: ignore[index]
                setattr(module, name, _NativeShuffle(child.upscale_factor))
            elif isinstance(child, Clip):
                setattr(module, name, _NativeClip())
    return network


@torch.no_grad()
def _reorder(conv: nn.Conv2d, block: int) -> None:
    order = shuffle_order(conv.out_channels, block)
    conv.weight.copy_(conv.weight[order])
    assert conv.bias is not None
    conv.bias.copy_(conv.bias[order])
