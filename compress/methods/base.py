"""What the loop expects of a training method."""

from abc import abstractmethod

from torch import Tensor, nn

from compress.data.patches import Batch


class Method(nn.Module):
    """Turns a batch into named losses. A teacher is wrapped, frozen, and never among the trained parameters."""

    @abstractmethod
    def forward(self, student: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """Named, weighted scalar losses; the loop minimises their sum.

        Args:
            student: the network that trains.
            batch: float32 patches in [0, 1].
        """
