"""Quantization-aware training: a trained network is the int8 student that it gives."""

import copy
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress.card import card
from compress.checkpoint import Student, load_student, save_student
from compress.data.cache import collect
from compress.data.images import find_images
from compress.data.patches import Batch, Patches, to_batch
from compress.errors import BadInput
from compress.methods.fakd import Fakd, FakdConfig
from compress.models import build
from compress.options import checked
from compress.pruning.masks import Masks
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from compress.quantization.qat import QatConfig, QuantizationAware
from compress.recipe import ScheduleSpec
from tests.compress.quantization.conftest import SMALL, VARIANTS, assert_same_graph, network_of

SCHEDULE = ScheduleSpec(steps=10, learning_rate=1e-3)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """The photographs, twice as large: crops of 64x64 for x4."""
    from PIL import Image

    larger = tmp_path_factory.mktemp("larger")
    for path in photographs.iterdir():
        with Image.open(path) as image:
            image.resize((256, 256), Image.Resampling.BICUBIC).save(larger / path.name)
    return larger


@pytest.fixture(scope="module")
def batch(folder: Path) -> Batch:
    return _batches(folder, 1, count=4)[0]


def _batches(
    folder: Path, number: int, *, scale: int = 2, side: int = 24, count: int = 8, seed: int = 0
) -> list[Batch]:
    patches = Patches(collect(find_images(folder), scale, side), side, seed)
    return [
        to_batch(torch.utils.data.default_collate([patches[number * count + i] for i in range(count)]))
        for number in range(number)
    ]


def _technique(folder: Path, learner: str = "lsq", masks: Masks | None = None, **options: object) -> QuantizationAware:
    given = {"learner": learner, "calibration": str(folder), "crops": 16, **options}
    return QuantizationAware(checked(QatConfig, given, "qat"), masks)


def _train(technique: QuantizationAware, network: nn.Module, batches: list[Batch], rate: float = 1e-3) -> None:
    """The loop of compress.run in a few lines."""
    schedule = ScheduleSpec(steps=len(batches), learning_rate=rate)
    optimizer = technique.optimizer(network, schedule)
    for step, batch in enumerate(batches, 1):
        _step(technique, network, optimizer, batch, step)


def _step(technique, network, optimizer, batch, step, wrapped=None):
    for group in optimizer.param_groups:
        group["lr"] = group.get("lr_factor", 1.0) * optimizer.defaults["lr"]
    optimizer.zero_grad(set_to_none=True)
    F.l1_loss((wrapped or network)(batch["lr"]), batch["hr"]).backward()
    optimizer.step()
    technique.after_step(network, step)


@pytest.mark.parametrize("learner", ["lsq", "pams"])
@pytest.mark.parametrize("name", list(VARIANTS))
def test_before_the_first_step_it_is_the_student_of_post_training_quantization(name, learner, folder):
    technique = _technique(folder, learner)
    network = network_of(name)
    made = technique.student(technique.prepare(network))
    scale = network.config.scale
    ptq = quantize_student(Student.of(network), calibration_crops(str(folder), scale, count=16), plain=True)
    assert made.quantization.activations == ptq.quantization.activations
    for step, layer in ptq.quantization.layers.items():
        for field in ("weight", "scale", "bias"):
            assert torch.equal(getattr(made.quantization.layers[step], field), getattr(layer, field)), (step, field)
    assert_same_graph(made.deploy(), ptq.deploy())


@pytest.mark.parametrize("learner", ["lsq", "pams"])
@pytest.mark.parametrize("name", list(VARIANTS))
def test_what_trains_is_what_ships(name, learner, folder, tmp_path):
    technique = _technique(folder, learner)
    network = technique.prepare(network_of(name))
    scale = network.config.scale
    before = technique.student(network)
    batches = _batches(folder, 8, scale=scale, side=16)
    _train(technique, network, batches, rate=2e-3)
    student = technique.student(network.eval())
    assert student.quantization.activations != before.quantization.activations
    lr = _batches(folder, 1, scale=scale, side=48, count=4, seed=1)[0]["lr"]
    with torch.no_grad():
        simulated, shipped = network(lr), student.reference()(lr)
    assert shipped.std() > 0.05, "a flat output would prove nothing"
    assert torch.equal(simulated, shipped)
    save_student(student, tmp_path / "student.pt")
    again = load_student(tmp_path / "student.pt")
    assert torch.equal(again.reference()(lr), shipped)
    assert again.quantization.calibration["method"] == "qat"
    assert again.quantization.calibration["learner"] == learner
    assert again.quantization.calibration["crops"] == 16


