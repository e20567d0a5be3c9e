"""A 3x3 convolution that trains as five parallel branches and ships as one.

The edge-oriented block of ECBSR (Zhang, Zeng, Zhang, "Edge-oriented Convolution Block for Real-time Super
Resolution on Mobile Devices", ACM MM 2021): a plain 3x3, a 1x1 that widens followed by a 3x3, and three 1x1
followed by scaled depthwise Sobel-x, Sobel-y and Laplacian filters. All are linear, so they sum to one 3x3.

Borders: a branch pads the *output of its 1x1* with the 1x1's bias, which is what a zero-padded input gives. Only
then does the merged, zero-padded convolution equal the branches at the border too.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SOBEL_X = ((1.0, 0.0, -1.0), (2.0, 0.0, -2.0), (1.0, 0.0, -1.0))
SOBEL_Y = ((1.0, 2.0, 1.0), (0.0, 0.0, 0.0), (-1.0, -2.0, -1.0))
LAPLACIAN = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


class ReparameterizedConv(nn.Module):
    """3x3 convolution over (N, in, H, W), zero padding, computed from the merged weights of its branches.

    The forward pass merges the branches (a few thousand multiplications) and runs one convolution, so training
    costs what a plain 3x3 costs. `branches` is the same sum run branch by branch; a test holds them equal.
    """

    edges: Tensor

    def __init__(self, in_channels: int, out_channels: int, expansion: int = 2):
        super().__init__()
        wide = expansion * out_channels
        self.plain = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.widen = nn.Conv2d(in_channels, wide, 1)
        self.squeeze = nn.Conv2d(wide, out_channels, 3, bias=False)
        self.mix = nn.ModuleList(nn.Conv2d(in_channels, out_channels, 1) for _ in range(3))
        self.edge_scale = nn.Parameter(1e-3 * torch.randn(3, out_channels))
        self.register_buffer("edges", torch.tensor([SOBEL_X, SOBEL_Y, LAPLACIAN]), persistent=False)
        init_for_relu(self.plain)
        for conv in (self.widen, *self.mix):
            nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
        nn.init.normal_(self.squeeze.weight, std=1e-3)  # starts as the plain branch, whose signal keeps its size

    def merged(self) -> tuple[Tensor, Tensor]:
        """Weight (out, in, 3, 3) and bias (out,) of the one equal convolution, in float32, differentiable."""
        with torch.autocast(self.edges.device.type, enabled=False):
            assert self.plain.bias is not None
            assert self.widen.bias is not None
            widen = self.widen.weight[:, :, 0, 0]
            weight = self.plain.weight + torch.einsum("omyx,mi->oiyx", self.squeeze.weight, widen)
            bias = self.plain.bias + self.squeeze.weight.sum((2, 3)) @ self.widen.bias
            for mix, edge, scale in zip(self.mixes(), self.edges, self.edge_scale, strict=True):
                weight = weight + torch.einsum("o,yx,oi->oiyx", scale, edge, mix.weight[:, :, 0, 0])
                assert mix.bias is not None
                bias = bias + scale * edge.sum() * mix.bias
            return weight, bias

    def mixes(self) -> list[nn.Conv2d]:
        """The 1x1 convolutions before the Sobel-x, Sobel-y and Laplacian filters."""
        return cast(list[nn.Conv2d], list(self.mix))

    def branches(self, x: Tensor) -> Tensor:
        """The same function, branch by branch, for comparison."""
        total = self.plain(x) + self.squeeze(_pad_with(self.widen(x), self.widen.bias))
        for mix, edge, scale in zip(self.mixes(), self.edges, self.edge_scale, strict=True):
            depthwise = scale[:, None, None, None] * edge
            total = total + F.conv2d(_pad_with(mix(x), mix.bias), depthwise, groups=len(scale))
        return total

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.merged()
        return F.conv2d(x, weight, bias, padding=1)


def init_for_relu(conv: nn.Conv2d) -> None:
    """He initialisation: keeps the signal's size through many ReLU layers, where PyTorch's default lets it vanish."""
    nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
    if conv.bias is not None:
        nn.init.zeros_(conv.bias)


def _pad_with(x: Tensor, value: Tensor) -> Tensor:
    """Pads one pixel on every side with a value per channel."""
    return F.pad(x - value[:, None, None], (1, 1, 1, 1)) + value[:, None, None]
