"""Adversarial training, of a teacher as SRGAN's and of students as Park's transfers.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (CVPR 2017); Park,
whose four transfers of an SRGAN differ in what the student learns from and when: see recipes/park.yaml.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.errors import BadInput
from compress.frozen import Frozen
from compress.losses import GanKind, VggLoss, discriminator_loss, generator_loss, l1, mse
from compress.methods.teacher import TeacherMethod


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig:
    """Weights of the terms; a term of weight 0 is not computed.

    Attributes:
        adversarial: of -log D(S(lr)), or ESRGAN's relativistic form of it.
        kind: which of the two, for both networks.
        truth: of mean |S(lr) - hr|.
        teacher: of mean |S(lr) - T(lr)|; needs a teacher.
        content: of the mean squared difference from hr in features of VGG19.
        content_layer: conv1_1 ... conv5_4 (SRGAN: conv5_4, or conv2_2).
        content_after_activation: behind the layer's ReLU, as SRGAN has it; before it, as ESRGAN.
        content_weights: file of VGG19's weights; empty: torchvision's download.
        discriminator: of the mean squared difference of the discriminator's logits from those of the teacher's
            discriminator, for real and made images; needs `discriminator.teacher`.
    """

    adversarial: float = 1e-3
    kind: GanKind = "standard"
    truth: float = 0.0
    teacher: float = 0.0
    content: float = 6e-3
    content_layer: str = "conv5_4"
    content_after_activation: bool = False
    content_weights: str = ""
    discriminator: float = 0.0


class Adversarial(TeacherMethod):
    """L = truth * L1(S, hr) + teacher * L1(S, T) + content * VGG(S, hr) + adversarial * G(D(S)), S = S(lr), T = T(lr).

    The discriminator minimises binary cross entropy, plus discriminator * mse(D(x), D_T(x)) where it is distilled too.

    Raises:
        BadInput: a teacher, or a teacher's discriminator, that no term asks, or a term without its teacher.
    """

    def __init__(
        self,
        config: AdversarialConfig,
        teacher: nn.Module | None,
        discriminator: nn.Module,
        discriminator_teacher: nn.Module | None,
    ):
        super().__init__(teacher)
        self.config = config
        self.discriminator = discriminator
        self.discriminator_teacher = Frozen(discriminator_teacher) if discriminator_teacher else None
        self.content = None
        if config.content:
            self.content = VggLoss(
                config.content_layer,
                after_activation=config.content_after_activation,
                weights=Path(config.content_weights) if config.content_weights else None,
            )
        self.made = torch.empty(0)
        _check("a teacher", self.asks_teacher(), teacher)
        _check("discriminator.teacher", config.discriminator > 0, discriminator_teacher)

    def asks_teacher(self) -> bool:
        """Whether a term of the loss needs the teacher."""
        return self.config.teacher > 0

    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        return self.generator_losses(student(batch["lr"]), batch)

    def generator_losses(self, sr: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The student's losses, given its output."""
        config, hr = self.config, batch["hr"]
        self.made = sr.detach()
        real = None
        if config.kind == "relativistic":
            with torch.no_grad():
                real = self.judge(hr)
        losses = {"adversarial": config.adversarial * generator_loss(self.judge(sr), real, config.kind)}
        if config.truth:
            losses["truth"] = config.truth * l1(sr, hr)
        if config.teacher:
            losses["teacher"] = config.teacher * l1(sr, self.label(batch))
        if self.content:
            losses["content"] = config.content * self.content(sr, hr)
        return losses

    def discriminator_losses(self, discriminator: nn.Module, batch: Batch) -> dict[str, Tensor]:
        config, hr = self.config, batch["hr"]
        real, fake = discriminator(hr), discriminator(self.made)
        losses = {"judgement": discriminator_loss(fake, real, config.kind)}
        if self.discriminator_teacher:
            with torch.no_grad():
                wanted = [self.discriminator_teacher(x).float() for x in (hr, self.made)]
            losses["distillation"] = config.discriminator * (mse(real, wanted[0]) + mse(fake, wanted[1]))
        return losses


def _check(what: str, asked: bool, network: nn.Module | None) -> None:
    if asked and network is None:
        raise BadInput(
            f"expected {what} for the weights in method.options, found none: add it, or set its weight to 0."
        )
    if network is not None and not asked:
        raise BadInput(f"expected a use for {what}, found that no weight in method.options asks it: leave it out.")
