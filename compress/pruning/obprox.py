"""OBProx-SG: stochastic gradient descent under an l1 penalty that ends with exact zeros.

Chen et al., "Orthant Based Proximal Stochastic Gradient Method for l1-regularized optimization" (ECML-PKDD 2020).
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.errors import BadInput


class OBProxSG(torch.optim.Optimizer):
    """Minimises loss + penalty * |x|_1 in two phases, with g the gradient of the loss:

    - the first `prox_steps` steps: x <- soft(x - lr*g, lr*penalty), soft(a, t) = sign(a) * max(|a| - t, 0);
    - then, for good, steps inside the orthant that x lies in: s = sign(x), x' = x - lr*(g + penalty*s) where x is
      not 0; x <- x' where x'*s > epsilon, else 0. No weight changes its sign, and a zero stays zero.

    Phases are counted in steps, one per call of `step`. The code released with CDISM (Jiang et al., PCS 2024) tells
    its optimizer the length of an epoch in images, where the optimizer counts steps; its prox phase therefore lasts
    as many times longer as a batch has images, and the orthant phase, which makes the zeros, is never reached.

    The number of steps taken is part of every parameter group, so `state_dict` carries the phase.

    Args:
        params: tensors or groups; a group may have its own lr, penalty and epsilon. With penalty 0 a group's steps
            are plain gradient descent in both phases: nothing of it is projected.
        lr: learning rate; may be changed between steps.
        penalty: lambda, the weight of the l1 norm; at least 0.
        epsilon: radius around 0 that the orthant phase sets to 0; at least 0, in units of the weights.
        prox_steps: steps of the prox phase; 0 starts in the orthant phase.

    Raises:
        BadInput: a number below 0.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        *,
        penalty: float = 1e-4,
        epsilon: float = 1e-4,
        prox_steps: int,
    ):
        for name, value in (("lr", lr), ("penalty", penalty), ("epsilon", epsilon), ("prox_steps", prox_steps)):
            if not value >= 0:
                raise BadInput(f"expected {name} of OBProx-SG to be at least 0, found {value}: use a larger number.")
        defaults = {"lr": lr, "penalty": penalty, "epsilon": epsilon, "prox_steps": prox_steps, "steps_taken": 0}
        super().__init__(params, defaults)

    @property
    def in_orthant_phase(self) -> bool:
        """Whether the next step is one of the orthant phase."""
        return all(group["steps_taken"] >= group["prox_steps"] for group in self.param_groups)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Takes one step; `closure` recomputes the loss, which is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            lr, penalty, epsilon = group["lr"], group["penalty"], group["epsilon"]
            orthant = group["steps_taken"] >= group["prox_steps"]
            for x in group["params"]:
                if x.grad is None:
                    continue
                if penalty == 0:
                    x.sub_(x.grad, alpha=lr)
                elif orthant:
                    x.copy_(orthant_step(x, x.grad, lr, penalty, epsilon))
                else:
                    x.copy_(F.softshrink(x.sub(x.grad, alpha=lr), lr * penalty))
            group["steps_taken"] += 1
        return loss


def orthant_step(x: Tensor, gradient: Tensor, lr: float, penalty: float, epsilon: float) -> Tensor:
    """x after one gradient step inside its orthant, with what comes within `epsilon` of 0 or across it set to 0."""
    sign = x.sign()
    moved = x - lr * (gradient + penalty * sign)
    return moved.where(moved * sign > epsilon, 0.0)  # where x is 0, the product is 0 and x stays 0
