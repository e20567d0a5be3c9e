"""int8 weights on activations of dynamic range, as a PyTorch module: what TFLite's hybrid convolutions compute.

What enters a convolution is quantized by the extremes that it has in this one image; sums are exact, and everything
else is float32. This module is the reference of files of the precision 'int8-dynamic': a value that lies between two
integers may fall to another side there, since float32 sums depend on their order.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.deploy import INPUT, Conv, DeployGraph
from compress.quantization.scheme import HIGH, LOW, Quantization

LEVELS = HIGH - LOW


class DynamicStudent(nn.Module):
    """Runs a deploy graph with a student's integer weights and float biases.

    forward: (1, 3, H, W) in [0, 1] to (1, 3, s*H, s*W) in [0, 1]; the extremes are those of one image.
    """

    def __init__(self, graph: DeployGraph, quantization: Quantization):
        super().__init__()
        self.graph, self.quantization, self.scale = graph, quantization, graph.scale

    @torch.no_grad()
    def forward(self, lr: Tensor) -> Tensor:
        values = {INPUT: lr.float()}
        for name, operator, inputs in self.graph.steps():
            arguments = [values[i] for i in inputs]
            values[name] = (
                self._conv(name, operator, *arguments) if isinstance(operator, Conv) else operator(*arguments)
            )
        return values[self.graph.output]

    def _conv(self, name: str, operator: Conv, x: Tensor) -> Tensor:
        layer, (inverse, zero) = self.quantization.layers[name], dynamic_range(x)
        centred = (x * inverse).round().add(zero).clamp(LOW, HIGH) - zero
        total = F.conv2d(centred.double(), layer.weight.double(), padding=operator.padding).float()
        y = total * (layer.scale * (1 / inverse))[:, None, None] + operator.bias[:, None, None]
        return F.relu(y) if operator.activation == "relu" else y


def dynamic_range(x: Tensor) -> tuple[Tensor, int]:
    """The inverse of the scale (float32) and the zero point of the values of one image, as XNNPACK chooses them.

    The range holds 0. The zero point is taken from the end whose rounding error is the smaller one.
    """
    low, high = x.min().clamp(max=0), x.max().clamp(min=0)
    if low == high:
        return torch.ones(()), 0
    inverse = LEVELS / (high - low)
    from_low, from_high = LOW - low * inverse, HIGH - high * inverse
    error = (LOW + low * inverse) + (HIGH + high * inverse)
    zero = from_low if error > 0 else from_high
    return inverse, int(zero.clamp(LOW, HIGH).round())
