"""Training on ground truth alone."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.methods.base import Method


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """No options: mean absolute error (L1) to the HR patch."""


class Supervised(Method):
    """L = mean |S(lr) - hr|."""

    def __init__(self, config: SupervisedConfig):
        super().__init__()
        self.config = config

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return {"l1": F.l1_loss(student(batch["lr"]), batch["hr"])}
