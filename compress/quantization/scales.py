"""Where scales go: one for every value of a deploy graph that is computed, and the integers of its convolutions."""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from compress.deploy import INPUT, Clip, Conv, DeployGraph, DepthToSpace, Repeat, Sigmoid
from compress.quantization.observers import RULES, Histogram, RangeRule, scale_of
from compress.quantization.scheme import (
    LIMITS,
    PIXELS,
    WEIGHT_LIMIT,
    WIDE_PIXELS,
    ActivationScale,
    IntegerWeights,
)

BATCH = 4
SMALLEST_SCALE = 1e-9  # of a weight channel that is all zeros
MOVES = (Repeat, DepthToSpace)  # operators that only move values
CLIPPED = torch.linspace(1, 0.9, 51)  # of the largest weight; the widest first, which wins a tie
HEADROOM = 1.25  # of int16 beyond what was observed: costs a third of a bit of sixteen
WIDE_SIGMOID = 1 / 32768  # what the TFLite specification asks of LOGISTIC


def activation_scales(graph: DeployGraph, crops: Tensor, rule: RangeRule) -> dict[str, ActivationScale]:
    """A scale for the input and every step, chosen for those values that have one of their own."""
    return chosen_scales(graph, observed(graph, crops), rule)


def observed(graph: DeployGraph, crops: Tensor) -> dict[str, Histogram]:
    """Of every value that has a scale of its own, over crops (N, 3, h, w) in [0, 1]."""
    histograms = {owner: Histogram() for owner in scale_owners(graph).values() if owner != INPUT}
    for name, value in _values(graph, crops):
        if name in histograms:
            histograms[name].see_extremes(value)
    for name, value in _values(graph, crops):
        if name in histograms:
            histograms[name].count(value)
    return histograms


def chosen_scales(
    graph: DeployGraph, histograms: Mapping[str, Histogram], rule: RangeRule
) -> dict[str, ActivationScale]:
    """The int8 scale of the input and every step."""
    chosen = {name: scale_of(*RULES[rule](histogram)) for name, histogram in histograms.items()}
    return {name: PIXELS if owner == INPUT else chosen[owner] for name, owner in scale_owners(graph).items()}


def wide_scales(graph: DeployGraph, histograms: Mapping[str, Histogram]) -> dict[str, float]:
    """The int16 scale of the input and every step: the observed extremes and some headroom; pixels without rounding."""
    found = {}
    for name, owner in scale_owners(graph).items():
        if name != INPUT and isinstance(graph.operators[name], Sigmoid):
            found[name] = WIDE_SIGMOID
        elif owner == INPUT:
            found[name] = WIDE_PIXELS
        else:
            largest = max(-histograms[owner].low, histograms[owner].high) or 1.0
            found[name] = HEADROOM * largest / LIMITS["int16"][1]
    return found


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


def clipped_scales(weight: Tensor) -> Tensor:
    """Scales with the least squared error per output channel, of those that clip its largest weights by up to a tenth."""
    largest = channel_scales(weight)
    tried = largest * CLIPPED[:, None]
    errors = []
    for scale in tried[..., None, None, None]:
        rounded = (weight / scale).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) * scale
        errors.append((rounded - weight).square().sum((1, 2, 3)))
    best = torch.stack(errors).argmin(0)
    return tried.gather(0, best[None])[0]


@torch.no_grad()
def _values(graph: DeployGraph, crops: Tensor) -> Iterator[tuple[str, Tensor]]:
    for batch in crops.split(BATCH):
        yield from graph.values(batch)