def test_the_image_is_rounded_and_clipped_only_after_training(folder, batch):
    for name in ("anchor", "relu", "prelu"):
        technique = _technique(folder)
        network = technique.prepare(network_of(name))
        with torch.no_grad():
            if name != "prelu":
                network.network.tail.bias[0] += 0.7
            trained, kept = network.train()(batch["lr"]), network.eval()(batch["lr"])
        assert (trained * 255 - (trained * 255).round()).abs().max() > 0.4
        assert (trained.max() > 1) == (name != "prelu"), "a sigmoid stays within 1"
        assert (255 * (trained.clamp(0, 1) - kept)).abs().max() < 0.5001


def _loss(network: nn.Module, batches: list[Batch]) -> float:
    with torch.no_grad():
        return float(np.mean([F.l1_loss(network(batch["lr"]), batch["hr"]).item() for batch in batches]))


def test_a_hundred_steps_win_back_more_than_post_training_quantization_loses(folder):
    torch.manual_seed(1)
    network = build("anchor", {"scale": 2, "channels": 8, "blocks": 2})
    batches = _batches(folder, 400, side=16, seed=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for batch in batches[:300]:
        optimizer.zero_grad()
        F.l1_loss(network(batch["lr"]), batch["hr"]).backward()
        optimizer.step()
    judged, crops = _batches(folder, 10, seed=5), calibration_crops(str(folder), 2, count=16)
    of_ptq = _loss(quantize_student(Student.of(network), crops).reference(), judged)
    technique = _technique(folder)
    trained = technique.prepare(network)
    _train(technique, trained, batches[300:], rate=2e-4)
    assert _loss(technique.student(trained).reference(), judged) < 0.99 * of_ptq


def test_masked_weights_stay_zero_in_float_and_in_integers(folder, batch, tmp_path):
    network = network_of("edsr")
    torch.manual_seed(3)
    names = ["head.weight", "blocks.0.conv2.weight", "stages.0.weight"]
    parameters = dict(network.named_parameters())
    masks = Masks("unstructured", {name: torch.rand_like(parameters[name]) > 0.5 for name in names})
    masks.apply(network)
    technique = _technique(folder, masks=masks)
    prepared = technique.prepare(network)
    _train(technique, prepared, [batch] * 5)
    student = technique.student(prepared)
    assert student.sparsity is masks
    for name in names:
        assert not student.weights[name][~masks.layers[name]].any()
        assert student.weights[name].count_nonzero() == masks.layers[name].sum()
    assert not torch.equal(student.weights["head.weight"], parameters["head.weight"])
    for step, kept in masks.shipped(student.network()).items():
        assert not student.quantization.layers[step].weight[~kept].any()
    save_student(student, tmp_path / "student.pt")
    assert load_student(tmp_path / "student.pt").sparsity.sparsity() == masks.sparsity()


def test_scales_stay_from_the_chosen_share_of_the_steps_on_and_weights_go_on(folder, batch):
    technique = _technique(folder, freeze_after=0.5)
    network = technique.prepare(network_of("anchor"))
    optimizer = technique.optimizer(network, SCHEDULE)
    history = []
    for step in range(1, 11):
        _step(technique, network, optimizer, batch, step)
        scales = torch.cat([learned().detach().flatten() for learned in network.learned_scales()])
        history.append((scales, network.network.head.weight.detach().clone()))
    scales = [scale for scale, _ in history]
    assert all(not torch.equal(a, b) for a, b in itertools.pairwise(scales[:5]))
    assert all(torch.equal(scales[4], later) for later in scales[5:])
    assert all(not torch.equal(history[i][1], history[i + 1][1]) for i in range(9))


def test_a_moving_average_gives_a_student_with_the_same_zero_points(folder, batch):
    technique = _technique(folder)
    network = technique.prepare(network_of("relu"))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    optimizer = technique.optimizer(network, SCHEDULE)
    for step in range(1, 6):
        _step(technique, network, optimizer, batch, step)
        average.update_parameters(network)
    kept, last = technique.student(average.module), technique.student(network)
    for value, scale in kept.quantization.activations.items():
        assert scale.zero_point == last.quantization.activations[value].zero_point
    assert not torch.equal(kept.weights["head.weight"], last.weights["head.weight"])
    with torch.no_grad():
        assert torch.equal(average.eval()(batch["lr"]), kept.reference()(batch["lr"]))


def test_a_run_goes_on_from_its_state_as_if_it_had_not_stopped(folder, batch):
    def start() -> tuple[QuantizationAware, nn.Module, torch.optim.Optimizer]:
        technique = _technique(folder, freeze_after=0.3)
        network = technique.prepare(network_of("anchor"))
        return technique, network, technique.optimizer(network, SCHEDULE)

    technique, network, optimizer = start()
    for step in range(1, 5):
        _step(technique, network, optimizer, batch, step)
    saved = copy.deepcopy((network.state_dict(), optimizer.state_dict(), technique.state_dict()))
    resumed, other, again = start()
    for part, state in zip((other, again, resumed), saved, strict=True):
        part.load_state_dict(state)
    for step in range(5, 8):
        _step(technique, network, optimizer, batch, step)
        _step(resumed, other, again, batch, step)
    for name, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[name]), name
    assert technique.student(network).quantization.calibration == resumed.student(other).quantization.calibration


