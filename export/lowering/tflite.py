"""The deploy graph as a torch module that litert-torch turns into native TFLite operators.

Left alone, litert-torch writes PixelShuffle as TRANSPOSE and RESHAPE of rank 6 and PReLU as four operators. Here two
custom torch operators are lowered to StableHLO custom calls named after the TFLite operators, which the converter
takes as they are. In int8, every value is followed by quantize and dequantize with the student's own scales; the
converter folds these into integer operators.
"""

import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from litert_converter.mlir import ir
from litert_converter.mlir.dialects import stablehlo
from litert_torch.backend.lowerings import registry
from litert_torch.backend.lowerings import utils as lowering
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.scheme import HIGH, LOW, WEIGHT_LIMIT, ActivationScale, Quantization

Q = torch.ops.quantized_decomposed


@torch.library.custom_op("pocketsr::depth_to_space", mutates_args=())
def depth_to_space(x: Tensor, block: int) -> Tensor:
    """TFLite's DEPTH_TO_SPACE: (N, H, W, r*r*C) to (N, r*H, r*W, C)."""
    n, h, w, c = x.shape
    out = c // block**2
    x = x.reshape(n, h, w, block, block, out).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(n, h * block, w * block, out).contiguous()


@depth_to_space.register_fake
def _(x: Tensor, block: int) -> Tensor:
    n, h, w, c = x.shape
    return x.new_empty(n, h * block, w * block, c // block**2)


@torch.library.custom_op("pocketsr::prelu", mutates_args=())
def prelu(x: Tensor, slope: Tensor) -> Tensor:
    """TFLite's PRELU: (N, H, W, C) with one slope per channel, shape (1, 1, C)."""
    return torch.where(x < 0, x * slope, x)


@prelu.register_fake
def _(x: Tensor, slope: Tensor) -> Tensor:
    return torch.empty_like(x)


@registry.lower(torch.ops.pocketsr.depth_to_space.default)
def _(context, x, block):  # type: ignore[no-untyped-def]
    size = ir.IntegerAttr.get(ir.IntegerType.get_signless(32), block)
    return _custom_call(context, "tfl.depth_to_space", [x], {"block_size": size})


@registry.lower(torch.ops.pocketsr.prelu.default)
def _(context, x, slope):  # type: ignore[no-untyped-def]
    return _custom_call(context, "tfl.prelu", [x, slope], {})


def _custom_call(context, name, inputs, attributes):  # type: ignore[no-untyped-def]
    return stablehlo.custom_call(
        result=lowering.node_meta_to_ir_types(context.node),
        inputs=inputs,
        call_target_name=ir.StringAttr.get(name),
        has_side_effect=ir.BoolAttr.get(False),
        backend_config=ir.StringAttr.get(str(ir.DictAttr.get(attributes))),
    )


class TfliteGraph(nn.Module):
    """A deploy graph in operators that have a native TFLite counterpart. (N, 3, H, W) in [0, 1] in and out."""

    def __init__(self, graph: DeployGraph, quantization: Quantization | None):
        super().__init__()
        self.graph, self.quantization = graph, quantization
        for name, operator, _ in graph.steps():
            if isinstance(operator, PReLU):
                width = _channels(graph, name)
                self.register_buffer(f"{name}_slope", torch.full((1, 1, width), operator.slope))
            if not isinstance(operator, Conv):
                continue
            if quantization:
                layer = quantization.layers[name]
                # float weights that quantize to the student's integers exactly: what the converter asks for
                self.register_buffer(f"{name}_weight", layer.weight.float() * layer.scale[:, None, None, None])
                self.register_buffer(f"{name}_scale", layer.scale)
                self.register_buffer(f"{name}_zero", torch.zeros(len(layer.scale), dtype=torch.int64))
                given = quantization.activations[graph.inputs[name][0]].scale
                self.register_buffer(f"{name}_bias", layer.bias.float() * layer.scale * given)
            else:
                self.register_buffer(f"{name}_weight", operator.weight)
                self.register_buffer(f"{name}_bias", operator.bias)

    def forward(self, lr: Tensor) -> Tensor:
        values = {INPUT: self._rounded(INPUT, lr)}
        for name, operator, inputs in self.graph.steps():
            arguments = [values[i] for i in inputs]
            if isinstance(operator, (Repeat, DepthToSpace)):  # moves values only: same scale
                values[name] = self._moved(operator, arguments[0], inputs[0])
            elif isinstance(operator, Clip) and self.quantization:  # int8 of scale 1/255 cannot leave [0, 1]
                values[name] = arguments[0]
            else:
                values[name] = self._rounded(name, self._computed(name, operator, arguments))
        return values[self.graph.output]

    def _computed(self, name: str, operator: nn.Module, x: list[Tensor]) -> Tensor:
        if isinstance(operator, Conv):
            y = F.conv2d(x[0], self._weight(name), self.get_buffer(f"{name}_bias"), padding=operator.padding)
            return F.relu(y) if operator.activation == "relu" else y
        if isinstance(operator, PReLU):
            return self._prelu(name, operator, x[0])
        if isinstance(operator, Add):
            return x[0] + x[1]
        if isinstance(operator, Sigmoid):
            return torch.sigmoid(x[0])
        if isinstance(operator, Clip):
            return F.relu(x[0]) - F.relu(x[0] - 1)  # clamp would be RELU_0_TO_1, which delegates refuse
        raise TypeError(f"no TFLite form of {type(operator).__name__}")

    def _prelu(self, name: str, operator: PReLU, x: Tensor) -> Tensor:
        if self.quantization:
            return self._integer_prelu(self.quantization.activations[self.graph.inputs[name][0]], operator.slope, x)
        slope = self.get_buffer(f"{name}_slope")
        return torch.ops.pocketsr.prelu(x.permute(0, 2, 3, 1), slope).permute(0, 3, 1, 2)

    def _integer_prelu(self, given: ActivationScale, slope: float, x: Tensor) -> Tensor:
        """relu(x) - relu(-slope * x), which rounds once: both products only relabel integers with another scale.

        LiteRT's own int8 LEAKY_RELU multiplies with 8-bit factors and is off by up to 1 LSB in every layer; int8 PRELU
        falls out of XNNPACK.
        """
        if slope == 0:
            return F.relu(x * _factor(1.0))
        positive, negative = _relabelled_relu(x, given, 1.0), _relabelled_relu(x, given, -abs(slope))
        return positive - negative if slope > 0 else positive + negative

    def _moved(self, operator: Repeat | DepthToSpace, x: Tensor, source: str) -> Tensor:
        if isinstance(operator, Repeat):
            for factor in _small_factors(operator.times):  # XNNPACK takes at most 5 inputs to CONCATENATION
                x = self._rounded(source, torch.cat([x] * factor, dim=1))
            return x
        return torch.ops.pocketsr.depth_to_space(x.permute(0, 2, 3, 1), operator.block).permute(0, 3, 1, 2)

    def _weight(self, name: str) -> Tensor:
        weight = self.get_buffer(f"{name}_weight")
        if not self.quantization:
            return weight
        grid = (self.get_buffer(f"{name}_scale"), self.get_buffer(f"{name}_zero"), 0, -WEIGHT_LIMIT, WEIGHT_LIMIT)
        return Q.dequantize_per_channel(Q.quantize_per_channel(weight, *grid, torch.int8), *grid, torch.int8)

    def _rounded(self, name: str, x: Tensor) -> Tensor:
        if not self.quantization:
            return x
        return _fake_quantized(x, self.quantization.activations[name])


def _fake_quantized(x: Tensor, scale: ActivationScale) -> Tensor:
    grid = (scale.scale, scale.zero_point, LOW, HIGH, torch.int8)
    return Q.dequantize_per_tensor(Q.quantize_per_tensor(x, *grid), *grid)


def _relabelled_relu(x: Tensor, given: ActivationScale, by: float) -> Tensor:
    """relu(by * x), the product taken with the integer 127 (or -127) of scale |by| / 127: x's integers, or their mirror."""
    zero = given.zero_point if by > 0 else -1 - given.zero_point
    return _fake_quantized(F.relu(x * _factor(by)), ActivationScale(given.scale * abs(by), zero))


def _factor(by: float) -> Tensor:
    return _fake_quantized(torch.full((1, 1, 1, 1), by), ActivationScale(abs(by) / HIGH, 0))


def _channels(graph: DeployGraph, name: str) -> int:
    """Channels of the value that a step computes, read off the convolution before it."""
    while not isinstance(graph.operators[name], Conv):
        name = graph.inputs[name][0]
    return len(graph.operators[name].weight)


def _small_factors(number: int) -> list[int]:
    """Prime factors, with two twos taken as a four: 16 is [4, 4], 9 is [3, 3]."""
    factors = []
    for factor in (4, 2, 3, 5):
        while number % factor == 0:
            factors.append(factor)
            number //= factor
    return factors if number == 1 else [*factors, number]
