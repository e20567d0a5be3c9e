"""The deploy graph as a torch module that ExecuTorch hands to XNNPACK as a whole.

In int8 every value is an int8 tensor, dequantized before and quantized after each operator with the student's own
scales, and weights are int8 buffers: XNNPACK makes integer operators of it. A depth-to-space is a view, a permutation and
a view; channels are repeated by a convolution of 1x1 whose weights are ones and zeros, because the partitioner
counts the inputs of a concatenation without those that are the same. Both keep every value as it is.
"""

import torch
import torch.ao.quantization.fx._decomposed
import torch.nn.functional as F
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.scheme import HIGH, LOW, WEIGHT_LIMIT, ActivationScale, Quantization

Q = torch.ops.quantized_decomposed
ONE = ActivationScale(1.0, 0)


class ExecutorchGraph(nn.Module):
    """A deploy graph in operators that XNNPACK takes.

    forward: (1, 3, H, W) to (1, 3, s*H, s*W); float32 in [0, 1], or with a quantization int8, pixel - 128.

    Args:
        graph, quantization: see `export.exporting.parts`.
        half: weights and arithmetic in float16 between the images.
        resizable: it is exported for images of any size. XNNPACK takes no views then, and ExecuTorch runs them.
    """

    def __init__(
        self, graph: DeployGraph, quantization: Quantization | None, *, half: bool = False, resizable: bool = False
    ):
        super().__init__()
        # a submodule called `graph` would hide the one of the module that torch.export makes
        self.steps, self.output, self.quantization = list(graph.steps()), graph.output, quantization
        self.real, self.resizable = torch.float16 if half else torch.float32, resizable
        channels = {INPUT: 3}
        for name, operator, inputs in self.steps:
            given = channels[inputs[0]]
            channels[name] = given
            if isinstance(operator, Conv):
                channels[name] = len(operator.weight)
                self._keep_convolution(name, operator, inputs[0])
            elif isinstance(operator, Repeat):
                channels[name] = given * operator.times
                ones = torch.eye(given).repeat(operator.times, 1)[:, :, None, None]
                self.register_buffer(f"{name}_weight", ones.to(torch.int8 if quantization else self.real))
            elif isinstance(operator, DepthToSpace):
                channels[name] = given // operator.block**2
            elif isinstance(operator, PReLU) and quantization:
                self.register_buffer(f"{name}_plus", torch.ones((given, 1, 1, 1), dtype=torch.int8))
                self.register_buffer(f"{name}_minus", -self.get_buffer(f"{name}_plus"))

    def _keep_convolution(self, name: str, operator: Conv, given: str) -> None:
        if self.quantization is None:
            self.register_buffer(f"{name}_weight", operator.weight.to(self.real))
            self.register_buffer(f"{name}_bias", operator.bias.to(self.real))
            return
        layer, scale = self.quantization.layers[name], self.quantization.activations[given].scale
        self.register_buffer(f"{name}_weight", layer.weight)
        self.register_buffer(f"{name}_scale", layer.scale)
        self.register_buffer(f"{name}_zero", torch.zeros(len(layer.scale), dtype=torch.int64))
        self.register_buffer(f"{name}_bias", (layer.bias.double() * layer.scale.double() * scale).float())

    def forward(self, lr: Tensor) -> Tensor:
        values = {INPUT: lr if self.quantization else lr.to(self.real)}
        for name, operator, inputs in self.steps:
            given = inputs[0]
            if isinstance(operator, DepthToSpace):
                values[name] = self._depth_to_space(operator.block, given, values[given])
            elif isinstance(operator, Clip) and self.quantization:  # int8 of scale 1/255 cannot leave [0, 1]
                values[name] = values[given]
            else:
                x = [self._dequantized(one, values[one]) for one in inputs]
                grid = given if isinstance(operator, Repeat) else name  # moves values only: same scale
                values[name] = self._quantized(grid, self._computed(name, operator, given, x))
        sr = values[self.output]
        return sr if self.quantization else sr.to(torch.float32)

    def _computed(self, name: str, operator: nn.Module, given: str, x: list[Tensor]) -> Tensor:
        if isinstance(operator, Conv):
            y = F.conv2d(x[0], self._weight(name), self.get_buffer(f"{name}_bias"), padding=operator.padding)
            return F.relu(y) if operator.activation == "relu" else y
        if isinstance(operator, PReLU):
            if self.quantization:
                return self._integer_prelu(name, operator.slope, self.quantization.activations[given], x[0])
            return F.leaky_relu(x[0], operator.slope)
        if isinstance(operator, Add):
            return x[0] + x[1]
        if isinstance(operator, Sigmoid):
            return torch.sigmoid(x[0])
        if isinstance(operator, Clip):
            return x[0].clamp(0, 1)
        if isinstance(operator, Repeat):
            ones = self.get_buffer(f"{name}_weight")
            return F.conv2d(x[0], _dequantized(ones, ONE) if self.quantization else ones)
        raise TypeError(f"no ExecuTorch form of {type(operator).__name__}")

    def _depth_to_space(self, block: int, given: str, x: Tensor) -> Tensor:
        """As `DepthToSpace`, of integers where there are any: whoever runs a step of it runs it on those."""
        _, c, h, w = x.shape
        c //= block**2
        x = self._viewed(given, x, (1, block, block, c, h, w))
        x = self._quantized(given, torch.permute_copy(self._dequantized(given, x), (0, 3, 4, 1, 5, 2)))
        return self._viewed(given, x, (1, c, h * block, w * block))

    def _viewed(self, given: str, x: Tensor, shape: tuple[int, ...]) -> Tensor:
        if self.resizable:
            return x.reshape(shape)
        return self._quantized(given, self._dequantized(given, x).reshape(shape))

    def _weight(self, name: str) -> Tensor:
        weight = self.get_buffer(f"{name}_weight")
        if self.quantization is None:
            return weight
        scale, zero = self.get_buffer(f"{name}_scale"), self.get_buffer(f"{name}_zero")
        return Q.dequantize_per_channel(weight, scale, zero, 0, -WEIGHT_LIMIT, WEIGHT_LIMIT, torch.int8)

    def _integer_prelu(self, name: str, slope: float, given: ActivationScale, x: Tensor) -> Tensor:
        """relu(x) - relu(-slope * x), which rounds once, as the student does.

        XNNPACK's int8 leaky ReLU is not open to ExecuTorch, which would compute it in float32. A convolution of each
        channel with 1 or -1 relabels integers with another scale, and a zero point of -128 cuts off what is negative.
        """
        plus, minus = self.get_buffer(f"{name}_plus"), self.get_buffer(f"{name}_minus")
        positive = _relabelled(x, plus, 1.0, given.scale)
        if slope == 0:
            return F.conv2d(positive, _dequantized(plus, ONE), groups=len(plus))
        negative = _relabelled(x, minus, abs(slope), given.scale)
        return positive - negative if slope > 0 else positive + negative

    def _dequantized(self, name: str, value: Tensor) -> Tensor:
        return _dequantized(value, self.quantization.activations[name]) if self.quantization else value

    def _quantized(self, name: str, value: Tensor) -> Tensor:
        return _quantized(value, self.quantization.activations[name]) if self.quantization else value


def _relabelled(x: Tensor, signs: Tensor, factor: float, scale: float) -> Tensor:
    """relu(sign * factor * x), the integers of x, or their mirror, without its zero point."""
    grid = ActivationScale(scale * factor, LOW)
    product = F.conv2d(x, _dequantized(signs, ActivationScale(factor, 0)), groups=len(signs))
    return _dequantized(_quantized(product, grid), grid)


def _quantized(x: Tensor, grid: ActivationScale) -> Tensor:
    return Q.quantize_per_tensor(x, grid.scale, grid.zero_point, LOW, HIGH, torch.int8)


def _dequantized(integers: Tensor, grid: ActivationScale) -> Tensor:
    return Q.dequantize_per_tensor(integers, grid.scale, grid.zero_point, LOW, HIGH, torch.int8)
