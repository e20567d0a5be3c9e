"""Training on ground truth alone."""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from compress.data.patches import Batch
from compress.losses import charbonnier, l1, mse
from compress.methods.base import Method

LOSSES = {"l1": l1, "mse": mse, "charbonnier": charbonnier}


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """What is minimised.

    Attributes:
        loss: mean absolute error, mean squared error, or Charbonnier's.
    """

    loss: Literal["l1", "mse", "charbonnier"] = "l1"


class Supervised(Method):
    """L = loss(S(lr), hr)."""

    def __init__(self, config: SupervisedConfig):
        super().__init__()
        self.config = config

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        loss = LOSSES[self.config.loss]
        return {self.config.loss: loss(student(batch["lr"]), batch["hr"])}
