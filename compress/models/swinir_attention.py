"""The parts of SwinIR: attention within windows, shifted by half a window in every second layer.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows" (ICCV 2021). Features are
(N, H, W, C) with H and W multiples of the window. Nothing here is a buffer: index and mask follow from the sizes, and
an average of the weights that includes buffers would average them.
"""

from collections import OrderedDict
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WindowAttention(nn.Module):
    """Self-attention among the pixels of a window, with a learned bias for every relative position.

    softmax(q k^T / sqrt(d) + bias) v for each of the heads, d = dim / heads.
    """

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__()
        self.heads, self.window = heads, window
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, allowed: Tensor | None) -> Tensor:
        """(N, windows, pixels, C) to the same shape; `allowed` as in `shift_mask`, or None where all is allowed."""
        n, count, pixels, dim = windows.shape
        bias = self.bias().expand(count, -1, -1, -1)
        if allowed is not None:
            bias = bias.masked_fill(~allowed[:, None], float("-inf"))
        qkv = self.qkv(windows).reshape(n, count, pixels, 3, self.heads, dim // self.heads)
        # windows beside heads, so that one bias serves all images
        q, k, v = qkv.permute(3, 0, 1, 4, 2, 5).flatten(2, 3)
        mixed = attend(q, k, v, bias.flatten(0, 1)[None])
        return self.proj(mixed.unflatten(1, (count, self.heads)).transpose(2, 3).flatten(3))

    def bias(self) -> Tensor:
        """(heads, pixels, pixels): what is added to the score of a query pixel (row) and a key pixel (column)."""
        table = self.relative_position_bias_table
        index = relative_position(self.window).to(table.device)
        return F.embedding(index, table).permute(2, 0, 1)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + bias) v over (..., pixels, d)."""
    if bias.requires_grad:  # fused attention has no gradient for it, and falls back to what is slower than this
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2) + bias).softmax(-1) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias.to(q.dtype))


class SwinBlock(nn.Module):
    """Attention and a two-layer perceptron, each normalised before and added to what came in."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: int, shift: int):
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window)
        self.norm2 = nn.LayerNorm(dim)
        hidden = mlp_ratio * dim
        layers = [("fc1", nn.Linear(dim, hidden)), ("act", nn.GELU()), ("fc2", nn.Linear(hidden, dim))]
        self.mlp = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        _, height, width, _ = x.shape
        y = self.norm1(x)
        if self.shift:
            y = y.roll((-self.shift, -self.shift), (1, 2))
        y = self.attn(to_windows(y, self.window), allowed if self.shift else None)
        y = from_windows(y, height, width)
        if self.shift:
            y = y.roll((self.shift, self.shift), (1, 2))
        x = x + y
        return x + self.mlp(self.norm2(x))


class ResidualSwinLayer(nn.Module):
    """x + conv(blocks(x)) over (N, C, H, W); every second block is shifted by half a window."""

    def __init__(self, depth: int, dim: int, heads: int, window: int, mlp_ratio: int):
        super().__init__()
        blocks = nn.ModuleList(SwinBlock(dim, heads, window, mlp_ratio, i % 2 * (window // 2)) for i in range(depth))
        self.residual_group = nn.ModuleDict({"blocks": blocks})
        self.conv = nn.Conv2d(dim, dim, 3, padding=1)

    def forward(self, x: Tensor, allowed: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1)
        for block in cast(nn.ModuleList, self.residual_group["blocks"]):
            y = block(y, allowed)
        return x + self.conv(y.permute(0, 3, 1, 2))


def to_windows(x: Tensor, window: int) -> Tensor:
    """(N, H, W, C) to (N, windows, pixels, C), both row by row."""
    n, height, width, dim = x.shape
    x = x.reshape(n, height // window, window, width // window, window, dim).transpose(2, 3)
    return x.reshape(n, -1, window * window, dim)


def from_windows(windows: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `to_windows`."""
    n, _, pixels, dim = windows.shape
    window = round(pixels**0.5)
    x = windows.reshape(n, height // window, width // window, window, window, dim).transpose(2, 3)
    return x.reshape(n, height, width, dim)


def relative_position(window: int) -> Tensor:
    """(pixels, pixels): the row of the bias table for a query pixel and a key pixel of a window.

    Row (dy + window - 1) * (2 * window - 1) + (dx + window - 1) belongs to a key dy above and dx left of the query.
    """
    row, column = torch.arange(window**2) // window, torch.arange(window**2) % window
    dy, dx = row[:, None] - row, column[:, None] - column
    return (dy + window - 1) * (2 * window - 1) + dx + window - 1


def shift_mask(height: int, width: int, window: int, device: torch.device) -> Tensor:
    """(windows, pixels, pixels), True where a query pixel may look at a key pixel after the shift by half a window.

    The shift wraps the image around: a window at its bottom or right end holds pixels that are no neighbours.
    """
    rows, columns = (
        (torch.arange(side, device=device) >= side - window).long()
        + (torch.arange(side, device=device) >= side - window // 2)
        for side in (height, width)
    )
    parts = to_windows((3 * rows[:, None] + columns)[None, :, :, None], window)[0, :, :, 0]
    return parts[:, :, None] == parts[:, None, :]
