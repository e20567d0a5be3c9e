"""Bias correction: what rounding shifts on average goes back through the biases.

Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction" (ICCV 2019), section 4.2, in the
empirical form of their appendix D: the expected error of every channel is measured on real content, layer by layer.
"""

import dataclasses
from collections import Counter

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.deploy import INPUT, Conv, DeployGraph
from compress.quantization.integer import IntegerStudent, quantize
from compress.quantization.scheme import PIXELS, Quantization

BATCH = 4


@torch.no_grad()
def bias_corrected(graph: DeployGraph, quantization: Quantization, crops: Tensor) -> Quantization:
    """The quantization with other biases: the mean of every channel, before its activation, is the float network's.

    Both networks run side by side, so that each layer sees the errors that are left of those before it. Float steps of a
    mix have no integers and stay as they are.

    Args:
        graph: float; as it was before equalization.
        quantization: of it.
        crops: (N, 3, h, w) in [0, 1].
    """
    student, batches = IntegerStudent(graph, quantization), crops.split(BATCH)
    real, integer = {INPUT: list(batches)}, {INPUT: [quantize(batch, PIXELS) for batch in batches]}
    unread = Counter(value for _, _, inputs in student.graph.steps() for value in inputs)
    for name, operator, inputs in student.graph.steps():
        kind = student.quantization.of(name)
        if isinstance(operator, Conv) and kind != "float":
            errors = []
            for x, y in zip(real[inputs[0]], integer[inputs[0]], strict=True):
                wanted = F.conv2d(x, operator.weight, operator.bias, padding=operator.padding)
                found = student.sums(name, student.read(inputs[0], y, kind))
                errors.append((wanted - found).mean((2, 3), dtype=torch.float64))
            student.quantization = _shifted(student.quantization, name, inputs[0], torch.cat(errors).mean(0))
        real[name] = [operator(*x) for x in zip(*(real[value] for value in inputs), strict=True)]
        integer[name] = [student.step(name, list(x)) for x in zip(*(integer[value] for value in inputs), strict=True)]
        unread.subtract(inputs)
        for value in {value for value in inputs if not unread[value]}:
            del real[value], integer[value]
    return student.quantization


def _shifted(quantization: Quantization, step: str, given: str, error: Tensor) -> Quantization:
    layer = quantization.layers[step]
    unit = layer.scale.double() * quantization.activations[given].scale
    limit = torch.iinfo(torch.int32)
    bias = (layer.bias + error / unit).round().clamp(limit.min, limit.max).to(torch.int32)
    layers = {**quantization.layers, step: dataclasses.replace(layer, bias=bias)}
    return dataclasses.replace(quantization, layers=layers)
