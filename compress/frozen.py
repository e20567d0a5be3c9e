"""A network that teaches or judges: never trained, never saved, always in eval mode."""

from typing import Any

import torch
from torch import nn


class Frozen(nn.Module):
    """Holds a network outside the module tree: it moves with `.to()`, but has no parameters and no state of its own.

    Gradients flow through it to its input; use `torch.no_grad()` where they should not.

    Attributes:
        low_precision: run in bfloat16 (mixed), as a network that trains does.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.low_precision = False
        self._held = [network.eval().requires_grad_(False)]  # a list, which nn.Module does not look into

    @property
    def network(self) -> nn.Module:
        return self._held[0]

    def _apply(self, fn: Any, recurse: bool = True) -> "Frozen":
        self.network._apply(fn, recurse)
        return super()._apply(fn, recurse)

    def forward(self, *inputs: torch.Tensor) -> Any:
        with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=self.low_precision):
            return self.network(*inputs)
