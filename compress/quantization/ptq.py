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
    """A scale for the input and every step; steps that only move values share their input's."""
    pinned = pixel_values(graph)
    histograms = {
        name: Histogram()
        for name, operator, _ in graph.steps()
        if name not in pinned and not isinstance(operator, (Repeat, DepthToSpace))
    }
    for name, value in _observed(graph, crops):
        if name in histograms:
            histograms[name].see_extremes(value)
    for name, value in _observed(graph, crops):
        if name in histograms:
            histograms[name].count(value)
    scales = {INPUT: PIXELS}
    for name, _, inputs in graph.steps():
        if name in pinned:
            scales[name] = PIXELS
        elif name in histograms:
            scales[name] = scale_of(*RULES[rule](histograms[name]))
        else:
            scales[name] = scales[inputs[0]]
    return scales


def pixel_values(graph: DeployGraph) -> set[str]:
    """Values with scale exactly 1/255: the output, and what it is only a clipped or moved copy of."""
    name = graph.output
    names = {name}
    while isinstance(graph.operators[name], (Clip, DepthToSpace, Repeat)) and graph.inputs[name][0] != INPUT:
        name = graph.inputs[name][0]
        names.add(name)
    return names


def integer_weights(conv: Conv, given: ActivationScale) -> IntegerWeights:
    """Per-channel symmetric int8 weights, and the bias in units of (input scale * weight scale)."""
    scale = (conv.weight.abs().amax((1, 2, 3)) / WEIGHT_LIMIT).clamp_min(SMALLEST_SCALE)
    weight = (conv.weight / scale[:, None, None, None]).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT).to(torch.int8)
    bias = (conv.bias.double() / (scale.double() * given.scale)).round()
    limit = torch.iinfo(torch.int32)
    return IntegerWeights(weight, scale, bias.clamp(limit.min, limit.max).to(torch.int32))


@torch.no_grad()
def _observed(graph: DeployGraph, crops: Tensor) -> Iterator[tuple[str, Tensor]]:
    for batch in crops.split(BATCH):
        yield from graph.values(batch)
