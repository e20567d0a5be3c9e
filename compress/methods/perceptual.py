"""Perceptual distillation of an SRGAN generator.

Hussain, Shin, Cho, "Optimizing SR-GAN for Resource-Efficient Single-Image Super-Resolution via Knowledge Distillation":
a student of four residual blocks learns from ground truth, from a discriminator, and by LPIPS.
"""

from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from compress.data.patches import Batch
from compress.losses import LpipsLoss
from compress.methods.adversarial import Adversarial, AdversarialConfig
from compress.metrics import Backbone


@dataclass(frozen=True, kw_only=True)
class PerceptualConfig(AdversarialConfig):
    """Adversarial training's terms with the paper's weights, and LPIPS.

    Attributes:
        lpips: weight of the LPIPS distance; 1e-6 as published, where it hardly acts: LPIPS lies at 0.1 to 0.3 and L1 at
            0.03, so that weights from 0.01 make a difference.
        lpips_against: the paper's equation 8 compares with ground truth, its text with the teacher's output.
        lpips_backbone: network of LPIPS.
    """

    truth: float = 1.0
    content: float = 6e-3
    lpips: float = 1e-6
    lpips_against: Literal["teacher", "truth"] = "teacher"
    lpips_backbone: Backbone = "alex"


class PerceptualDistillation(Adversarial):
    """L = L1(S, hr) + content * VGG(S, hr) + adversarial * -log D(S) + lpips * LPIPS(S, T or hr)."""

    def __init__(self, config: PerceptualConfig, teacher: nn.Module | None, discriminator: nn.Module):
        super().__init__(config, teacher, discriminator, None)
        self.lpips = LpipsLoss(config.lpips_backbone) if config.lpips else None

    def asks_teacher(self) -> bool:
        return super().asks_teacher() or (self.config.lpips > 0 and self.config.lpips_against == "teacher")

    def check_patch(self, side: int) -> None:
        super().check_patch(side)
        if self.lpips:
            self.lpips.check_patch(side)

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        sr = student(batch["lr"])
        losses = self.generator_losses(sr, batch)
        if self.lpips:
            target = self.label(batch) if self.config.lpips_against == "teacher" else batch["hr"]
            losses["lpips"] = self.config.lpips * self.lpips(sr, target)
        return losses
