"""First stage of CDISM: zeros in a trained network, by OBProx-SG. What counts is how many: see compress.pruning.sizes.

Jiang et al., "Compressing Deep Image Super-resolution Models" (PCS 2024), after Ding et al., "CDFI:
Compression-Driven Network Design for Frame Interpolation" (CVPR 2021).
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress.checkpoint import Student
from compress.errors import BadInput
from compress.pruning.obprox import OBProxSG
from compress.technique import Technique

if TYPE_CHECKING:
    from compress.recipe import ScheduleSpec


@dataclass(frozen=True, kw_only=True)
class SparsifyConfig:
    """Options of OBProx-SG; the defaults are CDISM's where it gives them.

    Published beside them: learning rate 5e-3, batch 16, HR patch 96, Charbonnier's loss, and the trained network as
    model.start. The formulas know no clipping, so set schedule.clip_norm to 0.

    Attributes:
        penalty: lambda, the weight of the l1 norm.
        epsilon: radius around 0 that the orthant phase sets to 0.
        prox_steps: steps before the orthant phase. CDFI takes 2 epochs; the default is two of 1,000 steps.
    """

    penalty: float = 1e-4
    epsilon: float = 1e-4
    prox_steps: int = 2000


class Sparsify(Technique):
    """Trains with OBProx-SG in place of Adam: more and more weights become exactly 0.

    Only the weights of convolutions and linear layers are penalised and zeroed. The sources hand all parameters to
    the optimizer; biases, norms, slopes and position tables are few (0.2% of EDSR-baseline) and their zeros say
    nothing of the width that a network needs, so here they take plain gradient steps.

    Raises:
        BadInput: a penalty that is not positive, or a negative epsilon.
    """

    def __init__(self, config: SparsifyConfig):
        super().__init__()
        self.config = config
        self._optimizer: OBProxSG | None = None
        if not (config.penalty > 0 and config.epsilon >= 0):
            raise BadInput(
                "expected a positive penalty and an epsilon of at least 0 for sparsify, found "
                f"{config.penalty:g} and {config.epsilon:g}: use larger numbers."
            )

    def prepare(self, network: nn.Module) -> nn.Module:
        if network.merged() is not network:
            raise BadInput(
                "expected a network without branches to sparsify, found one with: merging its branches would fill the "
                "zeros, so start from a student.pt, which is merged, or set `branches` to false."
            )
        return network

    def optimizer(self, network: nn.Module, schedule: "ScheduleSpec") -> OBProxSG:
        """OBProx-SG over two groups: the regularised weights, and all other parameters.

        Raises:
            BadInput: a moving average, in which no weight is 0, or a prox phase that outlasts the run.
        """
        if schedule.ema:
            raise BadInput(
                f"expected schedule.ema 0 with the technique sparsify, found {schedule.ema:g}: a moving average of "
                "weights is not 0 where they are, so the zeros would be lost; set schedule.ema to 0."
            )
        if self.config.prox_steps >= schedule.steps:
            raise BadInput(
                f"expected prox_steps of sparsify below schedule.steps ({schedule.steps}), found "
                f"{self.config.prox_steps}: the orthant phase, which makes the zeros, would never be reached."
            )
        weights = list(regularized(network).values())
        known = {id(weight) for weight in weights}
        others = [parameter for parameter in network.parameters() if id(parameter) not in known]
        groups = [{"params": weights}, {"params": others, "penalty": 0.0}]
        c = self.config
        self._optimizer = OBProxSG(
            [group for group in groups if group["params"]],
            schedule.learning_rate,
            penalty=c.penalty,
            epsilon=c.epsilon,
            prox_steps=c.prox_steps,
        )
        return self._optimizer

    def figures(self, network: nn.Module) -> dict[str, float]:
        """zeros and density: shares of the regularised weights that are exactly 0 and that are not.

        orthant: 0 in the prox phase, 1 in the orthant phase.
        """
        found = density(network)
        orthant = self._optimizer is not None and self._optimizer.in_orthant_phase
        return {"zeros": 1 - found, "density": found, "orthant": float(orthant)}

    def student(self, network: nn.Module) -> Student:
        return Student.of(network, provenance={"density": density(network)})


def regularized(network: nn.Module) -> dict[str, Tensor]:
    """The weights that are penalised, by parameter name: those of convolutions and linear layers."""
    return {
        f"{name}.weight": module.weight
        for name, module in network.named_modules()
        if isinstance(module, (nn.Conv2d, nn.Linear))
    }


@torch.no_grad()
def density(network: nn.Module) -> float:
    """Share of the regularised weights that are not exactly 0."""
    weights = regularized(network).values()
    return sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)
