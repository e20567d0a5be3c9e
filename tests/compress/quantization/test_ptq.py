"""Post-training quantization: what equalization keeps, what bias correction mends, and that the measured best is taken."""

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.checkpoint import Student, load_student, save_student
from compress.deploy import INPUT, Conv, DeployGraph, PReLU
from compress.errors import BadInput
from compress.models import build
from compress.pruning.masks import Masks
from compress.quantization.calibration import CalibrationCrops, calibration_crops
from compress.quantization.correction import bias_corrected
from compress.quantization.equalization import balancing_factors, equalized, largest_magnitudes, seams
from compress.quantization.integer import IntegerStudent
from compress.quantization.ptq import Plan, Trial, quantize_student
from compress.quantization.scales import channel_scales, clipped_scales
from tests.export.conftest import SLOPES, STUDENTS

UNEVEN = ["anchor_x2", "relu_linear", "prelu_linear", "edsr", "prelu_tanh"]


def _uneven(name: str) -> Student:
    """A student whose channels differ in size by up to 40 times: what training without regard to int8 may give."""
    torch.manual_seed(4)
    architecture, options = STUDENTS[name]
    network = build(architecture, options).merged().eval()
    slopes = itertools.cycle(SLOPES)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.PReLU):
                module.weight.fill_(next(slopes))
            if isinstance(module, nn.Conv2d):
                sizes = torch.logspace(-0.8, 0.8, len(module.weight))[torch.randperm(len(module.weight))]
                module.weight.mul_(sizes[:, None, None, None])
                if module.bias is not None:
                    module.bias.uniform_(-0.05, 0.05)
    return Student.of(network)


@pytest.fixture(scope="module")
def crops(photographs: Path) -> dict[int, CalibrationCrops]:
    return {scale: calibration_crops(str(photographs), scale, count=16, side=24) for scale in (2, 3, 4)}


@pytest.mark.parametrize("name", UNEVEN)
def test_an_equalized_graph_computes_the_same_function(name, crops):
    student = _uneven(name)
    graph, lr = student.deploy(), crops[student.scale].crops
    factors = balancing_factors(graph, largest_magnitudes(graph, lr))
    again = equalized(graph, factors)
    changed = torch.cat([factor.log().abs() for factor in factors.values()])
    assert changed.max() > 0.5, "there is something to equalize"
    before, after = dict(graph.values(lr)), dict(again.values(lr))
    assert before[graph.output].std() > 0.01
    size = max(float(value.abs().max()) for value in before.values())
    assert (before[graph.output] - after[graph.output]).abs().max() <= 1e-5 * size
    for step, factor in factors.items():
        assert torch.allclose(
            after[step] * factor[:, None, None], before[step], atol=1e-4 * float(before[step].abs().max())
        )
    assert list(again.inputs.items()) == list(graph.inputs.items())


def test_seams_are_pairs_and_the_residual_stream_and_never_the_images(crops):
    graph = _uneven("relu_linear").deploy()
    found = {seam.producers: (seam.consumers, seam.width) for seam in seams(graph)}
    assert found == {
        ("head", "block0_conv2", "trunk"): (("block0_conv1", "trunk", "up0"), 8),
        ("block0_conv1",): (("block0_conv2",), 8),
        ("up0",): (("up1",), 8),
        ("up1",): (("tail",), 8),
    }


def test_factors_balance_what_is_made_with_what_reads_it(crops):
    graph, lr = _uneven("anchor_x2").deploy(), crops[2].crops
    factors = balancing_factors(graph, largest_magnitudes(graph, lr))
    for seam in seams(graph):
        (producer,), (consumer,) = seam.producers, seam.consumers
        alone = equalized(graph, {producer: factors[producer]})
        made, read = largest_magnitudes(alone, lr)[producer], alone.operators[consumer].weight.abs().amax((0, 2, 3))
        ratio = (made / read)[made > 0]
        assert len(ratio) > 3
        assert ratio.max() < 1.01 * ratio.min()


@pytest.mark.parametrize(
    ("factors", "says"),
    [
        ({"head": torch.ones(7)}, "'head' do not fit"),
        ({"head": -torch.ones(8)}, "'head' do not fit"),
        ({"more": torch.ones(8)}, "'more', which is no convolution"),
        ({"tail": torch.full((3,), 2.0)}, "factors"),
        ({"head": torch.linspace(1, 2, 8)}, "different factors"),
    ],
)  # fmt: skip
def test_factors_that_do_not_cancel_out_are_refused(factors, says):
    with pytest.raises(ValueError, match=says):
        equalized(_uneven("relu_linear").deploy(), factors)


def _mean_errors(graph: DeployGraph, reference: IntegerStudent, lr: Tensor) -> dict[str, float]:
    """How far the mean of every convolution's channels, before its activation, is from the float network's; RMS."""
    real, integer, found = dict(graph.values(lr)), dict(reference.integers(lr)), {}
    for name, operator, (source, *_) in graph.steps():
        if isinstance(operator, Conv):
            wanted = F.conv2d(real[source], operator.weight, operator.bias, padding=operator.padding)
            error = (wanted - reference.sums(name, integer[source])).mean((0, 2, 3))
            found[name] = float(error.square().mean().sqrt())
    return found


