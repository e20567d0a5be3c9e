"""The int8 student as a PyTorch module: integer arithmetic, step by step, as a phone's kernels do it.

Accumulations are sums of products of integers; a float64 convolution holds them exactly. Requantization multiplies by
a float32 scale and rounds half to even, as XNNPACK does. This module is the reference that exported files are held
against, counted in LSB.
"""

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.scheme import HIGH, LOW, PIXELS, ActivationScale, IntegerWeights, Quantization

EXACT_IN_FLOAT32 = 2**24


class IntegerStudent(nn.Module):
    """Runs a deploy graph in int8.

    forward: (N, 3, H, W) in [0, 1] to (N, 3, s*H, s*W) in [0, 1], both rounded to multiples of 1/255.

    Raises:
        ValueError: the quantization lacks a value or layer of the graph, or its shapes differ.
    """

    def __init__(self, graph: DeployGraph, quantization: Quantization):
        super().__init__()
        self.graph, self.quantization, self.scale = graph, quantization, graph.scale
        for name, operator, _ in graph.steps():
            if name not in quantization.activations:
                raise ValueError(f"the quantization has no scale for {name!r}")
            if isinstance(operator, Conv):
                layer = quantization.layers.get(name)
                if layer is None or layer.weight.shape != operator.weight.shape:
                    raise ValueError(f"the quantization has no fitting integer weights for {name!r}")
        for value in (INPUT, graph.output):
            if quantization.activations.get(value) != PIXELS:
                raise ValueError(f"the image {value!r} must have scale 1/255 and zero point {LOW}")

    def forward(self, lr: Tensor) -> Tensor:
        _, sr = deque(self.integers(lr), maxlen=1)[0]
        return dequantize(sr, PIXELS)

    @torch.no_grad()
    def integers(self, lr: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yields (name, integer values as float32) of the input and of every step, in order."""
        scales = self.quantization.activations
        values = {INPUT: quantize(lr.float(), scales[INPUT])}
        yield INPUT, values[INPUT]
        for name, operator, inputs in self.graph.steps():
            arguments = [values[i] for i in inputs]
            values[name] = self._run(name, operator, arguments, [scales[i] for i in inputs], scales[name])
            yield name, values[name]

    def _run(
        self, name: str, operator: nn.Module, x: list[Tensor], given: list[ActivationScale], wanted: ActivationScale
    ) -> Tensor:
        if isinstance(operator, Conv):
            return _conv(x[0], self.quantization.layers[name], operator, given[0], wanted)
        if isinstance(operator, Add):
            return add(x[0] - given[0].zero_point, given[0].scale, x[1] - given[1].zero_point, given[1].scale, wanted)
        if isinstance(operator, PReLU):
            return prelu(x[0] - given[0].zero_point, given[0].scale, operator.slope, wanted)
        if isinstance(operator, Sigmoid):
            return quantize(torch.sigmoid(dequantize(x[0], given[0])), wanted)
        if isinstance(operator, Clip):  # a value of scale 1/255 and zero point -128 cannot leave [0, 1]
            return x[0] if given[0] == wanted else quantize(dequantize(x[0], given[0]).clamp(0, 1), wanted)
        if isinstance(operator, (Repeat, DepthToSpace)):
            return operator(x[0])  # only moves values: same scale by construction
        raise TypeError(f"no integer form of {type(operator).__name__}")


def quantize(x: Tensor, scale: ActivationScale) -> Tensor:
    """Real values to integers in [-128, 127], as float32; rounds half to even."""
    return (x / scale.scale).round().add(scale.zero_point).clamp(LOW, HIGH)


def dequantize(integers: Tensor, scale: ActivationScale) -> Tensor:
    """Integers to real values, float32."""
    return (integers - scale.zero_point) * scale.scale


def add(a: Tensor, a_scale: float, b: Tensor, b_scale: float, wanted: ActivationScale, sign: int = 1) -> Tensor:
    """a * a_scale + sign * b * b_scale for integers without zero point, rounded once.

    XNNPACK's arithmetic: both ratios to the output scale as fixed-point factors of 21 bits, one shift, half rounds up.
    """
    ratios = [float(np.float32(scale) / np.float32(wanted.scale)) for scale in (a_scale, b_scale)]
    shift = 21 - math.frexp(max(ratios))[1]
    left, right = (round(math.ldexp(ratio, shift)) for ratio in ratios)
    half = 1 << (shift - 1)
    kind = torch.int32 if 255 * (left + right) + half < 2**31 else torch.int64  # the first is several times faster
    total = a.to(kind).mul_(left).add_(b.to(kind), alpha=sign * right).add_(half)
    return total.bitwise_right_shift_(shift).add_(wanted.zero_point).clamp_(LOW, HIGH).float()


def prelu(x: Tensor, scale: float, slope: float, wanted: ActivationScale) -> Tensor:
    """relu(x) - slope * relu(-x) for integers without zero point, rounded once."""
    if slope == 0:
        return quantize(x.relu() * scale, wanted)
    return add(x.relu(), scale, (-x).relu(), abs(slope) * scale, wanted, sign=-1 if slope > 0 else 1)


def _conv(x: Tensor, layer: IntegerWeights, operator: Conv, given: ActivationScale, wanted: ActivationScale) -> Tensor:
    """Convolution of integers; zero padding is padding with the zero point, which is a real 0."""
    weight = layer.weight
    largest = 255 * int(weight.abs().sum((1, 2, 3), dtype=torch.int64).max()) + int(layer.bias.abs().max())
    exact = torch.float32 if largest < EXACT_IN_FLOAT32 else torch.float64
    total = F.conv2d((x - given.zero_point).to(exact), weight.to(exact), layer.bias.to(exact), padding=operator.padding)
    factor = (torch.tensor(given.scale, dtype=torch.float32) * layer.scale) / wanted.scale
    real = total.float() * factor[:, None, None]
    if operator.activation == "relu":
        real = F.relu(real)
    return real.round().add(wanted.zero_point).clamp(LOW, HIGH)
