"""Feature-affinity distillation.

He et al., "FAKD: Feature-Affinity Based Knowledge Distillation for Efficient Image Super-Resolution" (ICIP 2020).
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.errors import BadInput
from compress.losses import feature_affinity, l1
from compress.methods.teacher import TeacherMethod


@dataclass(frozen=True, kw_only=True)
class FakdConfig:
    """Weights of the terms, as published.

    Attributes:
        truth: of mean |S(lr) - hr|.
        teacher: of mean |S(lr) - T(lr)|.
        affinity: of the mean difference of the affinities, summed over three depths.
    """

    truth: float = 0.5
    teacher: float = 0.5
    affinity: float = 10.0


class Fakd(TeacherMethod):
    """L = truth * L1(S, hr) + teacher * L1(S, T) + affinity * sum over 3 depths of mean |A(F_S) - A(F_T)|.

    F are the features after one, two and three thirds of each network (`taps()`); widths may differ, sizes may not.

    Raises:
        BadInput: a teacher without features to look at.
    """

    def __init__(self, config: FakdConfig, teacher: nn.Module):
        super().__init__(teacher)
        self.config = config
        self.seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
        self._listen("teacher", teacher)

    def attach(self, network: nn.Module) -> None:
        self._listen("student", network)

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        config = self.config
        for features in self.seen.values():
            features.clear()
        sr = student(batch["lr"])
        taught = self.ask(batch["lr"])
        pairs = zip(self.seen["student"], self.seen["teacher"], strict=True)
        return {
            "truth": config.truth * l1(sr, batch["hr"]),
            "teacher": config.teacher * l1(sr, taught),
            "affinity": config.affinity * torch.stack([feature_affinity(mine, theirs) for mine, theirs in pairs]).sum(),
        }

    def _listen(self, who: str, network: nn.Module) -> None:
        if not hasattr(network, "taps"):
            raise BadInput(
                f"expected a {who} whose features can be compared, found {type(network).__name__}: use one of our own "
                "architectures, without self-ensemble and without quantization, or another method."
            )

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self.seen[who].append(output)

        for name in network.taps():
            network.get_submodule(name).register_forward_hook(keep)
