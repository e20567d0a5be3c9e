"""The mobile student: plain 3x3 convolutions and ReLU that predict the residual over the repeated input.

After Du et al., "Anchor-based Plain Net for Mobile Image Super-Resolution" (CVPRW 2021): every HR pixel starts
from the LR pixel that it lies in (the anchor), which costs a copy and keeps int8 accurate, because the
convolutions only have to produce a small residual.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, cast

import torch
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, Repeat, shuffle_order
from compress.models.channels import ChannelGroup
from compress.models.reparameterization import ReparameterizedConv, init_for_relu
from compress.models.taps import thirds


@dataclass(frozen=True, kw_only=True)
class AnchorConfig:
    """Sizes of an anchor network.

    Attributes:
        scale: 2, 3 or 4.
        channels: feature maps of every hidden layer; multiples of 8 run best.
        blocks: hidden 3x3 convolutions between the first and the last.
        branches: train with the branches of `ReparameterizedConv`; False is the plain, merged network.
    """

    scale: Literal[2, 3, 4] = 4
    channels: int = 24
    blocks: int = 8
    branches: bool = False


class Anchor(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] to (N, 3, s*H, s*W); clipped to [0, 1] in eval mode, unclipped while training."""

    def __init__(self, config: AnchorConfig):
        super().__init__()
        self.config = config
        width, out = config.channels, 3 * config.scale**2
        make = ReparameterizedConv if config.branches else _plain
        self.head = make(3, width)
        self.body = nn.ModuleList(make(width, width) for _ in range(config.blocks))
        self.tail = make(width, out)
        self.shuffle = nn.PixelShuffle(config.scale)
        with torch.no_grad():  # a small residual to begin with
            (self.tail.plain if config.branches else self.tail).weight.mul_(0.1)

    def forward(self, lr: Tensor) -> Tensor:
        x = torch.relu(self.head(lr))
        for conv in self.body:
            x = torch.relu(conv(x))
        anchor = lr.repeat_interleave(self.config.scale**2, dim=1)
        sr = self.shuffle(self.tail(x).float() + anchor)  # float32: bfloat16 would round pixels to 8 bits
        return sr if self.training else sr.clamp(0, 1)

    def merged(self) -> "Anchor":
        """The plain network that computes the same; itself where there are no branches."""
        if not self.config.branches:
            return self
        plain = Anchor(AnchorConfig(**{**vars(self.config), "branches": False}))
        for mine, theirs in zip(self.convolutions(), plain.convolutions(), strict=True):
            weight, bias = cast(ReparameterizedConv, mine).merged()
            theirs.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        return plain.train(self.training)

    def folded(self) -> "Anchor":
        """The equal network without branches and batch norm, which it never has."""
        return self.merged()

    def convolutions(self) -> list[nn.Module]:
        """Head, body and tail, in order."""
        return [self.head, *self.body, self.tail]

    def taps(self) -> list[str]:
        """Three modules with (N, C, H, W) features, after about 1/3, 2/3 and 3/3 of the body; before their ReLU."""
        return thirds(["head", *(f"body.{i}" for i in range(self.config.blocks))])

    def channel_groups(self) -> list[ChannelGroup]:
        """Every layer but the last by itself: there are no sums that tie any two."""
        layers = ["head", *(f"body.{i}" for i in range(self.config.blocks)), "tail"]
        return [ChannelGroup.of("channels", self.config.channels, [made], [read]) for made, read in pairwise(layers)]

    def deploy(self) -> DeployGraph:
        """The network as it ships."""
        head, *body, tail = cast(list[nn.Conv2d], self.merged().convolutions())
        scale = self.config.scale
        graph = DeployGraph(scale)
        x = graph.add("head", Conv(head.weight, _bias(head), "relu"), INPUT)
        for i, conv in enumerate(body):
            x = graph.add(f"body{i}", Conv(conv.weight, _bias(conv), "relu"), x)
        order = shuffle_order(len(tail.weight), scale)
        x = graph.add("tail", Conv(tail.weight[order], _bias(tail)[order]), x)
        anchor = graph.add("anchor", Repeat(scale**2), INPUT)
        x = graph.add("sum", Add(), x, anchor)
        x = graph.add("clip", Clip(), x)
        graph.add("sr", DepthToSpace(scale), x)
        return graph


def _plain(in_channels: int, out_channels: int) -> nn.Conv2d:
    conv = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    init_for_relu(conv)
    return conv


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None
    return conv.bias
