"""Knowledge distillation from a teacher's output (response-based; Hinton et al. 2015, with L1 for regression)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.methods.teacher import TeacherMethod


@dataclass(frozen=True, kw_only=True)
class DistillationConfig:
    """Weights of the two terms.

    Attributes:
        truth: of mean |S(lr) - hr|.
        teacher: of mean |S(lr) - T(lr)|.
    """

    truth: float = 0.5
    teacher: float = 0.5


class OutputDistillation(TeacherMethod):
    """L = truth * mean |S(lr) - hr| + teacher * mean |S(lr) - T(lr)|."""

    def __init__(self, config: DistillationConfig, teacher: nn.Module):
        super().__init__(teacher)
        self.config = config

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        sr = student(batch["lr"])
        return {
            "truth": self.config.truth * F.l1_loss(sr, batch["hr"]),
            "teacher": self.config.teacher * F.l1_loss(sr, self.label(batch)),
        }
