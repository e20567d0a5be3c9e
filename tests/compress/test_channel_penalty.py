"""The growing penalty: its strength and gradients, the fading, a run that resumes, and a removal that costs nothing."""

import copy
import os
import signal

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import default_collate

from compress.data.cache import collect
from compress.data.patches import Patches, StepSampler, patch_loader, to_batch
from compress.errors import BadInput
from compress.models import build
from compress.options import checked
from compress.pruning.channel_penalty import ChannelPenalty, ChannelPenaltyConfig
from compress.pruning.channel_removal import groups_of, remove_channels
from compress.pruning.channels import Widths, select_channels
from compress.recipe import DataSpec, ModelSpec, Recipe, ScheduleSpec, TechniqueSpec, ValidationSpec
from compress.technique import Technique
from compress.train import train


def _srresnet(**options) -> nn.Module:
    torch.manual_seed(0)
    return build("srresnet", {"channels": 12, "blocks": 1, "head_kernel": 3, "tail_kernel": 3, "scale": 2, **options})


def _penalty(**options) -> ChannelPenalty:
    return ChannelPenalty(checked(ChannelPenaltyConfig, options, "channels"))


def test_the_penalty_grows_with_the_step_alone_up_to_its_ceiling_as_published():
    published = ChannelPenaltyConfig(channels=8)
    assert [published.strength(step) for step in (1, 19, 20, 39, 40)] == pytest.approx([0, 0, 1e-4, 1e-4, 2e-4])
    assert published.steps_to_ceiling == 100_000
    assert published.strength(99_999) < published.strength(100_000) == published.strength(10**6) == 0.5
    uneven = ChannelPenaltyConfig(channels=8, growth=0.3, every=7, ceiling=1.0)
    assert uneven.steps_to_ceiling == 28
    assert uneven.strength(27) < uneven.strength(28) == 1.0


def test_the_penalty_is_half_alpha_times_the_squares_of_the_doomed_channels_and_reaches_nothing_else():
    network = _srresnet()
    technique = _penalty(channels=8, stage_channels=8, growth=0.1, every=1)
    network = technique.prepare(network)
    kept = select_channels(network, Widths(channels=8, stage_channels=8))
    doomed = {name: sorted(set(range(12)) - set(indices.tolist())) for name, indices in kept.items()}
    (loss,) = technique.penalty(network, step=3).values()
    loss.backward()
    total = 0.0
    expected: dict[str, Tensor] = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for layer in ("head", "blocks.0.conv2", "trunk", "blocks.0.norm2", "trunk_end"):
        for kind in ("weight", "bias"):
            parameter = network.get_parameter(f"{layer}.{kind}").detach()
            for channel in doomed["head"]:
                total += parameter[channel].square().sum().item()
                expected[f"{layer}.{kind}"][channel] = 0.3 * parameter[channel]
    for channel in doomed["stages.0.conv"]:
        for kind in ("weight", "bias"):
            rows = slice(channel * 4, channel * 4 + 4)
            parameter = network.get_parameter(f"stages.0.conv.{kind}").detach()
            total += parameter[rows].square().sum().item()
            expected[f"stages.0.conv.{kind}"][rows] = 0.3 * parameter[rows]
    assert len(doomed["head"]) == len(doomed["stages.0.conv"]) == 4
    assert loss.item() == pytest.approx(0.5 * 0.3 * total, rel=1e-5)
    for name, parameter in network.named_parameters():
        gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert torch.allclose(gradient, expected[name], atol=1e-7), name


def test_before_the_first_growth_the_penalty_is_zero():
    technique = _penalty(channels=8)
    network = technique.prepare(build("anchor", {"channels": 16, "blocks": 1}))
    assert technique.penalty(network, step=19)["channels"].item() == 0
    assert technique.penalty(network, step=20)["channels"].item() > 0


def test_the_chosen_channels_are_saved_with_the_run_and_not_chosen_anew_when_it_resumes():
    torch.manual_seed(0)
    first = _penalty(channels=8)
    network = first.prepare(build("anchor", {"channels": 16, "blocks": 2, "branches": True}))
    assert not network.config.branches
    kept = first.student(network).weights["head.weight"]
    saved = {key: value.clone() for key, value in first.state_dict().items()}
    torch.manual_seed(1)  # a run that goes on begins with some other network
    resumed = _penalty(channels=8)
    resumed.prepare(build("anchor", {"channels": 16, "blocks": 2}))
    assert not torch.equal(resumed.doomed, first.doomed)
    resumed.load_state_dict(saved)
    assert torch.equal(resumed.student(network).weights["head.weight"], kept)
    assert resumed.penalty(network, 45)["channels"].item() == first.penalty(network, 45)["channels"].item() > 0


def test_the_channels_that_go_fade_with_every_growth_and_are_exactly_zero_from_the_ceiling_on():
    technique = _penalty(channels=8, growth=0.1, every=5)
    network = technique.prepare(_srresnet())
    (stream, *_), doomed = groups_of(network), technique.doomed
    kinds = ("weight", "bias")
    names = [f"{layer}.{kind}" for layer in (*(p.layer for p in stream.producers), *stream.norms) for kind in kinds]
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}

    def left(step: int) -> None:
        for name, parameter in network.named_parameters():
            expected = before[name].clone()
            if name in names:
                expected[doomed] *= {4: 1.0, 5: 0.8, 9: 0.8, 10: 0.6, 24: 0.2, 25: 0.0}.get(step, 0.0)
            assert torch.allclose(parameter, expected, rtol=1e-4), (name, step)

    for step in range(1, 26):
        technique.after_step(network, step)
        if step in (4, 5, 9, 10, 24, 25):
            left(step)
    with torch.no_grad():
        network.head.weight.copy_(before["head.weight"])  # as an optimizer with momentum might
    technique.after_step(network, 26)
    left(26)
    assert technique.figures(network)["doomed_to_kept"] == 0


