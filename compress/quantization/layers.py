"""Which of a network's own convolutions each convolution of its deploy graph is."""

import copy
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from compress.deploy import Conv


@dataclass(frozen=True)
class Layer:
    """A convolution of the deploy graph as a function of the network's own: gain * (weight, bias)[rows].

    Attributes:
        conv: name of the network's convolution.
        rows: its output channels in the order that ships; None where that is the network's.
        gain: factor of weight and bias.
        relu: whether a ReLU is fused.
    """

    conv: str
    rows: Tensor | None
    gain: float
    relu: bool

    def weights(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Weight and bias as they ship; differentiable in those of the network."""
        conv = cast(nn.Conv2d, network.get_submodule(self.conv))
        assert conv.bias is not None
        weight, bias = conv.weight, conv.bias
        if self.rows is not None:
            rows = self.rows.to(weight.device)
            weight, bias = weight[rows], bias[rows]
        return (weight, bias) if self.gain == 1 else (self.gain * weight, self.gain * bias)


@torch.no_grad()
def layers_of(network: nn.Module) -> dict[str, Layer]:
    """The layer behind every convolution of the deploy graph, by step name.

    Found by looking at two copies: in one all weights and biases are 1, which shows the gains; in the other every
    output channel has a number of its own, which shows where it went.

    Args:
        network: without branches and batch norm (`folded()`).

    Raises:
        ValueError: `deploy()` does something else to a convolution than to scale it and to reorder its outputs.
    """
    ones, numbered = copy.deepcopy(network), copy.deepcopy(network)
    origins: list[tuple[str, int]] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            numbers = torch.arange(len(origins), len(origins) + module.out_channels) + 1.0
            for parameter in ones.get_submodule(name).parameters():
                parameter.fill_(1)
            for parameter in numbered.get_submodule(name).parameters():
                parameter.copy_(numbers.reshape(-1, *[1] * (parameter.ndim - 1)).expand_as(parameter))
            origins += [(name, row) for row in range(module.out_channels)]
    gains, places, layers = ones.deploy().operators, numbered.deploy().operators, {}
    for step, operator, _ in network.deploy().steps():
        if isinstance(operator, Conv):
            gain = gains[step].bias[0].item()
            found = [origins[round(number / gain) - 1] for number in places[step].bias.tolist()]
            rows = [row for _, row in found]
            moved = None if rows == list(range(len(rows))) else torch.tensor(rows)
            layers[step] = layer = Layer(found[0][0], moved, gain, operator.activation == "relu")
            if not all(map(torch.equal, layer.weights(network), (operator.weight, operator.bias))):
                raise ValueError(f"the step {step!r} of the deploy graph is no reordered convolution of the network")
    return layers
