"""Adversarial losses from a discriminator's logits (before its sigmoid), any shape that begins with N.

The two sides: `discriminator_loss` trains the discriminator, on images made without gradient; `generator_loss` trains the
network that made the images, through a discriminator whose own gradients the caller drops.
"""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from compress.losses.pairs import full_precision

GanKind = Literal["standard", "relativistic"]


def generator_loss(fake: Tensor, real: Tensor | None = None, kind: GanKind = "standard") -> Tensor:
    """What the network that made the images minimises.

    standard: mean -log D(fake), the non-saturating form that SRGAN trains with (Ledig et al. 2017, section 2.2.2).
    relativistic: -E log(1 - sigmoid(real - E fake)) - E log sigmoid(fake - E real), the relativistic average of
    ESRGAN (Wang et al. 2018, section 3.2). E is the mean over the batch of this process.

    Args:
        fake: logits of made images. Gradients reach these only.
        real: logits of real images; needed by 'relativistic', not looked at otherwise.

    Raises:
        ValueError: 'relativistic' without `real`.
    """
    fake = full_precision(fake)
    if kind == "standard":
        return F.softplus(-fake).mean()
    if real is None:
        raise ValueError("expected the logits of real images for a relativistic loss, found none.")
    real = full_precision(real.detach())
    return F.softplus(real - fake.mean()).mean() + F.softplus(real.mean() - fake).mean()


def discriminator_loss(fake: Tensor, real: Tensor, kind: GanKind = "standard") -> Tensor:
    """What the discriminator minimises: binary cross entropy of both halves, added (not averaged).

    standard: -E log D(real) - E log(1 - D(fake)) (Ledig et al. 2017, equation 2).
    relativistic: -E log sigmoid(real - E fake) - E log(1 - sigmoid(fake - E real)) (Wang et al. 2018, section 3.2).

    Args:
        fake: logits of made images; detach the images, or the generator gets gradients too.
        real: logits of real images. Gradients reach both.
    """
    fake, real = full_precision(fake), full_precision(real)
    if kind == "standard":
        return F.softplus(-real).mean() + F.softplus(fake).mean()
    return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()
