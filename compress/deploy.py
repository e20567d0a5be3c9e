"""The deploy graph: the few operators a student consists of once training is over.

A network that can ship describes itself as a `DeployGraph`: batch norm folded, branches merged, output clipped.
Quantizers, exporters and cost figures all work on this one list of steps, never on the training network.

Tensors are NCHW. Channels before a `DepthToSpace` are in TFLite's order (r, r, C), which is ONNX's DCR mode;
`shuffle_order` gives the permutation that turns a convolution trained for `nn.PixelShuffle` (C, r, r) into it.
"""

import math
from collections import deque
from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Activation = Literal["none", "relu"]
INPUT = "lr"


class Conv(nn.Module):
    """Convolution of stride 1 with zero 'same' padding, bias, and a fused activation.

    Args:
        weight: (out, in, k, k), k odd.
        bias: (out,).
        activation: applied to the sum.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, weight: Tensor, bias: Tensor, activation: Activation = "none"):
        super().__init__()
        self.register_buffer("weight", weight.detach().float().contiguous().clone())
        self.register_buffer("bias", bias.detach().float().clone())
        self.activation: Activation = activation

    @property
    def padding(self) -> int:
        return self.weight.shape[-1] // 2

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv2d(x, self.weight, self.bias, padding=self.padding)
        return F.relu(y) if self.activation == "relu" else y


class PReLU(nn.Module):
    """x where it is positive, else `slope` * x; one slope for all channels."""

    def __init__(self, slope: float):
        super().__init__()
        self.slope = slope

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x, self.slope)


class Add(nn.Module):
    """Sum of two tensors of the same shape."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Repeat(nn.Module):
    """The input repeated `times` times along the channels: (N, C, H, W) to (N, times * C, H, W)."""

    def __init__(self, times: int):
        super().__init__()
        self.times = times

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x] * self.times, dim=1)


class DepthToSpace(nn.Module):
    """(N, r*r*C, H, W) to (N, C, r*H, r*W), channels in the order (r, r, C)."""

    def __init__(self, block: int):
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        r = self.block
        x = x.reshape(n, r, r, c // (r * r), h, w).permute(0, 3, 4, 1, 5, 2)
        return x.reshape(n, c // (r * r), h * r, w * r)


class Sigmoid(nn.Module):
    """Logistic function; (tanh(x) + 1) / 2 = sigmoid(2x) makes it the deploy form of a tanh output."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.sigmoid(x)


class Clip(nn.Module):
    """Clips to the value range of pixels, [0, 1]."""

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(0, 1)


class DeployGraph(nn.Module):
    """Named steps in order, each with the names of its inputs; `INPUT` is the LR image, the last step the SR image.

    forward: (N, 3, H, W) in [0, 1] to (N, 3, s*H, s*W) in [0, 1], s = `scale`.
    """

    def __init__(self, scale: int):
        super().__init__()
        self.scale = scale
        self.operators = nn.ModuleDict()
        self.inputs: dict[str, tuple[str, ...]] = {}

    def add(self, name: str, operator: nn.Module, *inputs: str) -> str:
        """Appends a step and returns its name. Raises ValueError for a name used twice or an unknown input."""
        known = {INPUT, *self.inputs}
        if name in known or not inputs or not set(inputs) <= known:
            raise ValueError(f"step {name!r} with inputs {inputs} does not fit a graph of {sorted(known)}")
        self.operators[name] = operator
        self.inputs[name] = inputs
        return name

    def steps(self) -> Iterator[tuple[str, nn.Module, tuple[str, ...]]]:
        """(name, operator, names of its inputs), in order of execution."""
        for name, inputs in self.inputs.items():
            yield name, self.operators[name], inputs

    @property
    def output(self) -> str:
        return next(reversed(self.inputs))

    def values(self, lr: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Runs the graph and yields the value of `INPUT` and then of every step, in order."""
        values = {INPUT: lr}
        yield INPUT, lr
        for name, operator, inputs in self.steps():
            values[name] = operator(*(values[i] for i in inputs))
            yield name, values[name]

    def forward(self, lr: Tensor) -> Tensor:
        _, sr = deque(self.values(lr), maxlen=1)[0]
        return sr

    def parameters_count(self) -> int:
        """Number of weights and biases that ship."""
        return sum(o.weight.numel() + o.bias.numel() for _, o, _ in self.steps() if isinstance(o, Conv))

    def _resolutions(self) -> dict[str, int]:
        """Resolution of every value as a multiple of the LR image's."""
        resolution = {INPUT: 1}
        for name, operator, inputs in self.steps():
            factor = operator.block if isinstance(operator, DepthToSpace) else 1
            resolution[name] = resolution[inputs[0]] * factor
        return resolution

    def macs(self, lr_height: int, lr_width: int) -> int:
        """Multiply-accumulates of the convolutions for one LR image of that size."""
        resolution = self._resolutions()
        return (
            lr_height
            * lr_width
            * sum(o.weight.numel() * resolution[name] ** 2 for name, o, _ in self.steps() if isinstance(o, Conv))
        )

    def receptive_radius(self) -> int:
        """How far, in LR pixels, an output pixel looks beyond the LR pixel that it lies in.

        Sum over the longest path of (k - 1) / 2 divided by the resolution of the layer, rounded up: the overlap
        that tiles need to give the full frame's result.
        """
        resolution, reach = self._resolutions(), {INPUT: 0.0}
        for name, operator, inputs in self.steps():
            own = operator.padding / resolution[name] if isinstance(operator, Conv) else 0.0
            reach[name] = max(reach[i] for i in inputs) + own
        return math.ceil(reach[self.output] - 1e-9)


def shuffle_order(channels: int, block: int) -> Tensor:
    """Output channels of a convolution before PixelShuffle (C, r, r), listed in DepthToSpace's order (r, r, C)."""
    return torch.arange(channels).reshape(channels // block**2, block**2).t().reshape(-1)


def fold_batch_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the convolution that equals `norm(conv(x))` with the running statistics (in float64)."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight.double() / (norm.running_var.double() + norm.eps).sqrt()
    bias = torch.zeros(len(conv.weight)) if conv.bias is None else conv.bias
    folded = norm.bias.double() + (bias.double() - norm.running_mean.double()) * factor
    return (conv.weight.double() * factor[:, None, None, None]).float(), folded.float()
