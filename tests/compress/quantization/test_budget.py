"""Sensitivity and budget: what one layer alone loses, and mixes that keep what they promise."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import Benchmark, Pair
from compress.deploy import Add, Conv, PReLU
from compress.errors import BadInput
from compress.models import build
from compress.quantization.budget import Costs, Mix, why, within_budget
from compress.quantization.calibration import calibration_crops
from compress.quantization.integer import IntegerStudent, quantize
from compress.quantization.mix import arithmetic_of, layers
from compress.quantization.ptq import Plan, Trial, quantize_student
from compress.quantization.scheme import PIXELS, Arithmetic, Quantization
from compress.quantization.sensitivity import Judge, Sensitivity, pixels, sensitivities

CASES = {
    "anchor": ("anchor", {"scale": 2, "channels": 8, "blocks": 2}),
    "prelu": ("srresnet", {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 5, "tail_kernel": 5}),
    "tanh": ("srresnet", {"scale": 2, "channels": 8, "blocks": 1, "output": "tanh", "trunk_end": "activation"}),
}
NEAR_FLOAT = Plan(range="minmax")


def _student(name: str) -> Student:
    """Near the identity, as a trained network is: its output is compared with real pictures."""
    torch.manual_seed(0)
    architecture, options = CASES[name]
    network = build(architecture, options)
    with torch.no_grad():
        if architecture != "anchor":
            network.tail.weight.mul_(0.5)
            network.tail.bias.fill_(0.0 if options.get("output") == "tanh" else 0.45)
    return Student.of(network)


@pytest.fixture(scope="module")
def photograph(photographs: Path) -> Benchmark:
    return Benchmark("astronaut", 2, (Pair("astronaut", photographs / "astronaut.png", None),))


@pytest.fixture(scope="module")
def trials(photographs: Path) -> dict[str, Trial]:
    crops = calibration_crops(str(photographs), 2, count=16, side=24).crops
    return {name: Trial(_student(name).deploy(), crops) for name in CASES}


@pytest.fixture(scope="module")
def found(trials: dict[str, Trial], photograph: Benchmark) -> tuple[Trial, Judge, list[Sensitivity]]:
    trial = trials["anchor"]
    judge = Judge(trial.graph, photograph, count=3, side=40)
    return trial, judge, sensitivities(trial, NEAR_FLOAT, judge)


@pytest.mark.parametrize("name", list(CASES))
def test_every_step_that_computes_is_in_one_layer(trials, name):
    graph = trials[name].graph
    found = layers(graph)
    steps = [step for layer in found for step in layer.steps]
    assert len(steps) == len(set(steps))
    computing = {step for step, operator, _ in graph.steps() if isinstance(operator, (Conv, Add, PReLU))}
    assert computing <= set(steps)
    assert sum(layer.macs for layer in found if isinstance(graph.operators[layer.name], Conv)) == graph.macs(1, 1)


@pytest.mark.parametrize("name", list(CASES))
def test_float_in_every_layer_is_the_float_network_and_16_bits_are_nearer_than_8(trials, name):
    trial, apart = trials[name], {}
    with torch.no_grad():
        rounded = pixels(trial.graph(trial.judged))
    for kind in ("int8", "int16", "float"):
        chosen: dict[str, Arithmetic] = {layer.name: kind for layer in layers(trial.graph)}
        found = IntegerStudent(trial.graph, trial.quantization(NEAR_FLOAT, chosen))(trial.judged)
        apart[kind] = ((found - rounded).abs() > 0.5 / 255).float().mean().item()
    assert apart["float"] < 1e-4, "ties alone"
    assert apart["float"] < apart["int16"] < apart["int8"], "weights are int8 in both"


def test_16_bit_values_are_integers_in_range_that_hold_pixels_exactly(trials):
    trial = trials["prelu"]
    chosen: dict[str, Arithmetic] = {layer.name: "int16" for layer in layers(trial.graph)}
    quantization = trial.quantization(NEAR_FLOAT, chosen)
    assert quantization.precision == "int16x8"
    reference = IntegerStudent(trial.graph, quantization)
    values = dict(reference.integers(trial.judged))
    for name, value in values.items():
        assert torch.equal(value, value.round()), name
        assert value.abs().max() <= 2**15
    assert values["head"].abs().max() > 2**14, "the range is used"
    integers = quantize(torch.arange(256) / 255, PIXELS)
    wide = reference.read("lr", integers, "int16")
    assert torch.equal(wide, (integers + 128) * 127)


def test_a_mix_comes_back_from_the_file_and_old_files_are_int8(trials, tmp_path):
    trial, student = trials["anchor"], _student("anchor")
    names = [layer.name for layer in layers(trial.graph)]
    chosen: dict[str, Arithmetic] = {names[0]: "float", names[2]: "int16"}
    quantization = trial.quantization(NEAR_FLOAT, chosen)
    save_student(dataclasses.replace(student, quantization=quantization), tmp_path / "s.pt")
    back = load_student(tmp_path / "s.pt")
    assert back.precision == "mixed"
    assert back.quantization is not None
    assert back.quantization.arithmetic == arithmetic_of(trial.graph, chosen)
    assert torch.equal(back.reference()(trial.judged), IntegerStudent(trial.graph, quantization)(trial.judged))
    plain = trial.quantization(NEAR_FLOAT, {})
    assert set(plain.to_dict()) == {"activations", "layers", "calibration"}
    assert Quantization.from_dict(plain.to_dict()).precision == "int8"


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("arithmetic", {"head": "int4"}, "arithmetic 'int4' of 'head'"),
        ("arithmetic", {"more": "float"}, "arithmetic 'float' of 'more'"),
        ("arithmetic", {"lr": "float"}, "'lr' must be int8"),
        ("arithmetic", {"head": "int16"}, "not every value has an int16 scale"),
        ("wide", {"head": -1.0}, "int16 scale -1.0 of 'head'"),
        ("equalization", {"head": [1.0]}, "factors of 'head'"),
    ],
)
def test_a_mix_that_makes_no_sense_is_refused(trials, tmp_path, field, value, says):
    quantization = trials["anchor"].quantization(NEAR_FLOAT, {})
    save_student(dataclasses.replace(_student("anchor"), quantization=quantization), tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    content["quantization"][field] = value
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(BadInput) as caught:
        load_student(tmp_path / "s.pt")
    assert says in str(caught.value)


def test_a_row_is_what_that_layer_alone_does(found):
    trial, judge, rows = found
    assert [row.name for row in rows] == [layer.name for layer in layers(trial.graph)]
    for row in rows:
        others: dict[str, Arithmetic] = {one.name: "float" for one in rows if one.name != row.name}
        alone = trial.quantization(NEAR_FLOAT, others)
        assert row.loss == pytest.approx(judge.loss(alone))
        assert {step for step in alone.layers if alone.of(step) == "int8"} <= {row.name}
        assert 35 < row.psnr < 100
    together = trial.quantization(NEAR_FLOAT, {})
    error = np.square(judge._outputs(IntegerStudent(trial.graph, together)) - pixels(judge.wanted)).mean()
    assert -10 * math.log10(error) < min(row.psnr for row in rows) + 0.5, "all together are no nearer than the worst"


class _Judged:
    """A judge by a rule: each layer loses a fixed share in int8, a hundredth of it in int16, nothing in float."""

    def __init__(self, losses: dict[str, float]):
        self.losses, self.asked = losses, 0

    def loss(self, quantization: Quantization) -> float:
        self.asked += 1
        weight = {"int8": 1.0, "int16": 0.01, "float": 0.0}
        return sum(loss * weight[quantization.of(name)] for name, loss in self.losses.items())


@pytest.fixture(scope="module")
def ruled(trials: dict[str, Trial]) -> tuple[Trial, _Judged, list[Sensitivity]]:
    trial = trials["anchor"]
    losses = {layer.name: 0.01 * 2**i for i, layer in enumerate(layers(trial.graph))}
    macs = {layer.name: layer.macs for layer in layers(trial.graph)}
    rows = [Sensitivity(name, macs[name], loss, -10 * math.log10(loss * 1e-5)) for name, loss in losses.items()]
    return trial, _Judged(losses), rows


@pytest.mark.parametrize("budget", [0.3, 0.1, 0.05, 0.011])
@pytest.mark.parametrize("costs", [Costs(), Costs(int16=2, real=8)])
def test_a_mix_keeps_its_budget_and_no_raised_layer_is_there_for_nothing(ruled, budget, costs):
    trial, judge, rows = ruled
    mix = within_budget(trial, NEAR_FLOAT, rows, judge, budget, costs)
    assert mix.loss <= budget < mix.int8_loss
    assert judge.loss(mix.quantization) == mix.loss
    assert set(mix.chosen.values()) == {"int16" if costs.int16 < costs.real else "float"}
    for name in mix.chosen:
        fewer = {one: kind for one, kind in mix.chosen.items() if one != name}
        assert judge.loss(trial.quantization(NEAR_FLOAT, fewer)) > budget
    by_name = {row.name: row.macs for row in rows}
    raised = sum(by_name[name] * (costs.of(kind) - 1) for name, kind in mix.chosen.items())
    assert mix.cost == pytest.approx(1 + raised / sum(by_name.values()))
    lines = why(mix, rows, budget)
    assert all(any(name in line for line in lines) for name in mix.chosen)


def test_int8_is_kept_where_it_is_enough(ruled):
    trial, judge, rows = ruled
    mix: Mix = within_budget(trial, NEAR_FLOAT, rows, judge, 1.0)
    assert (mix.chosen, mix.cost, mix.quantization.precision) == ({}, 1.0, "int8")
    assert "nothing is raised" in why(mix, rows, 1.0)[0]


@pytest.mark.parametrize("budget", [0, -0.1, math.nan, math.inf])
def test_a_budget_that_is_none_is_refused(ruled, budget):
    trial, judge, rows = ruled
    with pytest.raises(BadInput, match="expected a budget above 0 dB"):
        within_budget(trial, NEAR_FLOAT, rows, judge, budget)


def test_a_budget_that_only_float_keeps_is_refused(ruled):
    trial, judge, rows = ruled
    with pytest.raises(BadInput, match="asks for float in all 5: raise it, train with QAT, or ship float32"):
        within_budget(trial, NEAR_FLOAT, rows, judge, 0.001)


def test_the_command_reports_and_keeps_a_measured_budget(photographs, tmp_path, command):
    save_student(_student("prelu"), tmp_path / "s.pt")
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "a.png").write_bytes((photographs / "astronaut.png").read_bytes())
    common = ("--calibration", photographs, "--crops", "16", "--judge", tmp_path / "judge", "--judged", "3")
    done = command(
        "compress.quantization", tmp_path / "s.pt", "--out", tmp_path / "q.pt", *common,
        "--report", tmp_path / "r.json", "--budget", "10",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["int8_loss"] <= content["budget"] == 10
    assert [row["name"] for row in content["layers"]] == [layer.name for layer in layers(_student("prelu").deploy())]
    assert all(row["name"] in done.stdout for row in content["layers"])
    assert "nothing is raised" in done.stdout
    steps = load_student(tmp_path / "q.pt").quantization.calibration
    assert (steps["budget"], steps["judged_on"]["crops"]) == (10, 3)
    refusals = (("--budget", "0"), ("--plain", "--budget", "1"), ("--activations", "int16", "--report", tmp_path / "x"))
    for options in refusals:
        refused = command("compress.quantization", tmp_path / "s.pt", "--out", tmp_path / "none.pt", *options)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
        assert not (tmp_path / "none.pt").exists()


def test_16_bit_students_say_so(photographs, tmp_path):
    student = quantize_student(
        _student("tanh"), calibration_crops(str(photographs), 2, count=16, side=24), arithmetic="int16"
    )
    save_student(student, tmp_path / "s.pt")
    assert load_student(tmp_path / "s.pt").precision == "int16x8"
