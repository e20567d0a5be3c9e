"""RLFN, a strong convolutional teacher of half a million parameters.

Kong et al., "Residual Local Feature Network for Efficient Super-Resolution" (CVPRW 2022). A teacher first: its
attention (strided convolution, max pooling, bilinear resize) does not fit the deploy graph, so it ships in float, at one
image size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.channels import ChannelGroup
from compress.models.fixed import FixedSize, check_sides
from compress.models.taps import thirds

SMALLEST = 15  # pixels that the attention's stride, pooling and two unpadded convolutions take


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
    """(N, 3, H, W) RGB in [0, 1] to (N, 3, s*H, s*W). The weights work on [0, 255] inside.

    Sides below 15 pixels, which vanish in the attention, are continued by their last pixels first. Clipped to [0, 1] in
    eval mode only.
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
        height, width = lr.shape[-2:]
        lr = F.pad(lr, (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height)), "replicate")
        sr = self.unclipped(lr)[..., : self.config.scale * height, : self.config.scale * width]
        return sr if self.training else sr.clamp(0, 1)

    def unclipped(self, lr: Tensor) -> Tensor:
        """The network itself, for images of at least 15 pixels a side."""
        first = x = self.conv_1(lr * 255)
        for i in range(1, self.config.blocks + 1):
            x = self.get_submodule(f"block_{i}")(x)
        return self.upsampler(self.conv_2(x) + first).float() / 255

    def fixed(self, height: int, width: int) -> FixedSize:
        """The network as it ships for LR images of one size. Raises BadInput for a side below 15 pixels."""
        check_sides("rlfn", height, width, least=SMALLEST)
        return FixedSize(self)

    def merged(self) -> "RLFN":
        """Itself: there are no branches."""
        return self

    def taps(self) -> list[str]:
        """Three modules with (N, C, H, W) features, after about 1/3, 2/3 and 3/3 of the blocks."""
        return thirds(["conv_1", *(f"block_{i}" for i in range(1, self.config.blocks + 1))])

    def channel_groups(self) -> list[ChannelGroup]:
        """The streams that the skips tie, each block's two inner widths, and the three of its attention.

        What enters a block is added to its third convolution's output. What leaves it is gated by its attention.
        """
        width, narrow = self.config.channels, self.config.attention_channels
        blocks = [f"block_{i}" for i in range(1, self.config.blocks + 1)]
        entering = [_ties_of_entering(block) for block in (*blocks, None)]
        producers, consumers = entering[0]
        groups = [ChannelGroup.of("channels", width, ["conv_1", "conv_2", *producers], [*consumers, "upsampler.0"])]
        for block, (producers, consumers) in zip(blocks, entering[1:], strict=True):
            esa = f"{block}.esa"
            groups += [
                ChannelGroup.of("channels", width, [f"{block}.c1_r"], [f"{block}.c2_r"]),
                ChannelGroup.of("channels", width, [f"{block}.c2_r"], [f"{block}.c3_r"]),
                ChannelGroup.of(
                    "channels", width, [f"{block}.c5", f"{esa}.conv4", *producers], [f"{esa}.conv1", *consumers]
                ),
                ChannelGroup.of("attention_channels", narrow, [f"{esa}.conv1"], [f"{esa}.conv2", f"{esa}.conv_f"]),
                ChannelGroup.of("attention_channels", narrow, [f"{esa}.conv2"], [f"{esa}.conv3"]),
                ChannelGroup.of("attention_channels", narrow, [f"{esa}.conv3", f"{esa}.conv_f"], [f"{esa}.conv4"]),
            ]
        return groups


def _ties_of_entering(block: str | None) -> tuple[list[str], list[str]]:
    """Producers and consumers of the channels that enter a block, or the last convolution for None."""
    return ([f"{block}.c3_r"], [f"{block}.c1_r", f"{block}.c5"]) if block else ([], ["conv_2"])
