"""Magnitude pruning: the published schedule, zeros that stay zero to the bit, and refusals before the training."""

import copy
import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import ARCHITECTURES, build
from compress.options import checked
from compress.pruning.magnitude import KeepMasks, Magnitude, MagnitudeConfig, prune_student
from compress.pruning.masks import Masks
from compress.pruning.patterns import parse_pattern
from compress.recipe import ScheduleSpec
from compress.technique import Technique

ANCHOR = ("anchor", {"scale": 2, "channels": 8, "blocks": 2, "branches": True})
OPTIONS: dict[str, dict[str, Any]] = {
    "anchor": ANCHOR[1],
    "srresnet": {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 3, "tail_kernel": 3},
    "edsr": {"scale": 2, "channels": 8, "blocks": 1},
    "rlfn": {"scale": 2, "channels": 8, "blocks": 1, "attention_channels": 4},
    "bsrn": {"scale": 2, "channels": 8, "blocks": 1, "distilled_channels": 4, "attention_channels": 4},
    "swinir": {"scale": 2, "depths": (1, 1), "dim": 8, "heads": 2, "window": 4},
}
STEPS = 12
CONFIG = MagnitudeConfig(sparsity=0.6, scope="layer", start=3, end=9, every=2)


class _Loop:
    """The training loop's order of calls, on random patches."""

    def __init__(self, technique: Technique, network: nn.Module, decay: float = 0.9):
        torch.manual_seed(5)
        self.technique, self.network = technique, technique.prepare(network).train()
        self.optimizer = technique.optimizer(self.network, ScheduleSpec(steps=STEPS, learning_rate=1e-2))
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.step = 0

    def run(self, last: int = STEPS) -> Iterator[int]:
        while self.step < last:
            draw = torch.Generator().manual_seed(self.step)
            lr = torch.rand(2, 3, 16, 16, generator=draw)
            self.optimizer.zero_grad(set_to_none=True)
            F.l1_loss(self.network(lr), F.interpolate(lr, scale_factor=2)).backward()
            self.optimizer.step()
            self.step += 1
            self.technique.after_step(self.network, self.step)
            self.average.update_parameters(self.network)
            yield self.step

    def state(self) -> dict[str, Any]:
        parts = (self.network, self.optimizer, self.average, self.technique)
        return copy.deepcopy({type(part).__name__: part.state_dict() for part in parts})

    def restore(self, state: dict[str, Any], step: int) -> None:
        for part in (self.network, self.optimizer, self.average, self.technique):
            part.load_state_dict(state[type(part).__name__])
        self.step = step


def _fresh(name: str = "anchor") -> nn.Module:
    torch.manual_seed(1)
    return build(name, OPTIONS[name])


def _zeros(masks: Masks, network: nn.Module) -> bool:
    """Whether all masked weights are zero in every bit."""
    weights = {name: network.get_parameter(name).detach() for name in masks.layers}
    return not any(weights[name].view(torch.int32)[~mask].any() for name, mask in masks.layers.items())


def _copied(masks: Masks) -> dict[str, Tensor]:
    return {name: mask.clone() for name, mask in masks.layers.items()}


def test_the_schedule_is_zhu_and_guptas_cubic():
    technique = Magnitude(MagnitudeConfig(sparsity=0.8, start=100, end=500, every=50))
    technique.initial = 0.2
    t0, n, dt = 100, 8, 50
    for t in range(t0, t0 + n * dt + 1, dt):
        assert technique.share(t) == pytest.approx(0.8 + (0.2 - 0.8) * (1 - (t - t0) / (n * dt)) ** 3)
    shares = [technique.share(t) for t in range(600)]
    assert shares == sorted(shares)
    assert (shares[0], shares[100], shares[-1]) == pytest.approx((0.2, 0.2, 0.8))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_zeros_grow_by_the_schedule_and_are_zero_to_the_bit_after_every_step(name):
    technique = Magnitude(CONFIG)
    loop, before, pruned_at = _Loop(technique, _fresh(name)), None, []
    for step in loop.run():
        masks = technique.masks()
        assert _zeros(masks, loop.network)
        assert technique.figures(loop.network) == {"sparsity": masks.sparsity()}
        if before is not None:
            assert not any((mask & ~before[layer]).any() for layer, mask in masks.layers.items()), "one came back"
            if any((mask != before[layer]).any() for layer, mask in masks.layers.items()):
                pruned_at.append(step)
        before = _copied(masks)
        due = max((t for t in (3, 5, 7, 9) if t <= step), default=3)
        for layer, mask in masks.layers.items():
            assert (~mask).sum() == round(technique.share(due) * mask.numel()), (layer, step)
    assert pruned_at == [5, 7, 9]


