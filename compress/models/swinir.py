"""SwinIR in its lightweight form: a transformer of shifted windows, a teacher with a wider view than convolutions.

Liang et al., "SwinIR: Image Restoration Using Swin Transformer" (ICCVW 2021), with the upsampler
"pixelshuffledirect". Weights have the published names. Stochastic depth, which the published training inherits from
the classifier, is left out: networks this small do not overfit. It ships in float, at
one image size: the masks of its shifted windows depend on it.
"""

import copy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compress.errors import BadInput
from compress.models.fixed import FixedSize, check_sides
from compress.models.swinir_attention import ResidualSwinLayer, shift_mask
from compress.models.swinir_fixed import FixedResidualSwinLayer, shift_penalty
from compress.models.taps import thirds

DIV2K_MEAN = (0.4488, 0.4371, 0.4040)  # RGB


@dataclass(frozen=True, kw_only=True)
class SwinIRConfig:
    """Sizes of SwinIR; the defaults are the published light network.

    Attributes:
        scale: 2, 3 or 4.
        depths: attention blocks of every residual layer.
        dim: feature maps, a multiple of `heads`.
        heads: of the attention.
        window: side of the attention windows in LR pixels.
        mlp_ratio: hidden width of the perceptrons in multiples of `dim`.
    """

    scale: Literal[2, 3, 4] = 4
    depths: tuple[int, ...] = (6, 6, 6, 6)
    dim: int = 60
    heads: int = 6
    window: int = 8
    mlp_ratio: int = 2

    def __post_init__(self) -> None:
        if self.dim % self.heads:
            raise BadInput(
                f"expected swinir's dim to be a multiple of its {self.heads} heads, found {self.dim}: "
                f"use {(self.dim // self.heads + 1) * self.heads}."
            )


class SwinIR(nn.Module):
    """(N, 3, H, W) RGB in [0, 1], any size, to (N, 3, s*H, s*W); clipped to [0, 1] in eval mode only.

    Inside, the image is continued by reflection at the bottom and the right to a multiple of the window.
    """

    mean: Tensor

    def __init__(self, config: SwinIRConfig):
        super().__init__()
        self.config = config
        dim = config.dim
        self.register_buffer("mean", torch.tensor(DIV2K_MEAN)[:, None, None], persistent=False)
        self.conv_first = nn.Conv2d(3, dim, 3, padding=1)
        self.patch_embed = nn.ModuleDict({"norm": nn.LayerNorm(dim)})
        self.layers = nn.ModuleList(
            ResidualSwinLayer(depth, dim, config.heads, config.window, config.mlp_ratio) for depth in config.depths
        )
        self.norm = nn.LayerNorm(dim)
        self.conv_after_body = nn.Conv2d(dim, dim, 3, padding=1)
        direct = nn.Conv2d(dim, 3 * config.scale**2, 3, padding=1)
        self.upsample = nn.Sequential(direct, nn.PixelShuffle(config.scale))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)

    def forward(self, lr: Tensor) -> Tensor:
        height, width = lr.shape[-2:]
        window, scale = self.config.window, self.config.scale
        x = reflect_to_multiple(lr, window)
        allowed = shift_mask(*x.shape[-2:], window, x.device)
        sr = self.unclipped(x, allowed)[..., : scale * height, : scale * width]
        return sr if self.training else sr.clamp(0, 1)

    def unclipped(self, lr: Tensor, *context: Tensor) -> Tensor:
        """The network itself, for sides that are multiples of the window; `context` goes to every layer."""
        first = self.conv_first(lr - self.mean)
        x = _over_channels(self.patch_embed["norm"], first)
        for layer in self.layers:
            x = layer(x, *context)
        x = self.conv_after_body(_over_channels(self.norm, x)) + first
        return self.upsample(x).float() + self.mean

    def fixed(self, height: int, width: int) -> FixedSize:
        """The network as it ships for one LR image of one size.

        Raises BadInput for sides that are no multiples of the window.
        """
        check_sides("swinir", height, width, multiple=self.config.window)
        shipped = copy.deepcopy(self)
        shipped.layers = nn.ModuleList(FixedResidualSwinLayer(layer, height, width) for layer in self.layers)
        return FixedSize(shipped, shift_penalty(height, width, self.config.window))

    def merged(self) -> "SwinIR":
        """Itself: there are no branches."""
        return self

    def taps(self) -> list[str]:
        """Three modules with (N, C, H, W) features of the padded image, after about 1/3, 2/3 and 3/3 of the layers."""
        return thirds(["conv_first", *(f"layers.{i}" for i in range(len(self.config.depths)))])


def reflect_to_multiple(x: Tensor, window: int) -> Tensor:
    """(N, C, H, W) continued at the bottom and the right, by reflection without repeating the border pixel.

    Back and forth where the image is smaller than what is missing, which `F.pad` refuses.
    """
    for axis in (2, 3):
        side = x.shape[axis]
        if side % window:
            at = torch.arange(side + -side % window, device=x.device) % max(1, 2 * (side - 1))
            x = x.index_select(axis, torch.minimum(at, 2 * (side - 1) - at))
    return x


def _over_channels(norm: nn.Module, x: Tensor) -> Tensor:
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
