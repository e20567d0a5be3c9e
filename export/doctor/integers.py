"""What int8 will lose: told from the weights, and measured where there are calibration crops."""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.checkpoint import Student
from compress.deploy import INPUT, Conv, DeployGraph
from compress.quantization.integer import dequantize, quantize
from compress.quantization.scales import activation_scales, channel_scales, scale_owners
from compress.quantization.scheme import WEIGHT_LIMIT, ActivationScale
from export.audit.findings import Finding

POOR_WEIGHTS = 30.0  # dB, of a channel: the zoo's student, which loses 0.02 dB in int8, has 32 to 43
POOR_LAYER = 25.0  # dB, measured, of a layer's output when only its weights are rounded: the zoo's student has 31 to 39
POOR_VALUES = 25.0  # dB: int8 values of a trained student have 30 and more
WIDE = 32.0  # largest channel over smallest: with one scale for all the smallest keeps 8 levels
FEW_LEVELS = 8  # of 255, that a channel uses
MANY_CHANNELS = 0.25
OUTLIERS = 4.0  # largest value over the 99.9th percentile


def weight_findings(graph: DeployGraph) -> Iterator[Finding]:
    """Ranges of the weights, channel by channel."""
    for name, step, _ in graph.steps():
        if not isinstance(step, Conv):
            continue
        channels = _decibels(
            step.weight.square().sum((1, 2, 3)), (_rounded(step.weight) - step.weight).square().sum((1, 2, 3))
        )
        worst = int(channels.argmin())
        if float(channels[worst]) < POOR_WEIGHTS:
            weights = step.weight[worst].abs()
            yield Finding(
                "warning",
                name,
                f"weights of {float(channels[worst]):.0f} dB in int8 in channel {worst}, where one is "
                f"{float(weights.max() / weights.median().clamp_min(1e-12)):.0f} times the median",
                "the largest weight of a channel sets its int8 step, and the others share what levels are left",
                "fine-tune with quantization in the loop, or with more weight decay",
            )
        largest = step.weight.abs().amax((1, 2, 3))
        alive = largest[largest > 0]
        if len(alive) < len(largest):
            yield Finding(
                "note",
                name,
                f"{len(largest) - len(alive)} of {len(largest)} channels with weights of zero only",
                "they cost as much as the others and say nothing",
                "remove them (`python -m compress.pruning.channels`)",
            )
        if len(alive) and float(alive.max() / alive.min()) > WIDE:
            yield Finding(
                "note",
                name,
                f"weights of one channel {float(alive.max() / alive.min()):.0f} times as large as those of another",
                "our files have a scale per channel; NPUs that know one scale per tensor leave the small channels a few "
                "levels",
                "nothing for CPU, GPU and ONNX; for such an NPU equalise the layers, or fine-tune with its scheme",
            )


@torch.no_grad()
def value_findings(student: Student, graph: DeployGraph, crops: Tensor) -> Iterator[Finding]:
    """What int8 costs the values between the layers, measured.

    Args:
        student: its own scales are used if it has them, else what `compress.quantization` would choose.
        graph: its float graph.
        crops: (N, 3, H, W) in [0, 1].
    """
    scales = student.quantization.activations if student.quantization else activation_scales(graph, crops, "mse")
    owners, values = scale_owners(graph), {}
    for name, value in graph.values(crops):
        values[name] = value
        step = graph.operators[name] if name != INPUT else None
        if isinstance(step, Conv):
            yield from _of_weights(name, step, values[graph.inputs[name][0]])
        if step is not None and name in scales and owners[name] == name:
            yield from _of_value(name, value, scales[name])


def _of_weights(name: str, step: Conv, given: Tensor) -> Iterator[Finding]:
    """What a layer's output loses when nothing but its weights is rounded; a constant is no signal."""
    output = F.conv2d(given, step.weight, padding=step.padding)
    error = F.conv2d(given, _rounded(step.weight) - step.weight, padding=step.padding)
    noise = float(_decibels(output.var((0, 2, 3)).sum(), error.square().mean((0, 2, 3)).sum()))
    if noise < POOR_LAYER:
        yield Finding(
            "warning",
            name,
            f"an output of {noise:.0f} dB when its weights alone are int8",
            "the error of this layer reaches the picture, whatever the scales of the values are",
            "fine-tune with quantization in the loop",
        )


def _of_value(name: str, value: Tensor, scale: ActivationScale) -> Iterator[Finding]:
    error = dequantize(quantize(value, scale), scale) - value
    noise = float(_decibels(value.square().sum(), error.square().sum()))
    largest, usual = float(value.abs().max()), _percentile(value.abs(), 0.999)
    if usual > 0 and largest / usual > OUTLIERS:
        yield Finding(
            "warning",
            name,
            f"outliers: the largest value is {largest / usual:.1f} times the 99.9th percentile",
            "either they are clipped, or all others get a coarser step",
            "calibrate with the rule mse or percentile, or fine-tune with quantization in the loop",
        )
    if noise < POOR_VALUES:
        yield Finding(
            "warning",
            name,
            f"values of {noise:.0f} dB in int8",
            "the error of this layer reaches the picture; 16-bit values for it cost latency on most phones",
            "fine-tune with quantization in the loop",
        )
    ranges = value.transpose(0, 1).flatten(1)
    levels = (ranges.amax(1) - ranges.amin(1)) / scale.scale
    few = int(((levels > 0) & (levels < FEW_LEVELS)).sum())
    if few > MANY_CHANNELS * len(levels):
        yield Finding(
            "warning",
            name,
            f"{few} of {len(levels)} channels use fewer than {FEW_LEVELS} of 255 levels",
            "one scale serves all channels of a value, so the small ones are rounded away",
            "equalise the layers before quantizing, or fine-tune with quantization in the loop",
        )


def _rounded(weight: Tensor) -> Tensor:
    """As int8 keeps it, with a scale per output channel."""
    scale = channel_scales(weight)[:, None, None, None]
    return (weight / scale).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT) * scale


def _decibels(signal: Tensor, noise: Tensor) -> Tensor:
    """Ratio of two powers; infinite without noise."""
    return 10 * (signal / noise).log10().nan_to_num(nan=torch.inf)


def _percentile(values: Tensor, share: float) -> float:
    flat = values.flatten()
    return float(flat.kthvalue(max(1, math.ceil(share * flat.numel()))).values)
