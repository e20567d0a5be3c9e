"""The int8 student as a PyTorch module: integer arithmetic, step by step, as a phone's kernels do it.

Accumulations are sums of products of integers; a float64 convolution holds them exactly. Requantization multiplies by
a float32 scale and rounds half to even, as XNNPACK does. This module is the reference that exported files are held
against, counted in LSB.

Steps in int16 do the same with 16-bit values, steps in float compute on real numbers; what they read of others is
converted. Files agree to about one step of 1/32768 of a value's range there, far below one of the image.
"""

import math
from collections import deque
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.equalization import equalized
from compress.quantization.scheme import HIGH, LIMITS, LOW, PIXELS, ActivationScale, Arithmetic, Quantization

EXACT_IN_FLOAT32 = 2**24


class IntegerStudent(nn.Module):
    """Runs a deploy graph in int8, or in the mix of arithmetics that the quantization says.

    forward: (N, 3, H, W) in [0, 1] to (N, 3, s*H, s*W) in [0, 1], both rounded to multiples of 1/255.

    Attributes:
        graph: equalized, if the quantization says so.

    Raises:
        ValueError: the quantization lacks a value or layer of the graph, or its shapes differ.
    """

    def __init__(self, graph: DeployGraph, quantization: Quantization):
        super().__init__()
        self.graph = equalized(graph, quantization.equalization) if quantization.equalization else graph
        self.quantization, self.scale = quantization, graph.scale
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
        if INPUT in quantization.arithmetic:
            raise ValueError(f"the image {INPUT!r} must be int8")

    def forward(self, lr: Tensor) -> Tensor:
        name, sr = deque(self.integers(lr), maxlen=1)[0]
        return dequantize(self.read(name, sr, "int8"), PIXELS)

    @torch.no_grad()
    def integers(self, lr: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Yields (name, integer values as float32, real ones of a float step) of the input and of every step, in order."""
        values = {INPUT: quantize(lr.float(), PIXELS)}
        yield INPUT, values[INPUT]
        for name, _, inputs in self.graph.steps():
            values[name] = self.step(name, [values[i] for i in inputs])
            yield name, values[name]

    def step(self, name: str, x: list[Tensor]) -> Tensor:
        """What one step makes of the values that its inputs' steps made."""
        kind, inputs, operator = self.quantization.of(name), self.graph.inputs[name], self.graph.operators[name]
        x = [self.read(value, one, kind) for value, one in zip(inputs, x, strict=True)]
        if kind == "float":
            return operator(*x)
        given = [self.quantization.grid(value, kind) for value in inputs]
        return self._run(name, operator, x, given, self.quantization.grid(name, kind), kind)

    def read(self, value: str, x: Tensor, kind: Arithmetic) -> Tensor:
        """A value as a step of that kind reads it."""
        own = "int8" if value == INPUT else self.quantization.of(value)
        if own == kind:
            return x
        real = x if own == "float" else dequantize(x, self.quantization.grid(value, own))
        return real if kind == "float" else quantize(real, self.quantization.grid(value, kind), kind)

    def sums(self, name: str, x: Tensor) -> Tensor:
        """The real values (float64) that a convolution in integers rounds, before its activation.

        Args:
            name: its step.
            x: what it reads, in its own arithmetic.
        """
        operator, layer = self.graph.operators[name], self.quantization.layers[name]
        assert isinstance(operator, Conv)
        given = self.quantization.grid(self.graph.inputs[name][0], self.quantization.of(name))
        unit = layer.scale.double() * given.scale
        return _conv(x, layer.weight, self._bias(name), operator, given).double() * unit[:, None, None]

    def _bias(self, name: str) -> Tensor:
        """In units of (input scale * weight scale), float64; int32 for int8, and wider for int16, whose unit is finer."""
        bias = self.quantization.layers[name].bias.double()
        if self.quantization.of(name) == "int8":
            return bias
        value = self.graph.inputs[name][0]
        return (bias * self.quantization.activations[value].scale / self.quantization.wide[value]).round()

    def _run(
        self,
        name: str,
        operator: nn.Module,
        x: list[Tensor],
        given: list[ActivationScale],
        wanted: ActivationScale,
        kind: Arithmetic,
    ) -> Tensor:
        if isinstance(operator, Conv):
            layer = self.quantization.layers[name]
            factor = (torch.tensor(given[0].scale, dtype=torch.float32) * layer.scale) / wanted.scale
            real = _conv(x[0], layer.weight, self._bias(name), operator, given[0]).float() * factor[:, None, None]
            if operator.activation == "relu":
                real = F.relu(real)
            return real.round().add(wanted.zero_point).clamp(*LIMITS[kind])
        if isinstance(operator, (Repeat, DepthToSpace)):
            return operator(x[0])  # only moves values: same scale by construction
        if isinstance(operator, Clip) and given[0] == wanted == PIXELS:
            return x[0]  # a value of scale 1/255 and zero point -128 cannot leave [0, 1]
        if kind == "int8" and isinstance(operator, Add):
            return add(x[0] - given[0].zero_point, given[0].scale, x[1] - given[1].zero_point, given[1].scale, wanted)
        if kind == "int8" and isinstance(operator, PReLU):
            return prelu(x[0] - given[0].zero_point, given[0].scale, operator.slope, wanted)
        if isinstance(operator, (Add, PReLU, Sigmoid, Clip)):
            return quantize(operator(*map(dequantize, x, given)), wanted, kind)
        raise TypeError(f"no integer form of {type(operator).__name__}")


def quantize(x: Tensor, scale: ActivationScale, kind: Arithmetic = "int8") -> Tensor:
    """Real values to integers in [-128, 127] or [-32768, 32767], as float32; rounds half to even."""
    return (x / scale.scale).round().add(scale.zero_point).clamp(*LIMITS[kind])


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


def _conv(x: Tensor, weight: Tensor, bias: Tensor, operator: Conv, given: ActivationScale) -> Tensor:
    """Sums of products of integers, exact; zero padding is padding with the zero point, which is a real 0."""
    x = x - given.zero_point
    largest = int(x.abs().max()) * int(weight.abs().sum((1, 2, 3), dtype=torch.int64).max()) + int(bias.abs().max())
    exact = torch.float32 if largest < EXACT_IN_FLOAT32 else torch.float64
    return F.conv2d(x.to(exact), weight.to(exact), bias.to(exact), padding=operator.padding)