@pytest.mark.parametrize(("pattern", "sparsity"), [("2:4", 0.5), ("1x4", 0.7), ("4x1", 0.7), ("unstructured", 0.9)])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_every_pattern_is_reached_step_by_step_and_kept(pattern, sparsity, scope, tmp_path):
    config = dataclasses.replace(CONFIG, pattern=pattern, sparsity=sparsity, scope=scope)
    loop = _Loop(Magnitude(config), _fresh("srresnet"))
    shares = []
    for _ in loop.run():
        shares.append(loop.technique.figures(loop.network)["sparsity"])
    assert shares == sorted(shares)
    assert len(set(shares)) == 4
    assert shares[-1] == pytest.approx(sparsity, abs=0.01)
    save_student(loop.technique.student(loop.average.module), tmp_path / "s.pt")  # which checks the pattern
    back = load_student(tmp_path / "s.pt")
    assert back.sparsity.pattern == parse_pattern(pattern).name
    assert back.sparsity.sparsity() == shares[-1]


def test_momentum_does_not_move_a_masked_weight():
    loop = _Loop(Magnitude(CONFIG), _fresh("srresnet"))
    list(loop.run())
    masks = loop.technique.masks()
    for name, mask in masks.layers.items():
        moments = loop.optimizer.state[loop.network.get_parameter(name)]["exp_avg"]
        assert moments[~mask].any(), "with no momentum the test would prove nothing"
    for parameter in loop.network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    loop.optimizer.step()
    assert not _zeros(masks, loop.network)
    loop.technique.after_step(loop.network, STEPS)
    assert _zeros(masks, loop.network)


def test_fine_tuning_goes_on_between_two_prunings():
    loop = _Loop(Magnitude(CONFIG), _fresh())
    list(loop.run(5))
    weight = loop.network.body[0].weight
    mask, before = loop.technique.masks().layers["body.0.weight"].clone(), weight.detach().clone()
    list(loop.run(6))
    assert torch.equal(loop.technique.masks().layers["body.0.weight"], mask)
    assert (weight != before)[mask].float().mean() > 0.9


def test_branches_are_merged_first_and_the_masks_lie_on_the_merged_weights():
    network = _fresh()
    assert network.config.branches
    loop = _Loop(Magnitude(CONFIG), network)
    assert isinstance(loop.network.body[0], nn.Conv2d)
    lr = torch.rand(1, 3, 9, 9)
    assert (loop.network(lr) - network.train()(lr)).abs().max() < 1e-5
    list(loop.run())
    student = loop.technique.student(loop.network)
    assert student.config["branches"] is False
    assert set(student.sparsity.layers) == {"body.0.weight", "body.1.weight"}
    assert _zeros(student.sparsity, student.network())


def test_the_kept_average_is_masked_too_and_is_left_alone():
    loop = _Loop(Magnitude(CONFIG), _fresh("srresnet"), decay=0.99)
    list(loop.run())
    average = loop.average.module
    before = copy.deepcopy(average.state_dict())
    assert not _zeros(loop.technique.masks(), average), "where masks grew, the average lags behind"
    student = loop.technique.student(average)
    assert _zeros(student.sparsity, student.network())
    for name, value in average.state_dict().items():
        assert torch.equal(value, before[name])
        mask = student.sparsity.layers.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(student.weights[name][mask], value[mask])


@pytest.mark.parametrize("pause", [2, 5, 6, 10])
def test_a_run_that_resumes_ends_with_the_same_weights_and_masks(pause):
    whole, first, second = (_Loop(Magnitude(CONFIG), _fresh("srresnet")) for _ in range(3))
    list(whole.run())
    list(first.run(pause))
    second.restore(first.state(), pause)
    list(second.run())
    for one, other in ((whole.network, second.network), (whole.average, second.average)):
        assert all(
            torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
        )
    for name, mask in whole.technique.masks().layers.items():
        assert torch.equal(mask, second.technique.masks().layers[name])


def _masked(pattern: str = "unstructured", sparsity: float = 0.5, skip: Any = "first_last") -> Student:
    config = MagnitudeConfig(pattern=pattern, sparsity=sparsity, skip=skip, scope="layer")
    return prune_student(Student.of(_fresh("srresnet")), config)[0]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "1x4"])
