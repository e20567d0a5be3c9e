"""SRResNet, the generator of SRGAN.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (CVPR 2017):
a 9x9 head, residual blocks under a long skip connection, PixelShuffle stages, a 9x9 tail.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compress.deploy import (
    INPUT,
    Activation,
    Add,
    Clip,
    Conv,
    DeployGraph,
    DepthToSpace,
    PReLU,
    Sigmoid,
    fold_batch_norm,
    shuffle_order,
)
from compress.models.channels import ChannelGroup, Producer
from compress.models.taps import thirds


@dataclass(frozen=True, kw_only=True)
class SRResNetConfig:
    """Sizes and variants of the generator.

    Attributes:
        scale: 2, 3, 4 or 8; powers of two go through x2 stages, 3 through one x3 stage.
        blocks: residual blocks (B or N in the papers: 16; the compressed ones have 6 or 4).
        channels: feature maps.
        block_channels: between the two convolutions of a residual block; 0 for `channels`.
        stage_channels: after each upsampling stage; 0 for `channels`.
        activation: 'prelu' (one learned slope per layer) or 'relu' (the faster choice for int8).
        batch_norm: in the residual blocks.
        trunk_end: what follows the convolution after the blocks: 'batch_norm' as published, 'activation' as in
            two well-known re-implementations, or 'none'.
        output: 'linear', or 'tanh', mapped from [-1, 1] to [0, 1].
        head_kernel, tail_kernel: size of the first and last convolution.
    """

    scale: Literal[2, 3, 4, 8] = 4
    blocks: int = 16
    channels: int = 64
    block_channels: int = 0
    stage_channels: int = 0
    activation: Literal["prelu", "relu"] = "prelu"
    batch_norm: bool = True
    trunk_end: Literal["batch_norm", "activation", "none"] = "batch_norm"
    output: Literal["linear", "tanh"] = "linear"
    head_kernel: int = 9
    tail_kernel: int = 9

    @property
    def inner_width(self) -> int:
        """Feature maps inside a residual block."""
        return self.block_channels or self.channels

    @property
    def stage_width(self) -> int:
        """Feature maps after an upsampling stage."""
        return self.stage_channels or self.channels


class ResidualBlock(nn.Module):
    """x + norm(conv(activation(norm(conv(x)))))."""

    def __init__(self, config: SRResNetConfig):
        super().__init__()
        width, inner = config.channels, config.inner_width
        self.conv1 = nn.Conv2d(width, inner, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(inner) if config.batch_norm else nn.Identity()
        self.activation = _activation(config)
        self.conv2 = nn.Conv2d(inner, width, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(width) if config.batch_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))


class UpsampleStage(nn.Module):
    """Convolution, PixelShuffle, activation."""

    def __init__(self, config: SRResNetConfig, channels: int, factor: int):
        super().__init__()
        self.factor = factor
        self.conv = nn.Conv2d(channels, config.stage_width * factor**2, 3, padding=1)
        self.activation = _activation(config)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(nn.functional.pixel_shuffle(self.conv(x), self.factor))


class SRResNet(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] to (N, 3, s*H, s*W); a linear output is clipped to [0, 1] in eval mode only."""

    def __init__(self, config: SRResNetConfig):
        super().__init__()
        self.config = config
        width = config.channels
        self.head = _same_conv(3, width, config.head_kernel)
        self.head_activation = _activation(config)
        self.blocks = nn.ModuleList(ResidualBlock(config) for _ in range(config.blocks))
        self.trunk = nn.Conv2d(width, width, 3, padding=1)
        ends = {"batch_norm": nn.BatchNorm2d(width), "activation": _activation(config), "none": nn.Identity()}
        self.trunk_end = ends[config.trunk_end]
        factors = stage_factors(config.scale)
        widths = [width, *[config.stage_width] * len(factors)]  # before the first stage and after each
        self.stages = nn.ModuleList(
            UpsampleStage(config, before, factor) for before, factor in zip(widths[:-1], factors, strict=True)
        )
        self.tail = _same_conv(widths[-1], 3, config.tail_kernel)

    def forward(self, lr: Tensor) -> Tensor:
        first = x = self.head_activation(self.head(lr))
        for block in self.blocks:
            x = block(x)
        x = first + self.trunk_end(self.trunk(x))
        for stage in self.stages:
            x = stage(x)
        sr = self.tail(x).float()
        if self.config.output == "tanh":
            return (torch.tanh(sr) + 1) / 2
        return sr if self.training else sr.clamp(0, 1)

    def merged(self) -> "SRResNet":
        """Itself: there are no branches. Batch norm is folded in `deploy`."""
        return self

    def folded(self) -> "SRResNet":
        """The equal network without batch norm; itself where there is none."""
        config = self.config
        folding = config.trunk_end == "batch_norm"
        if not config.batch_norm and not folding:
            return self
        end = "none" if folding else config.trunk_end
        plain = SRResNet(dataclasses.replace(config, batch_norm=False, trunk_end=end))
        given = self.state_dict()
        weights = {name: given[name] for name in plain.state_dict()}
        pairs = [(f"blocks.{i}.conv{k}", f"blocks.{i}.norm{k}") for i in range(config.blocks) for k in (1, 2)]
        for conv, norm in [*(pairs if config.batch_norm else []), *([("trunk", "trunk_end")] if folding else [])]:
            weight, bias = fold_batch_norm(self.get_submodule(conv), self.get_submodule(norm))
            weights |= {f"{conv}.weight": weight, f"{conv}.bias": bias}
        plain.load_state_dict(weights)
        return plain.train(self.training)

    def taps(self) -> list[str]:
        """Three modules with (N, C, H, W) features, after about 1/3, 2/3 and 3/3 of the blocks."""
        return thirds(["head", *(f"blocks.{i}" for i in range(self.config.blocks))])

    def channel_groups(self) -> list[ChannelGroup]:
        """The stream, which the skips make one; then what is inside each block, and what each stage makes."""
        config = self.config
        blocks = [f"blocks.{i}" for i in range(config.blocks)]
        factors = stage_factors(config.scale)
        stages = [f"stages.{i}.conv" for i in range(len(factors))]
        norms = [f"{block}.norm2" for block in blocks] if config.batch_norm else []
        if config.trunk_end == "batch_norm":
            norms.append("trunk_end")
        stream = ChannelGroup.of(
            "channels",
            config.channels,
            ["head", *(f"{block}.conv2" for block in blocks), "trunk"],
            [*(f"{block}.conv1" for block in blocks), "trunk", stages[0]],
            norms,
        )
        inside = [
            ChannelGroup.of(
                "block_channels",
                config.inner_width,
                [f"{block}.conv1"],
                [f"{block}.conv2"],
                [f"{block}.norm1"] if config.batch_norm else [],
            )
            for block in blocks
        ]
        after = [
            ChannelGroup.of("stage_channels", config.stage_width, [Producer(made, factor**2)], [read])
            for made, factor, read in zip(stages, factors, [*stages[1:], "tail"], strict=True)
        ]
        return [stream, *inside, *after]

    def deploy(self) -> DeployGraph:
        """The network as it ships."""
        config, graph = self.config, DeployGraph(self.config.scale)
        plain = nn.Identity()
        first = x = _deploy(graph, "head", INPUT, self.head, plain, self.head_activation)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, ResidualBlock)
            y = _deploy(graph, f"block{i}_conv1", x, block.conv1, block.norm1, block.activation)
            y = _deploy(graph, f"block{i}_conv2", y, block.conv2, block.norm2, plain)
            x = graph.add(f"block{i}_sum", Add(), x, y)
        norm, activation = (self.trunk_end, plain) if config.trunk_end == "batch_norm" else (plain, self.trunk_end)
        x = _deploy(graph, "trunk", x, self.trunk, norm, activation)
        x = graph.add("trunk_sum", Add(), first, x)
        for i, stage in enumerate(self.stages):
            assert isinstance(stage, UpsampleStage)
            order = shuffle_order(len(stage.conv.weight), stage.factor)
            # the activation has one slope, so it commutes with the shuffle; before it, it costs the same
            x = _deploy(graph, f"up{i}", x, stage.conv, plain, stage.activation, order=order)
            x = graph.add(f"up{i}_shuffle", DepthToSpace(stage.factor), x)
        gain = 2.0 if config.output == "tanh" else 1.0
        x = _deploy(graph, "tail", x, self.tail, plain, plain, gain=gain)
        graph.add("sr", Sigmoid() if config.output == "tanh" else Clip(), x)
        return graph


def stage_factors(scale: int) -> list[int]:
    """Shuffle factors of the upsampling stages: [3] for x3, else as many twos as it takes."""
    return [3] if scale == 3 else [2] * int(math.log2(scale))


def _same_conv(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def _activation(config: SRResNetConfig) -> nn.Module:
    return nn.PReLU() if config.activation == "prelu" else nn.ReLU()


def _deploy(
    graph: DeployGraph,
    name: str,
    source: str,
    conv: nn.Conv2d,
    norm: nn.Module,
    activation: nn.Module,
    order: Tensor | None = None,
    gain: float = 1.0,
) -> str:
    """Adds a convolution with batch norm folded and its activation; `order` permutes, `gain` scales its outputs."""
    assert conv.bias is not None
    weight, bias = fold_batch_norm(conv, norm) if isinstance(norm, nn.BatchNorm2d) else (conv.weight, conv.bias)
    if order is not None:
        weight, bias = weight[order], bias[order]
    fused: Activation = "relu" if isinstance(activation, nn.ReLU) else "none"
    out = graph.add(name, Conv(gain * weight, gain * bias, fused), source)
    if isinstance(activation, nn.PReLU):
        out = graph.add(f"{name}_prelu", PReLU(activation.weight.item()), out)
    return out
