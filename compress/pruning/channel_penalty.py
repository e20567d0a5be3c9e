"""Structured channel pruning with growing regularisation: channels chosen at the start are emptied, then removed.

Zhang, Wang, Qin, Fu, "Learning Efficient Image Super-Resolution Networks via Structure-Regularized Pruning" (SRP,
ICLR 2022), and the same authors' ASSL (NeurIPS 2021). They draw the channels of the residual stream at random, the
same for all layers that it ties; here these are chosen by the sum of the layers' norms.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress.checkpoint import Student
from compress.errors import BadInput
from compress.models.channels import ChannelGroup
from compress.pruning.channel_removal import groups_of, remove_channels
from compress.pruning.channels import MULTIPLE, Criterion, Widths, removal_summary, select_channels
from compress.technique import Technique

if TYPE_CHECKING:
    from compress.recipe import ScheduleSpec


FORGOTTEN = 0.05  # weight in the moving average of the last step at which the channels that go were not yet empty


@dataclass(frozen=True, kw_only=True)
class ChannelPenaltyConfig(Widths):
    """What remains, and how the rest is emptied; growth, interval and ceiling are SRP's, who need 100,000 steps for it.

    Attributes:
        multiple: the widths are rounded to the nearest multiple of it, never below it.
        criterion: by what channels are judged; see `compress.pruning.channels.importance`.
        growth: what the strength of the penalty grows by.
        every: steps between two growths.
        ceiling: where the strength stays.
    """

    multiple: int = MULTIPLE
    criterion: Criterion = "l1"
    growth: float = 1e-4
    every: int = 20
    ceiling: float = 0.5

    def __post_init__(self) -> None:
        for name in ("growth", "ceiling"):
            if getattr(self, name) <= 0:
                raise BadInput(
                    f"expected {name} of the channel penalty to be above 0, found {getattr(self, name)}: correct it."
                )

    def strength(self, step: int) -> float:
        """The penalty's strength alpha at a step, counted from 1."""
        return min(self.ceiling, self.growth * (step // self.every))

    def remaining(self, step: int) -> float:
        """What the fading has left of a channel that goes after a step: 1 at first, 0 from the ceiling on."""
        return 0.0 if step >= self.steps_to_ceiling else 1 - self.strength(step) / self.ceiling

    @property
    def steps_to_ceiling(self) -> int:
        """The first step at the full strength."""
        return self.every * math.ceil(self.ceiling / self.growth - 1e-9)


class ChannelPenalty(Technique):
    """Adds 0.5 * alpha * (sum of squares of what makes the channels that go), and removes these from what is kept.

    As in SRP these are the channels' weights and biases in their producers; the layers that read them are left alone,
    for a channel that is zero needs no more. Where there are batch norms, the channels' factors and offsets are
    added, because behind a norm the size of the weights changes nothing.

    The penalty alone does not empty the channels in a short run: Adam divides its gradient by the root of that
    gradient's own mean square, so a weight w shrinks by about the learning rate per step whatever alpha is, and ever
    more slowly as w falls below what that mean still remembers. So the channels fade besides, by a factor that does
    not pass through Adam (as in Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019): every
    growth of alpha takes the same share, and at the ceiling they are exactly zero and stay so.

    Attributes:
        doomed: (channels of all groups that are cut,) bool, True for those that go; saved with the run.
    """

    doomed: Tensor

    def __init__(self, config: ChannelPenaltyConfig):
        super().__init__()
        self.config = config
        self.groups: list[ChannelGroup] = []
        self.strength = 0.0

    def prepare(self, network: nn.Module) -> nn.Module:
        """The network with its branches merged; chooses the channels that go."""
        merged = network.merged()
        config = self.config
        kept = select_channels(merged, config, multiple=config.multiple, criterion=config.criterion)
        self.groups = [group for group in groups_of(merged) if group.name in kept]
        masks = [
            torch.ones(group.size, dtype=torch.bool).index_fill(0, kept[group.name], False) for group in self.groups
        ]
        self.register_buffer("doomed", torch.cat(masks))
        return merged

    def optimizer(self, network: nn.Module, schedule: "ScheduleSpec") -> torch.optim.Optimizer:
        """The usual one.

        Raises:
            BadInput: a run that ends before the channels are gone from the network, or from its moving average.
        """
        ceiling = self.config.steps_to_ceiling
        if schedule.steps < ceiling:
            raise BadInput(
                f"expected at least {ceiling} steps, in which the channel penalty reaches its ceiling, found "
                f"{schedule.steps}: raise schedule.steps or the technique's growth, or lower its every."
            )
        forgetting = math.ceil(math.log(FORGOTTEN) / math.log(schedule.ema)) if schedule.ema else 0
        if schedule.steps < ceiling + forgetting:
            raise BadInput(
                f"expected at least {ceiling + forgetting} steps, in which the channel penalty reaches its ceiling and the "
                f"moving average of {schedule.ema} forgets what goes, found {schedule.steps}: raise schedule.steps, or set "
                "schedule.ema to 0."
            )
        return super().optimizer(network, schedule)

    def penalty(self, network: nn.Module, step: int) -> dict[str, Tensor]:
        self.strength = self.config.strength(step)
        doomed = [rows.square().sum(1) @ mask.to(rows.dtype) for _, rows, mask in self._rows(network)]
        return {"channels": 0.5 * self.strength * torch.stack(doomed).sum()}

    @torch.no_grad()
    def after_step(self, network: nn.Module, step: int) -> None:
        """Fades the channels that go."""
        before, now = self.config.remaining(step - 1), self.config.remaining(step)
        if now == before > 0:
            return
        factor = now / before if before else 0.0
        for parameter, rows, mask in self._rows(network):
            parameter.copy_(torch.where(mask[:, None], factor * rows, rows).reshape(parameter.shape))

    @torch.no_grad()
    def figures(self, network: nn.Module) -> dict[str, float]:
        """The strength of the last step, and the norm of the mean channel that goes over that of one that stays."""
        parts = [(rows.square().sum(1), mask) for _, rows, mask in self._rows(network)]
        squares, doomed = (torch.cat(column) for column in zip(*parts, strict=True))
        ratio = (squares[doomed].mean() / squares[~doomed].mean()).sqrt()
        return {"penalty_strength": self.strength, "doomed_to_kept": ratio.item()}

    def student(self, network: nn.Module) -> Student:
        """The smaller student, with widths and criterion in its provenance."""
        kept = {group.name: (~mask).nonzero().flatten() for group, mask in self._masks()}
        summary = removal_summary(network, kept, self.config.criterion)
        return Student.of(remove_channels(network, kept), provenance={"removed_channels": summary})

    def _masks(self) -> Iterator[tuple[ChannelGroup, Tensor]]:
        """Every group that is cut, and which of its channels go (size,)."""
        return zip(self.groups, self.doomed.split([group.size for group in self.groups]), strict=True)

    def _rows(self, network: nn.Module) -> Iterator[tuple[nn.Parameter, Tensor, Tensor]]:
        """Every parameter that makes channels, the same as (channels, rest), and which of the channels go."""
        for group, mask in self._masks():
            for layer in (*(producer.layer for producer in group.producers), *group.norms):
                for parameter in network.get_submodule(layer).parameters(recurse=False):
                    yield parameter, parameter.reshape(group.size, -1), mask
