"""Training methods: the terms are what the formulas say, gradients go where they should, and misuse is named."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.errors import BadInput
from compress.losses import MultiLap, VggLoss, feature_affinity, mse
from compress.methods import METHODS, make_method
from compress.methods.dukd import identity, inverted, random_crop, reduced, turned
from compress.models import build
from compress.models.discriminator import Discriminator, DiscriminatorConfig

SCALE, SIDE = 2, 32
JUDGE = DiscriminatorConfig(width=4, dense=8, patch=SIDE)


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """VGG19's first convolution, in torchvision's layout, with random weights."""
    draw = torch.Generator().manual_seed(3)
    weights = {"features.0.weight": torch.randn(64, 3, 3, 3, generator=draw), "features.0.bias": torch.zeros(64)}
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(weights, path)
    return path


@pytest.fixture
def options(vgg_file) -> dict[str, dict[str, object]]:
    """Options of every method under which all of its terms act and no download is needed."""
    content = {"content_layer": "conv1_1", "content_weights": str(vgg_file)}
    return {
        **{name: {} for name in METHODS},
        "adversarial": {"truth": 0.5, "teacher": 0.25, **content},
        "perceptual": {"lpips": 0.0, "teacher": 0.5, **content},
    }


def _network(seed: int, channels: int = 8) -> nn.Module:
    torch.manual_seed(seed)
    return build("srresnet", {"scale": SCALE, "channels": channels, "blocks": 3, "head_kernel": 3, "tail_kernel": 3})


def _judge(seed: int = 2) -> Discriminator:
    torch.manual_seed(seed)
    return Discriminator(JUDGE)


def _batch(seed: int = 0, count: int = 2) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    hr = torch.rand(count, 3, SIDE, SIDE, generator=draw)
    return {"lr": nn.functional.avg_pool2d(hr, SCALE), "hr": hr}


def _make(name: str, options: dict[str, object], teacher: nn.Module, student: nn.Module, judge: nn.Module):
    known = METHODS[name]
    method = make_method(
        name, options, teacher if known.teacher != "never" else None, judge if known.discriminator else None
    )
    method.train()
    method.attach(student)
    return method


@pytest.mark.parametrize("name", METHODS)
def test_gradients_of_every_term_reach_the_whole_student_and_nothing_else(name, options):
    student, teacher, judge = _network(0).train(), _network(1).eval(), _judge()
    method = _make(name, options[name], teacher, student, judge)
    judge.requires_grad_(False)  # as the loop does
    losses = method(student, _batch())
    for term, loss in losses.items():
        assert loss.ndim == 0
        assert loss.item() > 0, term
        gradients = torch.autograd.grad(loss, list(student.parameters()), retain_graph=True, allow_unused=True)
        reached = [gradient is not None and gradient.abs().max() > 0 for gradient in gradients]
        assert sum(reached) >= len(reached) // 2, term  # affinity stops at the body, all others reach every layer
        assert all(reached) or term == "affinity", term
    sum(losses.values()).backward()
    assert all(parameter.grad is None for network in (teacher, judge) for parameter in network.parameters())
    assert not teacher.training


@pytest.mark.parametrize("name", METHODS)
def test_frozen_networks_are_no_part_of_what_is_saved_or_trained(name, options):
    teacher, judge = _network(1).eval(), _judge()
    method = _make(name, options[name], teacher, _network(0), judge)
    trained = {id(p) for p in method.parameters()}
    assert trained == ({id(p) for p in judge.parameters()} if METHODS[name].discriminator else set())
    names = set(method.state_dict())
    assert all(key.startswith("discriminator.") or key == "draws" for key in names)
    method.load_state_dict(method.state_dict())


@pytest.mark.parametrize("name", [name for name, known in METHODS.items() if known.labels])
def test_a_cached_label_takes_the_teachers_place(name, options):
    student, teacher, batch = _network(0).train(), _network(1).eval(), _batch()
    method = _make(name, options[name], teacher, student, _judge())
    with torch.no_grad():
        label = teacher(batch["lr"])
    live, cached = method(student, batch), method(student, {**batch, "label": label})
    assert {key: value.item() for key, value in live.items()} == {key: value.item() for key, value in cached.items()}
    other = method(student, {**batch, "label": 1 - label})
    assert other["teacher"].item() != live["teacher"].item()


def test_multilap_distillation_is_multilap_to_the_teacher_plus_a_tenth_of_l1_to_truth():
    student, teacher, batch = _network(0).eval(), _network(1).eval(), _batch()
    losses = make_method("multilap", {}, teacher)(student, batch)
    with torch.no_grad():
        sr = student(batch["lr"])
        assert losses["teacher"].item() == pytest.approx(MultiLap()(sr, teacher(batch["lr"])).item(), rel=1e-6)
        assert losses["truth"].item() == pytest.approx(0.1 * (sr - batch["hr"]).abs().mean().item(), rel=1e-6)


def test_multilap_refuses_patches_that_its_pyramid_cannot_halve():
    method = make_method("multilap", {}, _network(1))
    method.check_patch(96)
    with pytest.raises(BadInput, match=r"multiples of 16 .* found 72"):
        method.check_patch(72)


def test_fakd_compares_affinities_after_each_third_of_both_bodies():
    student, teacher, batch = _network(0).train(), _network(1, channels=16).eval(), _batch()
    method = _make("fakd", {}, teacher, student, _judge())
    for _ in range(2):  # features of an earlier batch must not linger
        losses = method(student, batch)
    seen: dict[str, list[Tensor]] = {"student": [], "teacher": []}
    for who, network in (("student", student), ("teacher", teacher)):
        for tap in network.taps():
            network.get_submodule(tap).register_forward_hook(lambda *found, who=who: seen[who].append(found[2]))
    student(batch["lr"])
    teacher(batch["lr"])
    wanted = sum(feature_affinity(mine, theirs).item() for mine, theirs in zip(*seen.values(), strict=True))
    assert len(seen["student"]) == 3
    assert losses["affinity"].item() == pytest.approx(10 * wanted, rel=1e-5)


def test_fakd_refuses_a_teacher_without_features():
    with pytest.raises(BadInput, match="expected a teacher whose features can be compared, found Upsample"):
        make_method("fakd", {}, nn.Upsample(scale_factor=2))


def test_dukd_asks_the_teacher_about_zooms_of_the_images_and_draws_anew_each_time():
    student, teacher, batch = _network(0).train(), _network(1).eval(), _batch()
    method = make_method("dukd", {}, teacher)
    asked: list[Tensor] = []
    teacher.register_forward_hook(lambda *call: asked.append(call[1][0]))
    losses = [method(student, batch) for _ in range(6)]
    assert set(losses[0]) == {"truth", "zoom_in", "zoom_out"}
    assert [tuple(x.shape[-2:]) for x in asked[:2]] == [(16, 16), (8, 8)]
    crops = asked[0::2]
    windows = batch["hr"].unfold(2, 16, 1).unfold(3, 16, 1)
    for crop in crops:
        assert (windows == crop[:, :, None, None]).all(dim=(1, 4, 5)).any(dim=(1, 2)).all()
    assert any(not torch.equal(crops[0], crop) for crop in crops[1:])
    assert all(torch.equal(x, reduced(batch["lr"], 2)) for x in asked[1::2])


def test_dukd_without_zooming_out_asks_once():
    losses = make_method("dukd", {"zoom_out": 1}, _network(1).eval())(_network(0), _batch())
    assert set(losses) == {"truth", "zoom_in"}


def test_a_resumed_dukd_draws_what_it_would_have_drawn():
    student, teacher, batch = _network(0).eval(), _network(1).eval(), _batch()
    method = make_method("dukd", {}, teacher)
    for _ in range(3):
        method(student, batch)
    resumed = make_method("dukd", {}, teacher)
    resumed.load_state_dict(method.state_dict())
    assert [v.item() for v in resumed(student, batch).values()] == [v.item() for v in method(student, batch).values()]


@pytest.mark.parametrize("augment", [identity, inverted, turned])
def test_dukds_augmentations_commute_with_an_upscaler_that_treats_channels_alike(augment):
    x = _batch()["lr"]
    up = nn.Upsample(scale_factor=2, mode="bicubic")
    assert (up(augment(x)) - augment(up(x))).abs().max() < 1e-6


def test_a_random_crop_reaches_every_corner():
    import numpy as np

    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    corners = {int(random_crop(image, 3, np.random.default_rng(i))[0, 0, 0, 0]) for i in range(50)}
    assert corners == {0, 1, 4, 5}


def test_the_adversarial_term_is_the_non_saturating_loss_of_the_discriminators_logits():
    student, judge, batch = _network(0).eval(), _judge().eval(), _batch()
    method = make_method("adversarial", {"content": 0.0, "adversarial": 0.5}, None, judge)
    losses = method(student, batch)
    with torch.no_grad():
        logits = judge(student(batch["lr"]))
    assert losses["adversarial"].item() == pytest.approx(0.5 * -torch.sigmoid(logits).log().mean().item(), rel=1e-5)
    assert set(losses) == {"adversarial"}


def test_the_relativistic_form_compares_made_images_with_real_ones():
    student, batch = _network(0).eval(), _batch()
    made = {}
    for kind in ("standard", "relativistic"):
        method = make_method("adversarial", {"content": 0.0, "kind": kind}, None, _judge().eval())
        made[kind] = [
            method(student, {**batch, "hr": hr})["adversarial"].item() for hr in (batch["hr"], batch["hr"] / 2)
        ]
    assert made["standard"][0] == made["standard"][1]
    assert made["relativistic"][0] != made["relativistic"][1]


def test_the_discriminator_learns_to_tell_and_the_student_gets_no_gradient_from_that():
    student, judge, batch = _network(0).train(), _judge(), _batch(count=8)
    method = make_method("adversarial", {"content": 0.0}, None, judge).train()
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-3)
    history = []
    for _ in range(12):
        with torch.no_grad():
            method(student, batch)
        losses = method.discriminator_losses(judge, batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
        history.append(losses["judgement"].item())
    assert history[0] == pytest.approx(2 * math.log(2), rel=0.5)
    assert history[-1] < 0.5 * history[0]
    assert all(parameter.grad is None for parameter in student.parameters())
    assert all(parameter.grad is not None for parameter in judge.parameters())


def test_a_distilled_discriminator_nears_its_teachers_logits():
    student, judge, taught, batch = _network(0).train(), _judge(5), _judge(6).eval(), _batch(count=8)
    method = make_method("adversarial", {"content": 0.0, "discriminator": 1.0}, None, judge, taught).train()
    with torch.no_grad():
        method(student, batch)
        wanted = [taught(x) for x in (batch["hr"], method.made)]
    losses = method.discriminator_losses(judge, batch)
    found = sum(mse(judge(x), y) for x, y in zip((batch["hr"], method.made), wanted, strict=True))
    assert losses["distillation"].item() == pytest.approx(found.item(), rel=1e-4)
    losses["distillation"].backward()
    assert all(p.grad is None for p in taught.parameters())
    assert sum(p.grad is not None and p.grad.abs().max() > 0 for p in judge.parameters()) > 10


def test_the_content_term_is_the_vgg_distance_to_truth(vgg_file, options):
    student, batch = _network(0).eval(), _batch()
    method = make_method("adversarial", {**options["adversarial"], "teacher": 0.0, "content": 0.1}, None, _judge())
    with torch.no_grad():
        wanted = VggLoss("conv1_1", weights=vgg_file)(student(batch["lr"]), batch["hr"])
    assert method(student, batch)["content"].item() == pytest.approx(0.1 * wanted.item(), rel=1e-5)


@pytest.mark.parametrize("against", ["truth", "teacher"])
def test_the_perceptual_method_adds_lpips_to_truth_or_teacher(shared_data, monkeypatch, options, against):
    monkeypatch.setenv("TORCH_HOME", str(shared_data / "torch_home"))
    student, teacher, batch = _network(0).eval(), _network(1).eval(), _batch(count=1)
    chosen = {
        **options["perceptual"],
        "teacher": 0.0,
        "lpips": 0.2,
        "lpips_against": against,
        "lpips_backbone": "squeeze",
    }
    method = make_method("perceptual", chosen, teacher if against == "teacher" else None, _judge())
    losses = method(student, batch)
    assert set(losses) == {"adversarial", "truth", "content", "lpips"}
    moved = {**batch, "hr": batch["hr"].flip(3)}
    assert (method(student, moved)["lpips"].item() == losses["lpips"].item()) == (against == "teacher")
    gradients = torch.autograd.grad(losses["lpips"], list(student.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients)


@pytest.mark.parametrize(
    ("name", "chosen", "teacher", "judge", "says"),
    [
        ("adversarial", {"content": 0.0}, False, False, "expected a discriminator for the method 'adversarial'"),
        ("perceptual", {"content": 0.0}, False, False, "expected a discriminator for the method 'perceptual'"),
        ("supervised", {}, False, True, "expected no discriminator for the method 'supervised'"),
        ("fakd", {}, False, False, "expected a teacher for the method 'fakd'"),
        ("supervised", {}, True, False, "expected no teacher for the method 'supervised'"),
        ("adversarial", {"content": 0.0, "teacher": 1.0}, False, True, "expected a teacher for the weights"),
        ("adversarial", {"content": 0.0}, True, True, "expected a use for a teacher"),
        ("adversarial", {"content": 0.0, "discriminator": 1.0}, False, True, "expected discriminator.teacher for the"),
        (
            "perceptual",
            {"content": 0.0, "lpips_against": "teacher", "lpips": 0.1},
            False,
            True,
            "expected a teacher for",
        ),
        ("supervised", {"loss": "l3"}, False, False, "one of l1, mse, charbonnier, found 'l3'"),
        ("dukd", {"zoom_out": 0}, True, False, "to be positive, found 0"),
    ],
)
def test_misuse_is_named(name, chosen, teacher, judge, says):
    if name == "perceptual" and judge:
        pytest.importorskip("lpips")
    with pytest.raises(BadInput, match=says):
        make_method(name, chosen, _network(1) if teacher else None, _judge() if judge else None)


def test_only_adversarial_training_distils_a_discriminator():
    with pytest.raises(BadInput, match=r"expected no discriminator.teacher for the method 'perceptual'"):
        make_method("perceptual", {"content": 0.0}, None, _judge(), _judge())
