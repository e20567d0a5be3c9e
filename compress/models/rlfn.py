"""RLFN, a strong convolutional teacher of half a million parameters.

Kong et al., "Residual Local Feature Network for Efficient Super-Resolution" (CVPRW 2022). A teacher only: its
attention branch (strided convolution, max pooling, bilinear resize) has no deploy form.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class RLFNConfig:
    """Sizes of RLFN; the defaults are the published network.

    Attributes:
        scale: 2, 3 or 4.
        channels: feature maps.
        blocks: residual local feature blocks.
        attention_channels: feature maps of the spatial attention.
    """

    scale: Literal[2, 3, 4] = 4
    channels: int = 52
    blocks: int = 6
    attention_channels: int = 16


class SpatialAttention(nn.Module):
    """Enhanced spatial attention (ESA): a coarse map, resized back, gates the features."""

    def __init__(self, channels: int, narrow: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, narrow, 1)
        self.conv_f = nn.Conv2d(narrow, narrow, 1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride=2)
        self.conv3 = nn.Conv2d(narrow, narrow, 3, padding=1)
        self.conv4 = nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)
        coarse = self.conv3(F.max_pool2d(self.conv2(narrow), kernel_size=7, stride=3))
        coarse = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(coarse + self.conv_f(narrow)))


class ResidualLocalFeatureBlock(nn.Module):
    """Three 3x3 convolutions with LeakyReLU, a skip, a 1x1 and spatial attention."""

    def __init__(self, channels: int, attention_channels: int):
        super().__init__()
        self.c1_r = nn.Conv2d(channels, channels, 3, padding=1)
        self.c2_r = nn.Conv2d(channels, channels, 3, padding=1)
        self.c3_r = nn.Conv2d(channels, channels, 3, padding=1)
        self.c5 = nn.Conv2d(channels, channels, 1)
        self.esa = SpatialAttention(channels, attention_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for conv in (self.c1_r, self.c2_r, self.c3_r):
            y = F.leaky_relu(conv(y), 0.05)
        return self.esa(self.c5(y + x))


class RLFN(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] to (N, 3, s*H, s*W); at least 15x15. The weights work on [0, 255] inside.

    Clipped to [0, 1] in eval mode only.
    """

    def __init__(self, config: RLFNConfig):
        super().__init__()
        self.config = config
        width = config.channels
        self.conv_1 = nn.Conv2d(3, width, 3, padding=1)
        for i in range(1, config.blocks + 1):
            self.add_module(f"block_{i}", ResidualLocalFeatureBlock(width, config.attention_channels))
        self.conv_2 = nn.Conv2d(width, width, 3, padding=1)
        self.upsampler = nn.Sequential(
            nn.Conv2d(width, 3 * config.scale**2, 3, padding=1), nn.PixelShuffle(config.scale)
        )

    def forward(self, lr: Tensor) -> Tensor:
        first = x = self.conv_1(lr * 255)
        for i in range(1, self.config.blocks + 1):
            x = self.get_submodule(f"block_{i}")(x)
        sr = self.upsampler(self.conv_2(x) + first).float() / 255
        return sr if self.training else sr.clamp(0, 1)

    def merged(self) -> "RLFN":
        """Itself: there are no branches."""
        return self