@pytest.mark.parametrize(
    ("architecture", "options", "widths"),
    [
        ("anchor", {"channels": 16, "blocks": 1, "branches": True}, {"channels": 8}),
        ("srresnet", {"channels": 16, "blocks": 1, "head_kernel": 3, "tail_kernel": 3}, {"channels": 8, "block_channels": 8}),
    ],
)  # fmt: skip
def test_in_real_training_the_removal_costs_nothing_and_beats_a_cut_without(architecture, options, widths, photographs):
    collection = collect(sorted(photographs.iterdir()), 2, 16)
    patches = Patches(collection, 16, seed=0)
    held_out = to_batch(default_collate([patches[10**6 + i] for i in range(24)]))

    def psnr(network: nn.Module) -> float:
        network = copy.deepcopy(network).eval()
        with torch.no_grad():
            return -10 * functional.mse_loss(network(held_out["lr"]), held_out["hr"]).log10().item()

    def trained(network: nn.Module, technique: Technique, steps: int) -> nn.Module:
        schedule = ScheduleSpec(steps=steps, learning_rate=2e-3, ema=0.0)
        network = technique.prepare(network).train()
        optimizer = technique.optimizer(network, schedule)
        for step, drawn in enumerate(patch_loader(patches, StepSampler(0, steps, 4), workers=0), 1):
            batch = to_batch(drawn)
            optimizer.zero_grad()
            loss = functional.l1_loss(network(batch["lr"]), batch["hr"])
            (loss + sum(technique.penalty(network, step).values())).backward()
            optimizer.step()
            technique.after_step(network, step)
        return network

    torch.manual_seed(0)
    network = trained(build(architecture, {**options, "scale": 2}), Technique(), 150)
    cut = psnr(remove_channels(network, select_channels(network, Widths(**widths))))
    technique = _penalty(**widths, growth=0.02, every=4)
    emptied = trained(network, technique, 150)
    student = technique.student(emptied)
    assert technique.figures(emptied) == {"penalty_strength": 0.5, "doomed_to_kept": 0.0}
    assert psnr(student.network()) == pytest.approx(psnr(emptied), abs=1e-3)
    assert psnr(student.network()) > cut + 0.5
    assert {option: student.config[option] for option in widths} == widths
    assert student.provenance["removed_channels"]["widths"] == {option: [16, 8] for option in widths}


def test_a_stopped_run_of_the_recipe_goes_on_to_the_same_smaller_student(photographs, tmp_path, monkeypatch):
    def recipe(name: str) -> Recipe:
        return Recipe(
            model=ModelSpec(architecture="anchor", options={"scale": 2, "channels": 16, "blocks": 1, "branches": True}),
            technique=TechniqueSpec(name="channels", options={"channels": 8, "growth": 0.1, "every": 3}),
            data=DataSpec(folder=str(photographs), lr_patch=16, batch=2, workers=0),
            schedule=ScheduleSpec(steps=24, ema=0.5),
            validation=ValidationSpec(sets=[]),
            precision="float32",
            out=tmp_path / name,
        )

    whole = train(recipe("whole"))
    untouched = ChannelPenalty.after_step

    def stopped_at_8(self: ChannelPenalty, network: nn.Module, step: int) -> None:
        untouched(self, network, step)
        if step == 8:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(ChannelPenalty, "after_step", stopped_at_8)
    with pytest.raises(KeyboardInterrupt):
        train(recipe("stopped"))
    monkeypatch.setattr(ChannelPenalty, "after_step", untouched)
    resumed = train(recipe("stopped"))
    assert resumed.config == whole.config
    assert resumed.config["channels"] == 8
    assert all(torch.equal(resumed.weights[key], value) for key, value in whole.weights.items())


def test_a_run_too_short_for_the_penalty_is_refused_with_the_number_of_steps_it_needs():
    technique = _penalty(channels=8, growth=0.01, every=3)
    network = technique.prepare(build("anchor", {"channels": 16, "blocks": 1}))
    assert technique.optimizer(network, ScheduleSpec(steps=150, ema=0.0)).param_groups
    with pytest.raises(BadInput, match=r"expected at least 150 steps, .* found 149"):
        technique.optimizer(network, ScheduleSpec(steps=149, ema=0.0))
    assert technique.optimizer(network, ScheduleSpec(steps=449, ema=0.99)).param_groups  # 0.99 ** 299 < 0.05
    with pytest.raises(BadInput, match=r"expected at least 449 steps, .* moving average of 0.99 .* found 448"):
        technique.optimizer(network, ScheduleSpec(steps=448, ema=0.99))


@pytest.mark.parametrize(
    "options", [{"growth": 0.0}, {"ceiling": -1.0}, {"every": 0}, {"multiple": 0}, {"channels": -8}]
)
def test_a_penalty_that_cannot_grow_is_refused(options):
    with pytest.raises(BadInput, match=r"^expected"):
        _penalty(**{"channels": 8, **options})
