"""Iterative magnitude pruning, masks that later training keeps, and masks at one stroke:
`python -m compress.pruning.magnitude student.pt --pattern 2:4 --out pruned.pt`.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.errors import BadInput
from compress.pruning.masks import Masks, Scope, grow
from compress.pruning.patterns import Pattern, Prunable, Skip, parse_pattern, prunable
from compress.technique import Technique

if TYPE_CHECKING:
    from compress.recipe import ScheduleSpec


ROUNDING = 1e-3  # of a share of zeros to whole weights, layer by layer


@dataclass(frozen=True, kw_only=True)
class MagnitudeConfig:
    """What is removed, and when.

    Attributes:
        pattern: 'unstructured', N:M as in '2:4', or blocks RxC as in '1x4'.
        sparsity: final share of zeros among the weights of the pruned layers; of N:M it is 1 - N/M.
        scope: 'layer' takes the same share of each layer, 'global' compares magnitudes over all of them, which batch
            norm makes hard to compare: half at one stroke costs SRResNet-8 x4 1.8 dB by layer and 5.6 dB globally
            on Set5, the zoo's anchor network, which has none, 1.5 dB either way.
        start, end: steps of the first and the last pruning.
        every: steps of fine-tuning between two prunings.
        skip: 'first_last' leaves the first and the last convolution dense, 'first' the first one, 'none' prunes all.
            Zhu & Gupta keep that of MobileNet dense, for it reads the image and holds few weights, and it pays here:
            half of it removed at one stroke costs SRResNet-8 x4 1.65 dB on Set5, as much as half of all others
            together. Half of the last one costs 0.03 dB at most, so 'first' is worth a try where it holds many of
            the weights: a sixtieth in SRResNet-8, but a fifth in the zoo's anchor network.
    """

    pattern: str = "unstructured"
    sparsity: float = 0.5
    scope: Scope = "layer"
    start: int = 1
    end: int = 10_000
    every: int = 100
    skip: Skip = "first_last"


class MaskedTraining(Technique):
    """Training under masks: they are buffers, so a run resumes with them, and rule after every step.

    Gradients and Adam's moments of masked weights go on; what they do to the weights is undone before anyone reads it.
    """

    def __init__(self, pattern: Pattern):
        super().__init__()
        self.pattern = pattern
        self.names: list[str] = []

    def hold(self, masks: Masks) -> None:
        """Takes a copy of these masks from now on."""
        self.names = list(masks.layers)
        for name, mask in masks.layers.items():
            self.register_buffer(_buffer(name), mask.clone())

    def masks(self) -> Masks:
        """The masks as they are now."""
        return Masks(self.pattern.name, {name: self.get_buffer(_buffer(name)) for name in self.names})

    def after_step(self, network: nn.Module, step: int) -> None:
        self.masks().apply(network)

    def figures(self, network: nn.Module) -> dict[str, float]:
        """sparsity: share of zeros among the weights of the masked layers."""
        return {"sparsity": self.masks().sparsity()}

    def student(self, network: nn.Module) -> Student:
        """The student with its masks, which also hold for a moving average: where they grew, its zeros lag behind."""
        layers = {name: mask.cpu().clone() for name, mask in self.masks().layers.items()}
        student = Student.of(network, sparsity=Masks(self.pattern.name, layers))
        for name, mask in layers.items():
            student.weights[name].masked_fill_(~mask, 0)  # a copy: the network that trains on is left alone
        return student


class KeepMasks(MaskedTraining):
    """Fine-tunes a student that has masks, without filling a zero."""

    def __init__(self, masks: Masks):
        super().__init__(parse_pattern(masks.pattern))
        self.hold(masks)

    def prepare(self, network: nn.Module) -> nn.Module:
        network = network.merged()
        self.masks().apply(network)
        return network


class Magnitude(MaskedTraining):
    """Removes the weights of least magnitude, more and more, with fine-tuning in between; none comes back.

    Zhu & Gupta, "To prune, or not to prune: exploring the efficacy of pruning for model compression" (2017): at
    the steps t = t0, t0 + dt, ... t0 + n dt the share of zeros is s_t = s_f + (s_i - s_f) (1 - (t - t0) / (n dt))^3.
    Here t0 is `start`, t0 + n dt is `end` (a pruning in any case), s_f is `sparsity`, and s_i what the student brings.

    Args:
        config: see there.
        masks: of the student that the run starts from; they stay.

    Raises:
        BadInput: numbers out of range, a share that the pattern cannot have, or another pattern than the student's.
    """

    def __init__(self, config: MagnitudeConfig, masks: Masks | None = None):
        super().__init__(parse_pattern(config.pattern))
        self.config, self.given = config, masks
        self.layers: Prunable | None = None
        self.initial = 0.0
        _check(config, self.pattern, masks)

    def prepare(self, network: nn.Module) -> nn.Module:
        """The merged network, on whose plain convolutions the masks lie.

        Raises:
            BadInput: no layer that can be pruned, or masks at the final sparsity that would remove a whole layer.
        """
        network = network.merged()
        self.layers = prunable(network, self.pattern, self.config.skip)
        weights, given = self.layers.weights, self.given.layers if self.given else {}
        if outside := given.keys() - weights.keys():
            raise BadInput(
                f"expected a student with masks only where {self.pattern.name} prunes, found one of {min(outside)} "
                f"({self.layers.dense.get(min(outside), 'no convolution')}): set skip to none."
            )
        start = {name: given.get(name, torch.ones_like(weight, dtype=torch.bool)) for name, weight in weights.items()}
        self.hold(Masks(self.pattern.name, start))
        self.initial = self.masks().sparsity()
        if self.initial > self.config.sparsity + ROUNDING:
            raise BadInput(
                f"expected a sparsity of at least {self.initial:.4f}, which the student has, found "
                f"{self.config.sparsity}: zeros stay zero, so use a larger number."
            )
        self.grown(network, self.config.sparsity)
        self.masks().apply(network)
        return network

    def optimizer(self, network: nn.Module, schedule: "ScheduleSpec") -> torch.optim.Optimizer:
        """Adam. Raises BadInput for a run that ends before the last pruning."""
        if self.config.end > schedule.steps:
            raise BadInput(
                f"expected the last pruning within the {schedule.steps} steps of the run, found it at {self.config.end}: "
                "lower the technique's end, or raise schedule.steps."
            )
        return super().optimizer(network, schedule)

    def share(self, step: int) -> float:
        """s_t, the share of zeros that a pruning at this step leaves."""
        c = self.config
        left = 1 - min(1.0, max(0.0, (step - c.start) / (c.end - c.start)))
        return c.sparsity + (self.initial - c.sparsity) * left**3

    def after_step(self, network: nn.Module, step: int) -> None:
        """Prunes where the schedule says so; then zeroes what is masked.

        Raises:
            BadInput: the magnitudes have become such that a whole layer would go.
        """
        c = self.config
        if c.start <= step <= c.end and ((step - c.start) % c.every == 0 or step == c.end):
            self.hold(self.grown(network, self.share(step)))
        super().after_step(network, step)

    def grown(self, network: nn.Module, share: float) -> Masks:
        """The masks grown to that share of zeros; see `grow`."""
        assert self.layers is not None
        return grow(self.masks(), network, share, self.config.scope, self.layers.orders)


def _buffer(name: str) -> str:
    return name.replace(".", "/")  # names of buffers have no dots


def _check(config: MagnitudeConfig, pattern: Pattern, masks: Masks | None) -> None:
    if not 0 < config.sparsity <= 1:
        raise BadInput(f"expected a sparsity above 0 and up to 1, found {config.sparsity}: correct the value.")
    if pattern.kept and abs(config.sparsity - pattern.most) > 1e-6:
        raise BadInput(
            f"expected a sparsity of {pattern.most:g}, which {pattern.name} has, found {config.sparsity}: use that."
        )
    if config.end <= config.start:
        raise BadInput(
            f"expected the end of the pruning after its start at step {config.start}, found {config.end}: correct one."
        )
    if masks and pattern.name not in ("unstructured", masks.pattern):
        raise BadInput(
            f"expected the pattern {masks.pattern} that the student's masks have, or unstructured, found {pattern.name}: "
            "use one of these, or start from the student before it was masked."
        )


def prune_student(student: Student, config: MagnitudeConfig) -> tuple[Student, dict[str, str]]:
    """A float student with masks, pruned at one stroke without training; and what stayed dense, with the reason.

    Raises:
        BadInput: an int8 student, or whatever `Magnitude` refuses.
    """
    if student.quantization:
        raise BadInput("expected a float student to prune, found one that is int8 already: give the float student.pt.")
    technique = Magnitude(dataclasses.replace(config, start=1, end=2), student.sparsity)
    network = technique.prepare(student.network())
    technique.after_step(network, 2)
    pruned = technique.student(network)
    assert technique.layers is not None
    said = {"pattern": technique.pattern.name, "sparsity": config.sparsity, "scope": config.scope}
    provenance = {**student.provenance, "pruning": {**said, "student_sha256": student.file_hash}}
    return dataclasses.replace(pruned, provenance=provenance), technique.layers.dense


def main(
    student: Path,
    *,
    out: Path,
    pattern: str = "unstructured",
    sparsity: float = 0.5,
    scope: Scope = "layer",
    skip: Skip = "first_last",
) -> None:
    """Removes the weights of least magnitude at one stroke, without training.

    Args:
        student: a float student.pt.
        out: the pruned student.pt to write.
        pattern: unstructured, N:M such as 2:4, or blocks RxC such as 1x4.
        sparsity: share of zeros among the weights of the pruned layers; of N:M it is 1 - N/M.
        scope: 'layer' takes the same share of each layer, 'global' compares magnitudes over all of them.
        skip: 'first_last' leaves the first and the last convolution dense, 'first' the first one, 'none' neither.
    """
    config = MagnitudeConfig(pattern=pattern, sparsity=sparsity, scope=scope, skip=skip)
    pruned, dense = prune_student(load_student(student), config)
    masks = pruned.sparsity
    assert masks is not None
    save_student(pruned, out)
    print(f"wrote {out}: {masks.pattern}, {masks.sparsity():.2%} of the weights of {len(masks.layers)} layers are zero")
    for name, reason in dense.items():
        print(f"left dense: {name} ({reason})")


if __name__ == "__main__":
    command_line(main)
