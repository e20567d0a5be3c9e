"""EDSR: residual blocks without batch norm, the usual teacher, and in its small form a student.

Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution" (CVPRW 2017): 3x3 convolutions
throughout, residual blocks under a long skip connection, PixelShuffle stages without activation.

The published network subtracts the mean colour of DIV2K from its input and adds it to its output. This one does not:
images go in as they are, in [0, 1], and published weights would not fit. The biases of the first and the last
convolution learn the same, and the file that ships is two operators shorter.
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, shuffle_order
from compress.errors import BadInput
from compress.models.channels import ChannelGroup, Producer
from compress.models.reparameterization import init_for_relu
from compress.models.srresnet import stage_factors
from compress.models.taps import thirds

SMALL_START = 0.1  # factor of fresh weights of a branch, as large as what it is added to otherwise, and of the output


@dataclass(frozen=True, kw_only=True)
class EDSRConfig:
    """Sizes of EDSR; the defaults are the published baseline. The full one has 256 channels, 32 blocks, scale 0.1.

    Attributes:
        scale: 2, 3 or 4; 4 goes through two x2 stages.
        channels: feature maps.
        blocks: residual blocks.
        residual_scale: factor of every residual branch, above 0.
        block_channels: between the two convolutions of a residual block; 0 for `channels`.
        stage_channels: after each upsampling stage; 0 for `channels`.
    """

    scale: Literal[2, 3, 4] = 4
    channels: int = 64
    blocks: int = 16
    residual_scale: float = 1.0
    block_channels: int = 0
    stage_channels: int = 0

    def __post_init__(self) -> None:
        if self.residual_scale <= 0:
            raise BadInput(
                f"expected edsr's residual_scale to be above 0, found {self.residual_scale}: use 1, or 0.1 for wide ones."
            )

    @property
    def inner_width(self) -> int:
        """Feature maps inside a residual block."""
        return self.block_channels or self.channels

    @property
    def stage_width(self) -> int:
        """Feature maps after an upsampling stage."""
        return self.stage_channels or self.channels


class ResidualBlock(nn.Module):
    """x + residual_scale * conv(relu(conv(x)))."""

    def __init__(self, width: int, inner: int, residual_scale: float):
        super().__init__()
        self.residual_scale = residual_scale
        self.conv1 = _conv(width, inner)
        self.conv2 = _conv(inner, width, gain=min(1.0, SMALL_START / residual_scale))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.residual_scale * self.conv2(torch.relu(self.conv1(x)))


class EDSR(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] to (N, 3, s*H, s*W); clipped to [0, 1] in eval mode, unclipped while training."""

    def __init__(self, config: EDSRConfig):
        super().__init__()
        self.config = config
        width, wide = config.channels, config.stage_width
        self.factors = stage_factors(config.scale)
        self.head = _conv(3, width)
        self.blocks = nn.ModuleList(
            ResidualBlock(width, config.inner_width, config.residual_scale) for _ in range(config.blocks)
        )
        self.trunk = _conv(width, width, gain=SMALL_START)
        widths = [width, *[wide] * len(self.factors)]  # before the first stage and after each
        self.stages = nn.ModuleList(
            _conv(before, wide * factor**2) for before, factor in zip(widths[:-1], self.factors, strict=True)
        )
        self.tail = _conv(wide, 3, gain=SMALL_START)

    def forward(self, lr: Tensor) -> Tensor:
        first = x = self.head(lr)
        for block in self.blocks:
            x = block(x)
        x = first + self.trunk(x)
        for stage, factor in zip(self.stages, self.factors, strict=True):
            x = nn.functional.pixel_shuffle(stage(x), factor)
        sr = self.tail(x).float()
        return sr if self.training else sr.clamp(0, 1)

    def merged(self) -> "EDSR":
        """Itself: there are no branches."""
        return self

    def folded(self) -> "EDSR":
        """Itself: there is no batch norm."""
        return self

    def taps(self) -> list[str]:
        """Three modules with (N, C, H, W) features, after about 1/3, 2/3 and 3/3 of the blocks."""
        return thirds(["head", *(f"blocks.{i}" for i in range(self.config.blocks))])

    def channel_groups(self) -> list[ChannelGroup]:
        """The stream, which the skips make one; then what is inside each block, and what each stage makes."""
        config = self.config
        blocks = [f"blocks.{i}" for i in range(config.blocks)]
        stages = [f"stages.{i}" for i in range(len(self.factors))]
        stream = ChannelGroup.of(
            "channels",
            config.channels,
            ["head", *(f"{block}.conv2" for block in blocks), "trunk"],
            [*(f"{block}.conv1" for block in blocks), "trunk", stages[0]],
        )
        inside = [
            ChannelGroup.of("block_channels", config.inner_width, [f"{block}.conv1"], [f"{block}.conv2"])
            for block in blocks
        ]
        after = [
            ChannelGroup.of("stage_channels", config.stage_width, [Producer(made, factor**2)], [read])
            for made, factor, read in zip(stages, self.factors, [*stages[1:], "tail"], strict=True)
        ]
        return [stream, *inside, *after]

    def deploy(self) -> DeployGraph:
        """The network as it ships: the residual scale is part of each block's second convolution."""
        graph = DeployGraph(self.config.scale)
        first = x = _deploy(graph, "head", INPUT, self.head)
        for i, block in enumerate(cast(list[ResidualBlock], list(self.blocks))):
            y = graph.add(f"block{i}_conv1", Conv(block.conv1.weight, _bias(block.conv1), "relu"), x)
            y = _deploy(graph, f"block{i}_conv2", y, block.conv2, gain=block.residual_scale)
            x = graph.add(f"block{i}_sum", Add(), x, y)
        x = graph.add("trunk_sum", Add(), first, _deploy(graph, "trunk", x, self.trunk))
        for i, (stage, factor) in enumerate(zip(cast(list[nn.Conv2d], list(self.stages)), self.factors, strict=True)):
            order = shuffle_order(len(stage.weight), factor)
            x = graph.add(f"up{i}", Conv(stage.weight[order], _bias(stage)[order]), x)
            x = graph.add(f"up{i}_shuffle", DepthToSpace(factor), x)
        graph.add("sr", Clip(), _deploy(graph, "tail", x, self.tail))
        return graph


def _conv(in_channels: int, out_channels: int, gain: float = 1.0) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    init_for_relu(conv)
    with torch.no_grad():
        conv.weight.mul_(gain)
    return conv


def _deploy(graph: DeployGraph, name: str, source: str, conv: nn.Conv2d, gain: float = 1.0) -> str:
    return graph.add(name, Conv(gain * conv.weight, gain * _bias(conv)), source)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