@pytest.mark.parametrize("name", ["anchor_x2", "prelu_linear", "edsr"])
def test_bias_correction_removes_the_mean_error_of_every_layer(name, crops):
    student = _uneven(name)
    graph, lr = student.deploy(), crops[student.scale].crops
    before = Trial(graph, lr).quantization(Plan(range="percentile"), {})
    after = bias_corrected(graph, before, lr)
    errors = [_mean_errors(graph, IntegerStudent(graph, one), lr) for one in (before, after)]
    assert all(errors[1][layer] < 0.2 * errors[0][layer] for layer in errors[0] if errors[0][layer] > 1e-4)
    assert max(errors[0].values()) > 1e-3, "there is something to correct"
    assert after.activations == before.activations
    assert all(torch.equal(after.layers[step].weight, layer.weight) for step, layer in before.layers.items())


def test_clipped_scales_have_no_more_error_than_those_of_the_largest_weight():
    weight = torch.randn(6, 8, 3, 3, generator=torch.Generator().manual_seed(0))
    weight[5] = 0.0

    def error(scale: Tensor) -> Tensor:
        steps = scale[:, None, None, None]
        return ((weight / steps).round().clamp(-127, 127) * steps - weight).square().sum((1, 2, 3))

    wide, clipped = channel_scales(weight), clipped_scales(weight)
    assert (error(clipped) <= error(wide)).all()
    assert (error(clipped) < error(wide)).sum() >= 3
    assert ((clipped >= 0.89 * wide) & (clipped <= wide) & (clipped > 0)).all()


@pytest.mark.parametrize("name", list(STUDENTS))
def test_the_best_plan_is_no_worse_than_ranges_alone_and_comes_back_from_the_file(name, crops, tmp_path):
    student = _uneven(name)
    given = crops[student.scale]
    save_student(quantize_student(student, given), tmp_path / "s.pt")
    best, plain = load_student(tmp_path / "s.pt"), quantize_student(student, given, plain=True)
    trial = Trial(student.deploy(), given.crops)
    assert trial.psnr(best.quantization) >= trial.psnr(plain.quantization)
    steps = best.quantization.calibration
    assert steps["equalization"] == bool(best.quantization.equalization)
    assert {"range", "clipping", "bias_correction", "sha256"} <= set(steps)
    assert not plain.quantization.calibration["bias_correction"]
    assert all(torch.equal(student.weights[key], value) for key, value in best.weights.items()), "float files stay"
    assert save_student(quantize_student(student, given), tmp_path / "again.pt") == best.file_hash


def test_uneven_channels_are_won_back(crops):
    """By several dB: what the steps are for."""
    student = _uneven("relu_linear")
    trial = Trial(student.deploy(), crops[4].crops)
    best, plain = trial.best(None, {}), Plan(range="mse")
    assert best.equalization
    assert trial.psnr(trial.quantization(best, {})) > trial.psnr(trial.quantization(plain, {})) + 1


@pytest.mark.parametrize("name", ["anchor_x2", "edsr"])
def test_zeros_of_a_sparse_student_stay_zeros_through_every_step(name, crops):
    student = _uneven(name)
    weights = {key: value.clone() for key, value in student.weights.items()}
    masks = {}
    for key, value in weights.items():
        if value.ndim == 4:
            masks[key] = torch.rand(value.shape, generator=torch.Generator().manual_seed(1)) > 0.5
            value[~masks[key]] = 0
    sparse = dataclasses.replace(student, weights=weights, sparsity=Masks("unstructured", masks))
    plan = Plan(range="mse", equalization=True, clipping=True, bias_correction=True)
    quantization = Trial(sparse.deploy(), crops[student.scale].crops).quantization(plan, {})
    integers = {step: layer.weight for step, layer in quantization.layers.items()}
    masks_held = dataclasses.replace(sparse, quantization=quantization).sparsity
    assert masks_held is not None
    masks_held.check(sparse.network(), integers)
    assert any(layer.count_nonzero() > 0.3 * layer.numel() for layer in integers.values())


def test_a_file_with_factors_that_do_not_fit_is_refused(crops, tmp_path):
    student = _uneven("relu_linear")
    save_student(quantize_student(student, crops[4]), tmp_path / "s.pt")
    content: dict[str, Any] = torch.load(tmp_path / "s.pt", weights_only=True)
    content["quantization"]["equalization"]["head"][0] *= 2
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(BadInput, match="expected scales that fit the network"):
        load_student(tmp_path / "s.pt")


def test_a_chain_with_prelu_and_nothing_else_is_one_seam():
    graph = DeployGraph(1)
    graph.add("a", Conv(torch.randn(4, 3, 3, 3), torch.zeros(4)), INPUT)
    graph.add("b", PReLU(0.2), "a")
    graph.add("c", Conv(torch.randn(3, 4, 3, 3), torch.zeros(3)), "b")
    (seam,) = seams(graph)
    assert (seam.members, seam.producers, seam.consumers, seam.width) == (("a", "b"), ("a",), ("c",), 4)