def test_a_student_that_is_pruned_further_keeps_its_zeros(pattern):
    student = _masked(pattern)
    given = _copied(student.sparsity)
    technique = Magnitude(dataclasses.replace(CONFIG, sparsity=0.8), student.sparsity)
    loop = _Loop(technique, student.network())
    assert technique.initial == pytest.approx(0.5)
    for step in loop.run():
        assert _zeros(Masks("unstructured", given), loop.network)
        assert technique.masks().sparsity() == pytest.approx(
            0.5 if step < 5 else technique.share(step - (step + 1) % 2), abs=0.01
        )
        if step == 9:
            break
    assert technique.masks().sparsity() == pytest.approx(0.8, abs=0.001)
    assert all(torch.equal(mask, student.sparsity.layers[name]) for name, mask in given.items())


def test_fine_tuning_a_masked_student_fills_no_zero_and_trains_the_rest():
    student = _masked("2:4")
    loop = _Loop(KeepMasks(student.sparsity), student.network())
    for _ in loop.run():
        assert _zeros(student.sparsity, loop.network)
    tuned = loop.technique.student(loop.average.module)
    assert tuned.sparsity.pattern == "2:4"
    for name, mask in tuned.sparsity.layers.items():
        assert torch.equal(mask, student.sparsity.layers[name])
        assert (tuned.weights[name] != student.weights[name])[mask].all()
    assert _zeros(tuned.sparsity, tuned.network())
    assert loop.technique.figures(loop.network) == {"sparsity": pytest.approx(0.5)}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"sparsity": 0.0}, "sparsity above 0 and up to 1, found 0.0"),
        ({"sparsity": 1.01}, "up to 1, found 1.01"),
        ({"pattern": "2:4", "sparsity": 0.6}, "a sparsity of 0.5, which 2:4 has, found 0.6"),
        ({"pattern": "4:2"}, "found '4:2'"),
        ({"start": 9, "end": 9}, "after its start at step 9, found 9"),
        ({"scope": "channel"}, "one of global, layer, found 'channel'"),
        ({"skip": "all"}, "one of first_last, first, none, found 'all'"),
        ({"sparsity": 1.0, "scope": "layer"}, r"scope layer\) removes all of body.0.weight: lower the sparsity\.$"),
        ({"sparsity": 0.9999, "scope": "layer"}, r"removes all of body.0.weight"),
        ({"sparsity": 1.0, "scope": "global"}, r"scope global\) removes all of body.0.weight: lower the sparsity\.$"),
        ({"pattern": "1x16"}, r"none \(head.weight \(first layer\), body.0.weight \(8 input channels"),
    ],
)
def test_what_cannot_work_is_refused_before_the_training_starts(options, says):
    with pytest.raises(BadInput, match=says):
        Magnitude(checked(MagnitudeConfig, options, "magnitude")).prepare(_fresh())


def test_a_global_threshold_above_a_whole_layer_is_refused_on_the_start_weights():
    network = _fresh("srresnet")
    with torch.no_grad():
        network.trunk.weight.mul_(1e-3)
    with pytest.raises(BadInput, match=r"removes all of trunk.weight: lower the sparsity or set scope to layer\.$"):
        Magnitude(dataclasses.replace(CONFIG, scope="global")).prepare(network)
    Magnitude(CONFIG).prepare(network)


def test_a_layer_that_fades_while_it_trains_is_refused_when_it_would_go():
    loop = _Loop(Magnitude(dataclasses.replace(CONFIG, scope="global")), _fresh("srresnet"))
    list(loop.run(4))
    with torch.no_grad():
        loop.network.trunk.weight.mul_(1e-3)
    with pytest.raises(BadInput, match=r"removes all of trunk.weight"):
        loop.technique.after_step(loop.network, 5)


def test_a_run_shorter_than_the_pruning_is_refused():
    technique = Magnitude(MagnitudeConfig(end=100))
    network = technique.prepare(_fresh())
    with pytest.raises(BadInput, match=r"within the 99 steps of the run, found it at 100"):
        technique.optimizer(network, ScheduleSpec(steps=99))
    technique.optimizer(network, ScheduleSpec(steps=100))


@pytest.mark.parametrize(
    ("given", "options", "says"),
    [
        ({"pattern": "2:4"}, {"pattern": "1x4"}, "pattern 2:4 that the student's masks have, or unstructured"),
        ({}, {"pattern": "2:4"}, "pattern unstructured that the student's masks have"),
        ({"sparsity": 0.7}, {"sparsity": 0.6}, "a sparsity of at least 0.6999"),
        ({"skip": "none"}, {"sparsity": 0.8}, r"one of head\.weight \(first layer\): set skip to none"),
    ],
)
def test_a_student_whose_masks_cannot_stay_is_refused(given, options, says):
    student = _masked(**given)
    with pytest.raises(BadInput, match=says):
        Magnitude(MagnitudeConfig(**options), student.sparsity).prepare(student.network())
