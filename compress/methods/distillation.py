"""Knowledge distillation from a teacher's output (response-based; Hinton et al. 2015, with L1 for regression)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Weights of the two terms.

    Attributes:
        truth: of mean |S(lr) - hr|.
        teacher: of mean |S(lr) - T(lr)|.
    """

    truth: float = 0.5
    teacher: float = 0.5


class OutputDistillation(Method):
    """L = truth * mean |S(lr) - hr| + teacher * mean |S(lr) - T(lr)|.

    T(lr) is `batch["label"]` where the teacher labelled the images beforehand, else a forward pass without gradient.
    """

    def __init__(self, config: DistillationConfig, teacher: nn.Module):
        super().__init__()
        self.config = config
        self.teacher = teacher.requires_grad_(False)

    def train(self, mode: bool = True) -> "OutputDistillation":
        """The teacher always stays in eval mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        sr = student(batch["lr"])
        label = batch.get("label")
        if label is None:
            with torch.no_grad():
                label = self.teacher(batch["lr"])
        return {
            "truth": self.config.truth * F.l1_loss(sr, batch["hr"]),
            "teacher": self.config.teacher * F.l1_loss(sr, label),
        }
