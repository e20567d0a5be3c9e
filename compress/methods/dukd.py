"""Distillation on fresh pairs that the teacher labels.

Zhang et al., "Data Upcycling Knowledge Distillation for Image Super-Resolution" (2023): the training images are used a
second time at other zooms, where there is no ground truth but the teacher, and under invertible augmentations.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.losses import l1
from compress.methods.teacher import TeacherMethod


@dataclass(frozen=True, kw_only=True)
class DukdConfig:
    """Weights, and what a fresh pair is made of.

    Attributes:
        truth: of mean |S(lr) - hr| on the usual pairs.
        teacher: of mean |S - T| on the fresh ones.
        zoom_out: factor by which LR patches are reduced again; 1 leaves zooming out out.
    """

    truth: float = 5.0
    teacher: float = 1.0
    zoom_out: int = 2


class Dukd(TeacherMethod):
    """L = truth * L1(S(lr), hr) + teacher * (L1 on zoomed-in crops + L1 on zoomed-out patches).

    Zoomed in: crops of HR serve as LR. Zoomed out: LR is reduced again (the paper leaves the factor open: the scale, or
    less where patches are small). The student sees each fresh input with its colours inverted or its channels turned
    and must give the teacher's output of the plain one, so transformed: S(a(x)) = a(T(x)).
    """

    draws: Tensor

    def __init__(self, config: DukdConfig, teacher: nn.Module):
        super().__init__(teacher)
        self.config = config
        # a buffer, so that a resumed run draws what it would have drawn
        self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        lr, hr = batch["lr"], batch["hr"]
        draw = np.random.default_rng(int(self.draws))
        self.draws += 1
        losses = {
            "truth": self.config.truth * l1(student(lr), hr),
            "zoom_in": self.config.teacher * self._on(student, random_crop(hr, lr.shape[-1], draw), draw),
        }
        if self.config.zoom_out > 1:
            losses["zoom_out"] = self.config.teacher * self._on(student, reduced(lr, self.config.zoom_out), draw)
        return losses

    def _on(self, student: nn.Module, x: Tensor, draw: np.random.Generator) -> Tensor:
        augment = INVERTIBLE[draw.integers(len(INVERTIBLE))]
        return l1(student(augment(x)), augment(self.ask(x)))


def random_crop(images: Tensor, side: int, draw: np.random.Generator) -> Tensor:
    """The same random square of all images (N, 3, H, W)."""
    top, left = (int(draw.integers(size - side + 1)) for size in images.shape[-2:])
    return images[..., top : top + side, left : left + side].contiguous(memory_format=torch.channels_last)


def reduced(images: Tensor, factor: int) -> Tensor:
    """Bicubic reduction with antialiasing, clipped to [0, 1]."""
    size = [side // factor for side in images.shape[-2:]]
    return F.interpolate(images, size, mode="bicubic", antialias=True).clamp(0, 1)


def identity(x: Tensor) -> Tensor:
    return x


def inverted(x: Tensor) -> Tensor:
    """Colours inverted: 1 - x."""
    return 1 - x


def turned(x: Tensor) -> Tensor:
    """RGB as GBR."""
    return x.roll(1, dims=1)


INVERTIBLE = (identity, inverted, turned)
"""Augmentations that commute with ideal super-resolution; flips and rotations are the patches' own."""
