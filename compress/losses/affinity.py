"""Feature affinity, the distillation loss of FAKD: which pixels resemble each other, in the student as in the teacher.

He et al., "FAKD: Feature-Affinity Based Knowledge Distillation for Efficient Image Super-Resolution" (ICIP 2020).
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from compress.losses.pairs import full_precision

CHUNK = 4 * 2**20
"""Affinities held at once, 16 MiB in float32. All of them would be N (HW)^2: 340 MB for 16 maps of 48x48."""


def feature_affinity(student: Tensor, teacher: Tensor) -> Tensor:
    """Of one tapped layer: mean |A(student) - A(teacher)|, where A = F'F (N, HW, HW) holds the cosine of every two pixels.

    F is the features with each pixel's vector scaled to unit length.
    Gradients reach `student` only. Needs memory for a few copies of the features and 2 * CHUNK values, for the rows of A are
    visited a few at a time and their gradient is taken on the way. Always in float32, also inside autocast.

    Args:
        student: (N, C, H, W) features, any range.
        teacher: (N, D, H, W); D may differ from C.

    Raises:
        ValueError: batch or image sizes that differ.
    """
    if student.shape[0] != teacher.shape[0] or student.shape[2:] != teacher.shape[2:]:
        raise ValueError(
            f"expected features of the same images and size, found {tuple(student.shape)} and {tuple(teacher.shape)}."
        )
    with torch.autocast(student.device.type, enabled=False):
        loss: Any = _AffinityDistance.apply(_unit_vectors(student), _unit_vectors(teacher.detach()))
    return loss


def _unit_vectors(features: Tensor) -> Tensor:
    """(N, C, H, W) to (N, HW, C), each vector of length 1 (or 0 where all features are 0)."""
    return F.normalize(full_precision(features).flatten(2).transpose(1, 2), dim=2, eps=1e-6)


class _AffinityDistance(torch.autograd.Function):
    """Mean |S S' - T T'| over (N, P, P) for S (N, P, C) and T (N, P, D), and its gradient in S: 2 sign(S S' - T T') S."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        count, pixels, _ = student.shape
        total = student.new_zeros(())
        gradient = torch.empty_like(student) if ctx.needs_input_grad[0] else None
        rows = max(1, CHUNK // (count * pixels))
        for start in range(0, pixels, rows):
            some = slice(start, start + rows)
            difference = torch.bmm(teacher[:, some], teacher.mT)
            difference = torch.baddbmm(difference, student[:, some], student.mT, beta=-1)
            total += torch.linalg.vector_norm(difference, 1, dim=2).sum()  # by rows: one sum of all drifts by 1e-3
            if gradient is not None:
                gradient[:, some] = torch.bmm(difference.sign_(), student)
        values = count * pixels**2
        if gradient is not None:
            ctx.save_for_backward(gradient.mul_(2 / values))  # 2: row i and column i of A both hold vector i
        return total / values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None
