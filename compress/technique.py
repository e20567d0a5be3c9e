"""What a run does to the network besides minimising losses: masks, growing penalties, fake quantization.

Methods (compress.methods) say what is learnt, techniques how the network gets smaller on the way; any method goes
with any technique. A technique's buffers and parameters are saved with the run and restored when it resumes.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress.checkpoint import Student

if TYPE_CHECKING:
    from compress.recipe import ScheduleSpec


class Technique(nn.Module):
    """The technique that does nothing, and the base of all others."""

    def prepare(self, network: nn.Module) -> nn.Module:
        """The network that trains, made of the one that the recipe names.

        Raises:
            BadInput: a network that the technique cannot work on.
        """
        return network

    def optimizer(self, network: nn.Module, schedule: "ScheduleSpec") -> torch.optim.Optimizer:
        """The optimizer of the network; the loop sets `lr` of every group before each step."""
        return torch.optim.Adam(network.parameters(), lr=schedule.learning_rate, betas=schedule.betas)

    def penalty(self, network: nn.Module, step: int) -> dict[str, Tensor]:
        """Named losses on the weights, added to the method's. `step` counts from 1."""
        return {}

    def after_step(self, network: nn.Module, step: int) -> None:
        """Called after every optimizer step, the first of which is 1: for weights that must stay zero."""

    def figures(self, network: nn.Module) -> dict[str, float]:
        """Figures for the log, such as the share of zero weights."""
        return {}

    def student(self, network: nn.Module) -> Student:
        """The student made of the network that is kept, which is `prepare`'s or a moving average of it."""
        return Student.of(network)
