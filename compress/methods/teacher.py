"""What methods that learn from a teacher's output share."""

import torch
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.frozen import Frozen
from compress.methods.base import Method


class TeacherMethod(Method):
    """Holds the teacher and asks it for labels.

    Args:
        teacher: (N, 3, h, w) to (N, 3, s*h, s*w); None where a method can do without.
    """

    def __init__(self, teacher: nn.Module | None):
        super().__init__()
        self.teacher = None if teacher is None else Frozen(teacher)

    def set_low_precision(self, enabled: bool) -> None:
        super().set_low_precision(enabled)
        if self.teacher:
            self.teacher.low_precision = enabled

    def label(self, batch: Batch) -> Tensor:
        """T(lr): `batch["label"]` where the teacher labelled the images beforehand, else a pass without gradient."""
        known = batch.get("label")
        return self.ask(batch["lr"]) if known is None else known

    @torch.no_grad()
    def ask(self, lr: Tensor) -> Tensor:
        """The teacher's output for any LR patches, float32, clipped to pixels' range as cached labels are."""
        assert self.teacher is not None
        return self.teacher(lr).float().clamp(0, 1)
