"""What the loop expects of a training method."""

from abc import abstractmethod

import torch
from torch import Tensor, nn

from compress.data.patches import Batch


class Method(nn.Module):
    """Turns a batch into named losses. Teachers and judges are `Frozen`, never among the trained parameters.

    Attributes:
        discriminator: the second network of an adversarial method, which the loop trains in turn with the student
            by minimising `discriminator_losses`; None for all other methods.
        low_precision: the run computes in bfloat16 (mixed); the loop sets it. Teachers and discriminators follow;
            networks inside losses (VGG, LPIPS) stay in float32, for what they compare is nearly equal.
    """

    def __init__(self) -> None:
        super().__init__()
        self.discriminator: nn.Module | None = None
        self.low_precision = False

    def set_low_precision(self, enabled: bool) -> None:
        """Called once by the loop."""
        self.low_precision = enabled

    @abstractmethod
    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted scalar losses; the loop minimises their sum.

        Args:
            student: the network that trains.
            batch: float32 patches in [0, 1].
        """

    def check_patch(self, side: int) -> None:
        """Whether HR patches of that side can be used. Raises BadInput where they cannot."""

    def attach(self, network: nn.Module) -> None:
        """Called once with the bare network before the training starts, for methods that look inside it."""

    def discriminator_losses(self, discriminator: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Named losses of the discriminator for the batch that `forward` saw last.

        Args:
            discriminator: `self.discriminator` as the loop wrapped it (for several processes).
            batch: the same batch.
        """
        raise NotImplementedError

    def judge(self, images: Tensor) -> Tensor:
        """The bare discriminator's logits (N, 1) in the run's precision; gradients reach `images`."""
        assert self.discriminator is not None
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.low_precision):
            return self.discriminator(images).float()
