"""The doctor names what will hurt, with the layer, and nothing where there is nothing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compress.checkpoint import Student, save_student
from compress.deploy import Conv
from compress.models import build
from compress.pruning.masks import Masks
from compress.quantization.calibration import CalibrationCrops, calibration_crops
from export.audit.findings import Finding
from export.doctor.__main__ import diagnose
from export.doctor.integers import value_findings, weight_findings
from tests.conftest import Command


@pytest.fixture(scope="module")
def crops(photographs: Path) -> CalibrationCrops:
    return calibration_crops(str(photographs), 2, count=16, side=24)


def _only(found: list[Finding], words: str) -> Finding:
    (one,) = [finding for finding in found if words in finding.found]
    return one


def test_a_student_made_for_phones_gets_notes_only(float_student, crops):
    found = diagnose(float_student("anchor_x2"), crops)
    assert {one.severity for one in found} == {"note"}
    assert _only(found, "receptive radius 3")
    graph = float_student("anchor_x2").deploy()
    cost = graph.macs(360, 640) / 1e9
    assert f"{cost:.1f} GMAC for 720p output" in _only(found, "GMAC").found


def test_structure_that_hurts_is_named_with_its_layers():
    options = {"scale": 4, "channels": 20, "blocks": 1, "activation": "prelu", "output": "tanh"}
    student = Student.of(build("srresnet", options))
    found = diagnose(student)
    graph = student.deploy()
    width = _only(found, "20 channels in")
    assert len(graph.operators[width.layer].weight) == 20
    assert "24 channels" in width.fix
    assert type(graph.operators[_only(found, "PReLU").layer]).__name__ == "PReLU"
    assert type(graph.operators[_only(found, "a sigmoid or tanh").layer]).__name__ == "Sigmoid"
    large = [one for one in found if "a 9x9 kernel" in one.found]
    assert [one.layer for one in large] == ["head", "tail"]
    tail = graph.operators["tail"].weight.numel() * 16 / graph.macs(1, 1)
    assert f"{tail:.0%} of all" in large[1].found
    late = _only(found, "after a pixel shuffle")
    assert f"{1 - sum(_costs_before_shuffle(student)) / graph.macs(1, 1):.0%} of all" in late.found
    assert all(one.why and one.fix and one.severity in ("warning", "note") for one in found)


def _costs_before_shuffle(student: Student) -> list[int]:
    costs = []
    for _, step, _ in student.deploy().steps():
        if type(step).__name__ == "DepthToSpace":
            return costs
        if hasattr(step, "weight"):
            costs.append(step.weight.numel())
    return costs


def test_relu_and_a_linear_output_draw_none_of_these(float_student):
    found = diagnose(float_student("relu_linear"))
    assert not [one for one in found if "PReLU" in one.found or "sigmoid" in one.found or "no multiple" in one.found]


def test_a_network_too_large_for_video_and_a_wide_field_are_warnings():
    student = Student.of(build("srresnet", {"scale": 2, "channels": 64, "blocks": 16, "tail_kernel": 9}))
    found = diagnose(student)
    assert _only(found, "GMAC for 720p").severity == "warning"
    radius = student.deploy().receptive_radius()
    field = _only(found, f"receptive radius {radius}")
    assert field.severity == "warning"
    assert f"{((128 + 2 * radius) / 128) ** 2 - 1:.0%} more pixels" in field.why


def test_an_outlier_among_the_weights_a_dead_and_a_large_channel_are_found():
    torch.manual_seed(0)
    graph = build("anchor", {"scale": 2, "channels": 32, "blocks": 3}).deploy()
    assert [one for one in weight_findings(graph) if one.severity == "warning"] == []
    names = [name for name, step, _ in graph.steps() if isinstance(step, Conv)]
    graph.operators[names[1]].weight[3, 2, 1, 1] = 15.0
    graph.operators[names[2]].weight[5] = 0.0
    graph.operators[names[3]].weight[1] *= 100
    found = list(weight_findings(graph))
    outlier = _only(found, "dB in int8 in channel 3, where one is")
    assert (outlier.severity, outlier.layer) == ("warning", names[1])
    assert _only(found, "1 of 32 channels with weights of zero only").layer == names[2]
    assert any(one.layer == names[3] and "times as large as those of another" in one.found for one in found)


def test_weights_that_drown_in_one_that_carries_nothing_are_measured(float_student, crops):
    """A large weight for a channel that is the same everywhere: the output changes with the others, which rounding
    takes away."""
    student = float_student("edsr")
    graph = student.deploy()
    first, second = [name for name, step, _ in graph.steps() if isinstance(step, Conv)][:2]
    graph.operators[first].weight[0] = 0.0
    graph.operators[second].weight[:, 0] = 0.0
    graph.operators[second].weight[:, 0, 1, 1] = 20.0
    found = list(value_findings(student, graph, crops.crops))
    assert _only([one for one in found if one.layer == second], "when its weights alone are int8").severity == "warning"


def test_channels_without_levels_and_outliers_are_measured(float_student, crops):
    student = float_student("edsr")
    graph = student.deploy()
    assert list(value_findings(student, graph, crops.crops)) == []
    first, second = [name for name, step, _ in graph.steps() if isinstance(step, Conv)][1:3]
    graph.operators[first].weight[1:] *= 0.01  # and back in the next layer: the float student stays what it was
    graph.operators[first].bias[1:] *= 0.01
    graph.operators[second].weight[:, 1:] *= 100
    few = [one for one in value_findings(student, graph, crops.crops) if "levels" in one.found]
    assert [one.layer for one in few] == [first]
    spiked = crops.crops.repeat(8, 1, 1, 1)
    spiked[0, :, 5, 5] = 60.0  # in one of 73,728 places
    outliers = [one for one in value_findings(student, student.deploy(), spiked) if "outliers" in one.found]
    assert outliers
    assert outliers[0].layer == _first_layer(student)


def _first_layer(student: Student) -> str:
    return next(name for name, step, _ in student.deploy().steps() if isinstance(step, Conv))


def test_masks_are_told_the_truth(float_student):
    student = float_student("edsr")
    network = student.network()
    name = next(name for name, weight in network.named_parameters() if weight.ndim == 4 and weight.shape[1] == 8)
    mask = torch.rand(network.get_parameter(name).shape, generator=torch.Generator().manual_seed(0)) > 0.5
    masks = Masks("unstructured", {name: mask})
    masks.apply(network)
    masked = Student.of(network, sparsity=masks)
    finding = _only(diagnose(masked), "unstructured masks")
    assert finding.layer == name
    assert f"{masks.sparsity():.0%} zeros" in finding.found
    assert "no phone's kernel profits" in finding.why


def test_a_network_that_ships_for_one_size_is_warned_of():
    network = build("rlfn", {"scale": 2, "channels": 8, "blocks": 1, "attention_channels": 4})
    (finding,) = diagnose(Student.of(network))
    assert (finding.severity, finding.found) == ("warning", "the attention of 'rlfn' does not fit the deploy graph")


def test_the_command_advises_and_writes_json(
    float_student: Callable[[str], Student], folder: Path, tmp_path: Path, photographs: Path, command: Command
):
    float_student("prelu_tanh")
    done = command(
        "export.doctor", folder / "prelu_tanh.pt", "--json", tmp_path / "d.json", "--calibration", photographs
    )
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads((tmp_path / "d.json").read_text())
    assert written["measured"]
    assert any("PReLU" in one["found"] for one in written["findings"])
    assert "PReLU" in done.stdout
    assert "was not measured" not in done.stdout


def test_bad_input_is_one_sentence(folder, tmp_path, float_student, command: Command):
    float_student("edsr")
    save_student(float_student("edsr"), tmp_path / "s.pt")
    (tmp_path / "text.pt").write_text("no student")
    for arguments in ((tmp_path / "text.pt",), (tmp_path / "s.pt", "--calibration", tmp_path / "none")):
        done = command("export.doctor", *arguments)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
