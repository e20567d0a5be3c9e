"""Quantization-aware training: the weights, and the scales, learn to live with int8."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from compress.checkpoint import Student
from compress.errors import BadInput
from compress.pruning.masks import Masks
from compress.quantization.calibration import CROPS, calibration_crops
from compress.quantization.observers import RangeRule
from compress.quantization.scales import activation_scales
from compress.quantization.trainable import FakeQuantized
from compress.technique import Technique

if TYPE_CHECKING:
    from compress.recipe import ScheduleSpec


@dataclass(frozen=True, kw_only=True)
class QatConfig:
    """What is learned, and where it starts.

    Both learners start from the ranges of post-training quantization, in place of the running maximum of PAMS and the
    mean of LSQ, and learn the scales of activations by the same gradient; see `compress.quantization.fake`.

    Attributes:
        learner: 'lsq' learns the scales of weights too, one per output channel; with 'pams' these follow the largest
            weight of the channel.
        calibration: folder of photographs, or 'skimage', for the ranges to start from.
        crops: LR crops of it to observe.
        rule: how the ranges are chosen from what was observed.
        scale_rate: learning rate of the scales over that of the weights. A step of Adam changes a scale by about its
            learning rate as a share of itself.
        freeze_after: share of the steps after which the scales stay as they are; 1 for never.
    """

    learner: Literal["lsq", "pams"] = "lsq"
    calibration: str = "skimage"
    crops: int = CROPS
    rule: RangeRule = "mse"
    scale_rate: float = 1.0
    freeze_after: float = 1.0


class QuantizationAware(Technique):
    """Trains what ships: branches merged and batch norm folded first, then every value and weight rounded as in int8.

    Args:
        masks: zeros that the student brings and keeps.

    Raises:
        BadInput: a share of the steps outside 0 to 1, or a negative learning rate.
    """

    def __init__(self, config: QatConfig, masks: Masks | None = None):
        super().__init__()
        if not 0 <= config.freeze_after <= 1:
            raise BadInput(
                f"expected qat's freeze_after between 0 and 1, found {config.freeze_after}: correct the recipe."
            )
        if config.scale_rate < 0:
            raise BadInput(f"expected qat's scale_rate to be 0 or more, found {config.scale_rate}: correct the recipe.")
        self.config, self.masks = config, masks
        self.calibration: dict[str, Any] = {}
        self.last_free_step = 0

    def prepare(self, network: nn.Module) -> nn.Module:
        """See the base class.

        Raises:
            BadInput: an architecture that does not fit the deploy graph, or photographs that cannot be used.
        """
        config, student = self.config, Student.of(network)
        student.deploy()  # refuses what cannot ship
        plain = student.network().folded()
        if self.masks:
            self.masks.apply(plain)
        crops = calibration_crops(config.calibration, student.scale, count=config.crops)
        self.calibration = {"method": "qat", "learner": config.learner, "range": config.rule, **crops.describe()}
        scales = activation_scales(plain.deploy(), crops.crops, config.rule)
        return FakeQuantized(plain.train(), scales, learn_weight_scales=config.learner == "lsq")

    def optimizer(self, network: nn.Module, schedule: "ScheduleSpec") -> torch.optim.Optimizer:
        """Adam with the scales in a group of their own, whose "lr_factor" the loop heeds."""
        self.last_free_step = round(self.config.freeze_after * schedule.steps)
        trainable = cast(FakeQuantized, network)
        weights = [parameter for parameter in trainable.network.parameters() if parameter.requires_grad]
        scales = [learned.growth for learned in trainable.learned_scales()]
        rate = self.config.scale_rate
        return torch.optim.Adam(
            [
                {"params": weights, "lr_factor": 1.0},
                {"params": scales, "lr_factor": rate, "lr": rate * schedule.learning_rate, "eps": 1e-12},
            ],
            lr=schedule.learning_rate,
            betas=schedule.betas,
        )

    def after_step(self, network: nn.Module, step: int) -> None:
        trainable = cast(FakeQuantized, network)
        if self.masks:
            self.masks.apply(trainable.network)
        for learned in trainable.learned_scales():
            learned.settle(frozen=step > self.last_free_step)

    def figures(self, network: nn.Module) -> dict[str, float]:
        """How far the scales of the activations have gone: the mean change as a share."""
        learned = cast(FakeQuantized, network).activations.values()
        return {"scale_change": torch.stack([one.growth.detach().exp().sub(1).abs() for one in learned]).mean().item()}

    def student(self, network: nn.Module) -> Student:
        """The int8 student; its float weights are those that the integers are rounded from."""
        trainable = cast(FakeQuantized, network)
        quantization = trainable.quantization(self.calibration)
        return Student.of(trainable.network, quantization=quantization, sparsity=self.masks)
