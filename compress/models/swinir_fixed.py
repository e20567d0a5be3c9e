"""SwinIR's layers for one image of one size: the same function with constants for indices and shapes, of rank 4 or less.

Delegates of phones refuse tensors of rank 5, which windows and heads ask for when they are cut in one step.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.models.swinir_attention import ResidualSwinLayer, SwinBlock, WindowAttention, shift_mask

FORBIDDEN = -1000.0  # added to a product of query and key: exp(-1000 / sqrt(d)) is 0 in float32 for d below 100


class FixedResidualSwinLayer(nn.Module):
    """`ResidualSwinLayer` for (1, C, H, W)."""

    def __init__(self, layer: ResidualSwinLayer, height: int, width: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            FixedSwinBlock(block, height, width) for block in cast(nn.ModuleList, layer.residual_group["blocks"])
        )
        self.conv = layer.conv

    def forward(self, x: Tensor, penalty: Tensor) -> Tensor:
        """`penalty` as of `shift_penalty`."""
        y = x.permute(0, 2, 3, 1)
        for block in self.blocks:
            y = block(y, penalty)
        return x + self.conv(y.permute(0, 3, 1, 2))


class FixedSwinBlock(nn.Module):
    """`SwinBlock` for (1, H, W, C)."""

    def __init__(self, block: SwinBlock, height: int, width: int):
        super().__init__()
        self.norm1, self.norm2, self.mlp = block.norm1, block.norm2, block.mlp
        self.shift = block.shift
        self.attn = FixedWindowAttention(block.attn, height * width // block.window**2)
        side, dim = block.window, block.attn.proj.in_features
        self._image, self._windows = (1, height, width, dim), (-1, side * side, dim)
        self._rows = (height // side, side, width // side, side * dim)

    def forward(self, x: Tensor, penalty: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.shift:
            y = _rolled(y, self.shift)
        y = self._from_windows(self.attn(self._to_windows(y), penalty if self.shift else None))
        if self.shift:
            y = _rolled(y, -self.shift)
        x = x + y
        return x + self.mlp(self.norm2(x))

    def _to_windows(self, x: Tensor) -> Tensor:
        """(1, H, W, C) to (windows, pixels, C), both row by row."""
        return x.reshape(self._rows).transpose(1, 2).reshape(self._windows)

    def _from_windows(self, windows: Tensor) -> Tensor:
        down, side, across, values = self._rows
        return windows.reshape(down, across, side, values).transpose(1, 2).reshape(self._image)


class FixedWindowAttention(nn.Module):
    """`WindowAttention` for (windows, pixels, C), `count` of them."""

    bias: Tensor

    def __init__(self, attention: WindowAttention, count: int):
        super().__init__()
        dim, pixels = attention.proj.in_features, attention.window**2
        self._together = (count, pixels, dim)
        self._apart = (count, pixels, attention.heads, dim // attention.heads)
        self.factor = (dim // attention.heads) ** -0.5
        weights = attention.qkv.weight.detach().split(dim), attention.qkv.bias.detach().split(dim)
        self.q, self.k, self.v = (_linear(weight, bias) for weight, bias in zip(*weights, strict=True))
        self.proj = attention.proj
        self.register_buffer("bias", attention.bias().detach()[None].contiguous())

    def forward(self, windows: Tensor, penalty: Tensor | None) -> Tensor:
        q, k, v = (self._heads(layer(windows)) for layer in (self.q, self.k, self.v))
        scores = q @ k.transpose(-1, -2)
        if penalty is not None:  # before the factor: converters would fold it with the bias, for every head and window
            scores = scores + penalty
        mixed = F.softmax(scores * self.factor + self.bias, -1) @ v
        return self.proj(mixed.transpose(1, 2).reshape(self._together))

    def _heads(self, x: Tensor) -> Tensor:
        """(windows, pixels, C) to (windows, heads, pixels, C / heads)."""
        return x.reshape(self._apart).transpose(1, 2)


def shift_penalty(height: int, width: int, window: int) -> Tensor:
    """(windows, 1, pixels, pixels): what is added to the products of a shifted layer; see `shift_mask`."""
    allowed = shift_mask(height, width, window, torch.device("cpu"))
    return torch.zeros(allowed.shape).masked_fill(~allowed, FORBIDDEN)[:, None]


def _rolled(x: Tensor, by: int) -> Tensor:
    """x.roll((-by, -by), (1, 2)) in two slices a side: engines without the operator would gather pixel by pixel."""
    x = torch.cat([x[:, by:], x[:, :by]], 1)
    return torch.cat([x[:, :, by:], x[:, :, :by]], 2)


def _linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0])
    layer.load_state_dict({"weight": weight, "bias": bias})
    return layer
