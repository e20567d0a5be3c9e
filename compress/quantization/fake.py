"""Fake quantization: float arithmetic that rounds and clips as int8 does, with gradients that pass through the rounding.

Values are held as centred integers, (real value) / scale, so that what training computes is what ships, bit for bit.
"""

from typing import Any

import torch
from torch import Tensor, nn


def fake_quantize(
    x: Tensor,
    scale: Tensor,
    low: float,
    high: float,
    *,
    unit: Tensor | None = None,
    rounded: Tensor | None = None,
) -> Tensor:
    """Centred integers: round(x * unit / scale), clipped to [low, high]; same shape as `x`, float32.

    The gradients belong to the real value y = scale * result, of which `result` is used with `scale` held constant:
    dy/dx = unit inside the range and 0 outside (straight through), and, with t = x * unit / scale,
    dy/dscale = result - t inside, `low` or `high` outside. This is the learned step of LSQ (Esser et al., "Learned
    Step Size Quantization", ICLR 2020, equation 3) and the learned clip of PAMS (Li et al., "PAMS: Quantized
    Super-Resolution via Parameterized Max Scale", ECCV 2020), which is a fixed number of steps.

    Args:
        x: values in multiples of `unit`.
        scale: positive; one number, or of a shape that broadcasts with `x`.
        low, high: integers.
        unit: broadcasts with `x`; left out, 1. Gets no gradient.
        rounded: the result, for operators whose kernels round in their own way; left out, it is computed.
    """
    return _FakeQuantize.apply(x, scale, low, high, unit, rounded)  # type: ignore[return-value]


class _FakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        low: float,
        high: float,
        unit: Tensor | None,
        rounded: Tensor | None,
    ) -> Tensor:
        # the order of operations is that of IntegerStudent and integer_weights: a tie must fall to the same side
        factor = None if unit is None else unit / scale
        t = x / scale if factor is None else x * factor
        rounded = t.clamp(low, high).round_() if rounded is None else rounded
        ctx.save_for_backward(t, rounded, scale, *([] if factor is None else [factor]))
        ctx.limits = (low, high)
        return rounded

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        t, rounded, scale, *factor = ctx.saved_tensors
        inside = torch.ops.aten.hardtanh_backward(gradient, t, *ctx.limits)  # comparisons are several times slower
        to_scale = None
        if ctx.needs_input_grad[1]:
            each = (rounded - t).mul_(inside).addcmul_(gradient - inside, rounded)
            to_scale = each.sum_to_size(scale.shape) / scale
        to_x = inside.mul_(factor[0]) if factor else inside.div_(scale)
        return to_x, to_scale, None, None, None, None


def round_through(x: Tensor) -> Tensor:
    """Rounds half to even; the gradient is that of x."""
    return x + (x.round() - x).detach()


class LearnedScale(nn.Module):
    """Positive scales, start * exp(growth): one step of Adam changes all of them by the same share, whatever their size.

    Attributes:
        growth: what is learned, 0 at first; of the shape of `start`.
        kept: `growth` when it was last free.
    """

    start: Tensor
    kept: Tensor

    def __init__(self, start: Tensor):
        super().__init__()
        self.register_buffer("start", start.detach().float().clone())
        self.register_buffer("kept", torch.zeros_like(self.start))
        self.growth = nn.Parameter(torch.zeros_like(self.start))

    def forward(self) -> Tensor:
        return self.start * self.growth.exp()

    @torch.no_grad()
    def settle(self, frozen: bool) -> None:
        """Called after every step of the optimizer: accepts the change, or takes it back."""
        if frozen:  # without a gradient DDP would miss it, and momentum would move it on
            self.growth.copy_(self.kept)
        else:
            self.kept.copy_(self.growth)
