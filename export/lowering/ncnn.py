"""The deploy graph as a torch module that pnnx turns into native ncnn layers.

pnnx knows PyTorch's pixel shuffle, whose channels lie in the order (C, r, r): the convolutions before one give them in it.
Channels are repeated by a convolution of 1x1 whose weights are ones and zeros.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid, shuffle_order


class NcnnGraph(nn.Module):
    """A deploy graph in operators that have a native ncnn layer. (1, 3, H, W) in [0, 1] to (1, 3, s*H, s*W)."""

    def __init__(self, graph: DeployGraph):
        super().__init__()
        self.steps, self.output = list(graph.steps()), graph.output
        channels = _channels(graph)
        orders = _orders(graph, channels)
        for name, operator, inputs in self.steps:
            order = orders.get(name, slice(None))
            if isinstance(operator, Conv):
                self.register_buffer(f"{name}_weight", operator.weight[order])
                self.register_buffer(f"{name}_bias", operator.bias[order])
            elif isinstance(operator, Repeat):
                ones = torch.eye(channels[inputs[0]]).repeat(operator.times, 1)
                self.register_buffer(f"{name}_weight", ones[order, :, None, None])

    def forward(self, lr: Tensor) -> Tensor:
        values = {INPUT: lr}
        for name, operator, inputs in self.steps:
            values[name] = self._computed(name, operator, [values[one] for one in inputs])
        return values[self.output]

    def _computed(self, name: str, operator: nn.Module, x: list[Tensor]) -> Tensor:
        if isinstance(operator, Conv):
            weight, bias = self.get_buffer(f"{name}_weight"), self.get_buffer(f"{name}_bias")
            y = F.conv2d(x[0], weight, bias, padding=operator.padding)
            return F.relu(y) if operator.activation == "relu" else y
        if isinstance(operator, Repeat):
            return F.conv2d(x[0], self.get_buffer(f"{name}_weight"))
        if isinstance(operator, DepthToSpace):
            return F.pixel_shuffle(x[0], operator.block)
        if isinstance(operator, (PReLU, Add, Sigmoid, Clip)):
            return operator(*x)
        raise TypeError(f"no ncnn form of {type(operator).__name__}")


def _channels(graph: DeployGraph) -> dict[str, int]:
    """Channels of every value."""
    channels = {INPUT: 3}
    for name, operator, inputs in graph.steps():
        channels[name] = channels[inputs[0]]
        if isinstance(operator, Conv):
            channels[name] = len(operator.weight)
        elif isinstance(operator, Repeat):
            channels[name] *= operator.times
        elif isinstance(operator, DepthToSpace):
            channels[name] //= operator.block**2
    return channels


def _orders(graph: DeployGraph, channels: dict[str, int]) -> dict[str, Tensor]:
    """For values that a pixel shuffle takes, and those they are made of channel by channel: where the deploy graph has
    the channels, in PixelShuffle's order. Values that are not named keep their order.

    Raises:
        ValueError: a value that is needed in two orders; no graph of `compress.models` has one.
    """
    orders: dict[str, Tensor] = {}
    kept: set[str] = {graph.output}
    for name, operator, inputs in reversed(list(graph.steps())):
        wanted = orders.get(name)
        if isinstance(operator, (Conv, Repeat, DepthToSpace)):  # what comes before them is in an order of its own
            wanted = None
        if isinstance(operator, DepthToSpace):
            wanted = shuffle_order(channels[inputs[0]], operator.block).argsort()
        for one in inputs:
            if wanted is None:
                kept.add(one)
            elif not torch.equal(orders.setdefault(one, wanted), wanted):
                raise ValueError(f"step {one!r} is needed in two orders of its channels")
    if both := kept & orders.keys():
        raise ValueError(f"steps {sorted(both)} are needed in two orders of their channels")
    return orders
