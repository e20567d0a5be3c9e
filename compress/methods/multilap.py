"""The third stage of CDISM: distillation by the MultiLap loss.

Jiang et al., "Compressing Deep Image Super-resolution Models" (PCS 2024).
"""

from dataclasses import dataclass

from torch import Tensor, nn

from compress.data.patches import Batch
from compress.losses import MultiLap, l1
from compress.methods.teacher import TeacherMethod


@dataclass(frozen=True, kw_only=True)
class MultiLapConfig:
    """Weights of the two terms.

    Attributes:
        teacher: of MultiLap(S(lr), T(lr)).
        truth: of mean |S(lr) - hr|.
    """

    teacher: float = 1.0
    truth: float = 0.1


class MultiLapDistillation(TeacherMethod):
    """L = teacher * MultiLap(S(lr), T(lr)) + truth * mean |S(lr) - hr|."""

    def __init__(self, config: MultiLapConfig, teacher: nn.Module):
        super().__init__(teacher)
        self.config = config
        self.multilap = MultiLap()

    def check_patch(self, side: int) -> None:
        self.multilap.check_patch(side)

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        sr = student(batch["lr"])
        return {
            "teacher": self.config.teacher * self.multilap(sr, self.label(batch)),
            "truth": self.config.truth * l1(sr, batch["hr"]),
        }