def test_it_trains_under_ddp_with_frozen_scales(folder, batch, tmp_path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        technique = _technique(folder, freeze_after=0.0)
        network = technique.prepare(network_of("prelu"))
        alone = copy.deepcopy(network)
        wrapped = DistributedDataParallel(network)
        for trained, wrapper in ((network, wrapped), (alone, None)):
            optimizer = technique.optimizer(trained, SCHEDULE)
            for step in (1, 2):
                _step(technique, trained, optimizer, batch, step, wrapper)
        assert torch.equal(network.network.head.weight, alone.network.head.weight)
    finally:
        torch.distributed.destroy_process_group()


def test_low_precision_around_it_changes_nothing(folder, batch):
    network = _technique(folder).prepare(network_of("relu"))
    plain = network(batch["lr"])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(batch["lr"]), plain)
        assert torch.equal(network(batch["lr"].bfloat16().float()), network(batch["lr"].bfloat16()))


def test_weights_biases_and_scales_learn_and_slopes_do_not(folder, batch):
    technique = _technique(folder)
    network = technique.prepare(network_of("prelu"))
    F.l1_loss(network(batch["lr"]), batch["hr"]).backward()
    for name, parameter in network.named_parameters():
        slope = name.startswith("network") and ("activation" in name or "trunk_end" in name)
        assert (parameter.grad is None) == slope, name
        assert slope or parameter.grad.abs().sum() > 0, name
    weights, scales = technique.optimizer(network, SCHEDULE).param_groups
    trained = [*weights["params"], *scales["params"]]
    assert len(trained) == sum(p.requires_grad for p in network.parameters())
    assert (weights["lr_factor"], scales["lr_factor"]) == (1.0, 1.0)
    pams = _technique(folder, "pams", scale_rate=3)
    assert len(pams.prepare(network_of("prelu")).weights) == 0
    assert pams.optimizer(pams.prepare(network_of("prelu")), SCHEDULE).param_groups[1]["lr_factor"] == 3.0


def test_methods_that_compare_features_find_them(folder, batch):
    torch.manual_seed(0)
    teacher = build("edsr", {**SMALL, "channels": 16, "blocks": 3})
    for name in ("anchor", "relu"):
        network = _technique(folder).prepare(network_of(name))
        method = Fakd(FakdConfig(truth=0.0, teacher=0.0), teacher)
        method.attach(network)
        losses = method(network, batch)
        losses["affinity"].backward()
        assert losses["affinity"] > 0
        assert network.network.head.weight.grad.abs().sum() > 0


def test_a_card_says_how_it_was_quantized(folder):
    technique = _technique(folder)
    text = card(technique.student(technique.prepare(network_of("anchor"))), "tiny")
    assert "Quantization: qat" in text


def test_the_log_says_how_far_the_scales_went(folder, batch):
    technique = _technique(folder)
    network = technique.prepare(network_of("anchor"))
    assert technique.figures(network) == {"scale_change": 0.0}
    _train(technique, network, [batch] * 3, rate=1e-2)
    assert 0.001 < technique.figures(network)["scale_change"] < 0.1


def test_what_cannot_work_is_refused_in_one_sentence(folder, tmp_path):
    with pytest.raises(BadInput, match="distil a student"):
        _technique(folder).prepare(build("rlfn", {"channels": 8, "blocks": 1, "attention_channels": 4}))
    with pytest.raises(BadInput, match=r"freeze_after between 0 and 1, found 1\.5"):
        _technique(folder, freeze_after=1.5)
    with pytest.raises(BadInput, match="scale_rate to be 0 or more"):
        _technique(folder, scale_rate=-1)
    with pytest.raises(BadInput, match="qat's learner to be one of lsq, pams, found 'dorefa'"):
        _technique(folder, "dorefa")
    with pytest.raises(BadInput, match="found nothing at"):
        _technique(tmp_path / "missing").prepare(network_of("anchor"))
