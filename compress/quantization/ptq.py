"""Post-training quantization: a float student and calibration crops give an int8 student."""

import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from compress.checkpoint import Student
from compress.deploy import INPUT, Clip, Conv, DeployGraph, DepthToSpace, Repeat
from compress.errors import BadInput
from compress.quantization.calibration import CalibrationCrops
from compress.quantization.observers import RULES, Histogram, RangeRule, scale_of
from compress.quantization.scheme import PIXELS, WEIGHT_LIMIT, ActivationScale, IntegerWeights, Quantization

BATCH = 16
SMALLEST_SCALE = 1e-9  # of a weight channel that is all zeros
MOVES = (Repeat, DepthToSpace)  # operators that only move values


def quantize_student(student: Student, crops: CalibrationCrops, rule: RangeRule = "mse") -> Student:
    """The int8 student: integer weights and biases, and a scale for every value of the deploy graph.

    Args:
        student: float.
        crops: real LR content.
        rule: how ranges are chosen from what was observed.

    Raises:
        BadInput: an int8 student, or an architecture without a deploy form.
    """
    if student.quantization:
        raise BadInput(
            "expected a float student to quantize, found one that is int8 already: give the float student.pt."
        )
    graph = student.deploy()
    activations = activation_scales(graph, crops.crops, rule)
    layers = {
        name: integer_weights(operator, activations[inputs[0]])
        for name, operator, inputs in graph.steps()
        if isinstance(operator, Conv)
    }
    quantization = Quantization(activations, layers, {"method": "ptq", "range": rule, **crops.describe()})
    provenance = {**student.provenance, "float_student_sha256": student.file_hash}
    return dataclasses.replace(student, quantization=quantization, provenance=provenance, metrics=[], file_hash=None)


def activation_scales(graph: DeployGraph, crops: Tensor, rule: RangeRule) -> dict[str, ActivationScale]:
    """A scale for the input and every step, chosen for those values that have one of their own."""
    owners = scale_owners(graph)
    histograms = {owner: Histogram() for owner in owners.values() if owner != INPUT}
    for name, value in _observed(graph, crops):
        if name in histograms:
            histograms[name].see_extremes(value)
    for name, value in _observed(graph, crops):
        if name in histograms:
            histograms[name].count(value)
    chosen = {name: scale_of(*RULES[rule](histogram)) for name, histogram in histograms.items()}
    return {name: PIXELS if owner == INPUT else chosen[owner] for name, owner in owners.items()}


def scale_owners(graph: DeployGraph) -> dict[str, str]:
    """For the input and every step, the value whose scale it has: the input's for all that are pixels, their input's
    for steps that only move values, else its own."""
    pinned, owners = pixel_values(graph), {INPUT: INPUT}
    for name, operator, inputs in graph.steps():
        if name in pinned:
            owners[name] = INPUT
        else:
            owners[name] = owners[inputs[0]] if isinstance(operator, MOVES) else name
    return owners


def pixel_values(graph: DeployGraph) -> set[str]:
    """Values with scale exactly 1/255: the output, and what it is only a clipped or moved copy of."""
    name = graph.output
    names = {name}
    while isinstance(graph.operators[name], (Clip, *MOVES)) and graph.inputs[name][0] != INPUT:
        name = graph.inputs[name][0]
        names.add(name)
    return names


def integer_weights(conv: Conv, given: ActivationScale, scale: Tensor | None = None) -> IntegerWeights:
    """Per-channel symmetric int8 weights, and the bias in units of (input scale * weight scale).

    Args:
        conv: float.
        given: scale of its input.
        scale: of every output channel; left out, `channel_scales`.
    """
    scale = channel_scales(conv.weight) if scale is None else scale
    weight = (conv.weight / scale[:, None, None, None]).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8)
    bias = (conv.bias.double() / (scale.double() * given.scale)).round()
    limit = torch.iinfo(torch.int32)
    return IntegerWeights(weight, scale, bias.clamp(limit.min, limit.max).to(torch.int32))


def channel_scales(weight: Tensor) -> Tensor:
    """Scales with which the largest weight of every output channel becomes 127 or -127."""
    return (weight.abs().amax((1, 2, 3)) / WEIGHT_LIMIT).clamp_min(SMALLEST_SCALE)


@torch.no_grad()
def _observed(graph: DeployGraph, crops: Tensor) -> Iterator[tuple[str, Tensor]]:
    for batch in crops.split(BATCH):
        yield from graph.values(batch)
