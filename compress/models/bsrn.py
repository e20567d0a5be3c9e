"""BSRN, the strongest small convolutional teacher: a third of a million parameters.

Li et al., "Blueprint Separable Residual Network for Efficient Image Super-Resolution" (CVPRW 2022, winner of NTIRE's
model complexity track). A teacher first: its attention (pooling, bilinear resize, statistics of the whole image) does not
fit the deploy graph, so it ships in float, at one image size.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.errors import BadInput
from compress.models.channels import ChannelGroup, Consumer, Producer
from compress.models.fixed import FixedSize, check_sides
from compress.models.taps import thirds

JOINED_MOST = 5
REPEATS = 4  # copies of the input that the first layer sees
SMALLEST = 15  # side that the pooling of the spatial attention needs


@dataclass(frozen=True, kw_only=True)
class BSRNConfig:
    """Sizes of BSRN; the defaults are the published network.

    Attributes:
        scale: 2, 3 or 4.
        channels: feature maps between the blocks.
        blocks: separable distillation blocks, at least one.
        distilled_channels: feature maps that each of a block's four steps keeps for its end.
        attention_channels: feature maps of the spatial attention.
        squeeze_channels: hidden units of the channel attention.
    """

    scale: Literal[2, 3, 4] = 4
    channels: int = 64
    blocks: int = 8
    distilled_channels: int = 32
    attention_channels: int = 16
    squeeze_channels: int = 4

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise BadInput(
                f"expected bsrn's blocks to be at least 1, found {self.blocks}: its end joins their outputs."
            )


class BSConv(nn.Module):
    """Blueprint separable convolution: 1x1 over the channels without bias, then 3x3 within every channel."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, padding: int = 1):
        super().__init__()
        self.pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dw = nn.Conv2d(out_channels, out_channels, 3, stride, padding, groups=out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.dw(self.pw(x))


class SpatialAttention(nn.Module):
    """Enhanced spatial attention (ESA): a coarse map, resized back, gates the features."""

    def __init__(self, channels: int, narrow: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, narrow, 1)
        self.conv_f = nn.Conv2d(narrow, narrow, 1)
        self.conv2 = BSConv(narrow, narrow, stride=2, padding=0)
        self.conv_max = BSConv(narrow, narrow)
        self.conv3 = BSConv(narrow, narrow)
        self.conv3_ = BSConv(narrow, narrow)
        self.conv4 = nn.Conv2d(narrow, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        narrow = self.conv1(x)
        coarse = F.max_pool2d(self.conv2(narrow), kernel_size=7, stride=3)
        coarse = self.conv3_(F.gelu(self.conv3(F.gelu(self.conv_max(coarse)))))
        coarse = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.conv4(coarse + self.conv_f(narrow)))


class ChannelAttention(nn.Module):
    """Contrast-aware channel attention (CCA): mean plus standard deviation of every channel gate it.

    `plain` is set on what ships: most engines have no standard deviation, but what it consists of. For training that
    would have an infinite gradient where a channel is constant.
    """

    plain = False

    def __init__(self, channels: int, squeezed: int):
        super().__init__()
        self.conv_du = nn.Sequential(
            nn.Conv2d(channels, squeezed, 1), nn.ReLU(), nn.Conv2d(squeezed, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        features = x.float()
        mean = features.mean((2, 3), keepdim=True)
        if self.plain:
            deviation = (features - mean).square().mean((2, 3), keepdim=True).sqrt()
        else:
            deviation = features.std((2, 3), correction=0, keepdim=True)
        return x * self.conv_du((mean + deviation).to(x.dtype))


class SeparableDistillationBlock(nn.Module):
    """Three steps that each keep some features and refine the rest, a fourth that keeps all; both attentions; a skip."""

    def __init__(self, config: BSRNConfig):
        super().__init__()
        width, kept = config.channels, config.distilled_channels
        self.c1_d = nn.Conv2d(width, kept, 1)
        self.c1_r = BSConv(width, width)
        self.c2_d = nn.Conv2d(width, kept, 1)
        self.c2_r = BSConv(width, width)
        self.c3_d = nn.Conv2d(width, kept, 1)
        self.c3_r = BSConv(width, width)
        self.c4 = BSConv(width, kept)
        self.c5 = nn.Conv2d(4 * kept, width, 1)
        self.esa = SpatialAttention(width, config.attention_channels)
        self.cca = ChannelAttention(width, config.squeeze_channels)

    def forward(self, x: Tensor) -> Tensor:
        kept, y = [], x
        for keep, refine in ((self.c1_d, self.c1_r), (self.c2_d, self.c2_r), (self.c3_d, self.c3_r)):
            kept.append(F.gelu(keep(y)))
            y = F.gelu(refine(y) + y)
        kept.append(F.gelu(self.c4(y)))
        return self.cca(self.esa(self.c5(torch.cat(kept, 1)))) + x


def _over_all(conv: nn.Conv2d, features: list[Tensor]) -> Tensor:
    """A 1x1 convolution of all features joined along the channels, as a sum over a few at a time: XNNPACK joins at most five."""
    total, width = None, conv.in_channels // len(features)
    for i in range(0, len(features), JOINED_MOST):
        group = features[i : i + JOINED_MOST]
        weight = conv.weight[:, i * width : (i + len(group)) * width]
        part = F.conv2d(torch.cat(group, 1), weight, conv.bias if total is None else None)
        total = part if total is None else total + part
    assert total is not None, "a network has a block"
    return total


class BSRN(nn.Module):
    """(N, 3, H, W) RGB in [0, 1] to (N, 3, s*H, s*W), clipped to [0, 1] in eval mode only.

    An input of fewer than 15 pixels on a side is extended by its last row or column, and the output cut.
    """

    def __init__(self, config: BSRNConfig):
        super().__init__()
        self.config = config
        width = config.channels
        self.fea_conv = BSConv(REPEATS * 3, width)
        for i in range(1, config.blocks + 1):
            self.add_module(f"B{i}", SeparableDistillationBlock(config))
        self.c1 = nn.Conv2d(config.blocks * width, width, 1)
        self.c2 = BSConv(width, width)
        self.upsampler = nn.Module()
        self.upsampler.upsampleOneStep = nn.Sequential(
            nn.Conv2d(width, 3 * config.scale**2, 3, padding=1), nn.PixelShuffle(config.scale)
        )

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        lr = F.pad(lr, (0, max(0, SMALLEST - width), 0, max(0, SMALLEST - height)), "replicate")
        sr = self.unclipped(lr)[..., : self.config.scale * height, : self.config.scale * width]
        return sr if self.training else sr.clamp(0, 1)

    def unclipped(self, lr: Tensor) -> Tensor:
        """The network itself, for images of at least 15 pixels a side."""
        first = x = self.fea_conv(torch.cat([lr] * REPEATS, 1))
        outputs = []
        for name in self._blocks():
            x = self.get_submodule(name)(x)
            outputs.append(x)
        x = self.c2(F.gelu(_over_all(self.c1, outputs))) + first
        return self.upsampler.upsampleOneStep(x).float()

    def fixed(self, height: int, width: int) -> FixedSize:
        """The network as it ships for LR images of one size. Raises BadInput for a side below 15 pixels."""
        check_sides("bsrn", height, width, least=SMALLEST)
        shipped = FixedSize(self)
        for module in shipped.modules():
            if isinstance(module, ChannelAttention):
                module.plain = True
        return shipped

    def merged(self) -> "BSRN":
        """Itself: there are no branches."""
        return self

    def taps(self) -> list[str]:
        """Modules whose outputs are the features after 1/3, 2/3 and 3/3 of the blocks."""
        return thirds(["fea_conv", *self._blocks()])

    def channel_groups(self) -> list[ChannelGroup]:
        """The features between the blocks, which the skips tie, and every width inside them.

        Both layers of a BSConv produce its channels: the second works within each. Not free are the input's repeats,
        the concatenation of the blocks' outputs (their width times their number), and the last layer's 3*s*s.
        """
        config, blocks = self.config, self._blocks()
        width, kept, narrow = config.channels, config.distilled_channels, config.attention_channels
        tied = [*_separable("fea_conv"), *_separable("c2")]
        readers = [Consumer("c1", i * width) for i in range(len(blocks))] + [Consumer("upsampler.upsampleOneStep.0")]
        groups = [_group("channels", width, ["c1"], ["c2.pw"])]
        for block in blocks:
            esa, squeeze = f"{block}.esa", f"{block}.cca.conv_du"
            tied += [layer for i in (1, 2, 3) for layer in _separable(f"{block}.c{i}_r")]
            tied += [f"{block}.c5", f"{esa}.conv4", f"{squeeze}.2"]
            inside = ("c1_d", "c1_r.pw", "c2_d", "c2_r.pw", "c3_d", "c3_r.pw", "c4.pw", "esa.conv1", "cca.conv_du.0")
            readers += [Consumer(f"{block}.{layer}") for layer in inside]
            steps = [[f"{block}.c{i}_d"] for i in (1, 2, 3)] + [_separable(f"{block}.c4")]
            groups += [
                _group("distilled_channels", kept, layers, [Consumer(f"{block}.c5", i * kept)])
                for i, layers in enumerate(steps)
            ]
            groups += [
                _group("attention_channels", narrow, [f"{esa}.conv1"], [f"{esa}.conv_f", f"{esa}.conv2.pw"]),
                _group("attention_channels", narrow, _separable(f"{esa}.conv2"), [f"{esa}.conv_max.pw"]),
                _group("attention_channels", narrow, _separable(f"{esa}.conv_max"), [f"{esa}.conv3.pw"]),
                _group("attention_channels", narrow, _separable(f"{esa}.conv3"), [f"{esa}.conv3_.pw"]),
                _group("attention_channels", narrow, [*_separable(f"{esa}.conv3_"), f"{esa}.conv_f"], [f"{esa}.conv4"]),
                _group("squeeze_channels", config.squeeze_channels, [f"{squeeze}.0"], [f"{squeeze}.2"]),
            ]
        return [_group("channels", width, tied, readers), *groups]

    def _blocks(self) -> list[str]:
        return [f"B{i}" for i in range(1, self.config.blocks + 1)]


def _separable(name: str) -> list[str]:
    return [f"{name}.pw", f"{name}.dw"]


def _group(option: str, size: int, producers: list[str], consumers: list[str] | list[Consumer]) -> ChannelGroup:
    return ChannelGroup(
        option=option,
        size=size,
        producers=tuple(Producer(layer) for layer in producers),
        consumers=tuple(layer if isinstance(layer, Consumer) else Consumer(layer) for layer in consumers),
    )
