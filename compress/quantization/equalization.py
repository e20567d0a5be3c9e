"""Cross-layer equalization: channels that differ in size share the 256 levels of their tensor more fairly.

Dividing a channel of a convolution's output by a positive factor and multiplying the weights that read it by the same
factor changes nothing in a float network, as long as only positively homogeneous steps (ReLU, PReLU, sums, shuffles)
lie between. This is section 4.1 of Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias
Correction" (ICCV 2019). Their factors balance the weights on both sides; ours balance observed values with the weights
that read them, as equation 4 of Xiao et al., "SmoothQuant" (ICML 2023), since weights that make a channel have a scale
of their own here and need no balance.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from compress.deploy import INPUT, Add, Conv, DeployGraph, DepthToSpace, PReLU, Repeat

BATCH = 4
LARGEST = 64.0
"""Of a factor, and its inverse the smallest: a channel that is hardly used must not make the weights that read it huge."""


@dataclass(frozen=True)
class Seam:
    """Values whose channels must be scaled alike: channel k of each by the factor k modulo `width`.

    Attributes:
        members: the values.
        producers: convolutions among them.
        consumers: convolutions that read them.
        width: factors that are free.
    """

    members: tuple[str, ...]
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    width: int


def seams(graph: DeployGraph) -> list[Seam]:
    """Where factors are free: everywhere but at the images and before steps that are not homogeneous (clip, sigmoid).

    One producer and one consumer are the pairs of Nagel et al.; sums tie the convolutions of a residual stream together.
    """
    group = {INPUT: INPUT}
    widths: dict[str, int] = {INPUT: 3}
    fixed = {INPUT, graph.output}
    for name, operator, inputs in graph.steps():
        group[name] = name
        widths[name] = len(operator.weight) if isinstance(operator, Conv) else widths[inputs[0]]
        if isinstance(operator, Repeat):
            widths[name] *= operator.times
        if isinstance(operator, DepthToSpace):
            widths[name] //= operator.block**2
        if isinstance(operator, Conv):
            continue
        if not isinstance(operator, (PReLU, Add, Repeat, DepthToSpace)):
            fixed |= {name, *inputs}
        for value in inputs:
            old, new = group[value], group[name]
            group = {one: new if of == old else of for one, of in group.items()}
    closed = {group[value] for value in fixed}
    found = []
    for label in dict.fromkeys(group.values()):
        members = [value for value, of in group.items() if of == label]
        producers = tuple(value for value in members if value != INPUT and isinstance(graph.operators[value], Conv))
        consumers = tuple(
            name for name, operator, inputs in graph.steps() if isinstance(operator, Conv) and inputs[0] in members
        )
        if label not in closed and consumers:
            found.append(Seam(tuple(members), producers, consumers, min(widths[value] for value in members)))
    return found


def equalized(graph: DeployGraph, factors: Mapping[str, Tensor]) -> DeployGraph:
    """A copy of the graph that computes the same function with the outputs of convolutions divided by `factors`.

    Args:
        graph: is left as it is.
        factors: positive, (out,) by step name; convolutions that are not named keep their outputs.

    Raises:
        ValueError: factors of another shape or sign, or some that do not cancel out.
    """
    made, carried = DeployGraph(graph.scale), {INPUT: torch.ones(3)}
    if unknown := set(factors) - {name for name, operator, _ in graph.steps() if isinstance(operator, Conv)}:
        raise ValueError(f"there are factors for {sorted(unknown)[0]!r}, which is no convolution")
    for name, operator, inputs in graph.steps():
        given = carried[inputs[0]]
        if isinstance(operator, Conv):
            out = factors.get(name, torch.ones(len(operator.weight)))
            if out.shape != operator.bias.shape or not (out > 0).all() or not out.isfinite().all():
                raise ValueError(f"the factors of {name!r} do not fit")
            weight = operator.weight * given[None, :, None, None] / out[:, None, None, None]
            operator, carried[name] = Conv(weight, operator.bias / out, operator.activation), out
        elif isinstance(operator, Add):
            if not torch.equal(given, carried[inputs[1]]):
                raise ValueError(f"the sum {name!r} has terms with different factors")
            carried[name] = given
        elif isinstance(operator, DepthToSpace):
            parts = given.view(operator.block**2, -1)
            if not torch.equal(parts, parts[:1].expand_as(parts)):
                raise ValueError(f"the pixels of {name!r} have different factors")
            carried[name] = parts[0]
        elif isinstance(operator, (PReLU, Repeat)):
            carried[name] = given.repeat(operator.times) if isinstance(operator, Repeat) else given
        else:
            if not torch.equal(given, torch.ones_like(given)):
                raise ValueError(f"{name!r} reads values with factors")
            carried[name] = given
        made.add(name, operator, *inputs)
    if not torch.equal(carried[graph.output], torch.ones_like(carried[graph.output])):
        raise ValueError("the image has factors")
    return made


def balancing_factors(graph: DeployGraph, largest: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Factors of the outputs of convolutions, for `equalized`.

    sqrt(r1 / r2) per channel: r1 is the largest magnitude of the channel in any value of its seam, r2 the largest weight
    that reads it. Then both become sqrt(r1 * r2), and no channel is coarse in one for the sake of the other. A channel
    that is always zero or never read keeps its size, and the mean factor of a seam is 1.

    Args:
        graph: float.
        largest: magnitude (channels,) of every value, as observed.
    """
    factors = {}
    for seam in seams(graph):
        made = torch.stack([_by_channel(largest[value], seam.width) for value in seam.members]).amax(0)
        weights = [graph.operators[name].weight for name in seam.consumers]
        read = torch.stack([_by_channel(weight.abs().amax((0, 2, 3)), seam.width) for weight in weights]).amax(0)
        used = (made > 0) & (read > 0)
        logarithms = torch.where(used, (made.log() - read.log()) / 2, 0.0)
        centred = logarithms - logarithms[used].mean() if used.any() else logarithms
        factor = torch.where(used, centred.exp().clamp(1 / LARGEST, LARGEST), 1.0)
        for name in seam.producers:
            factors[name] = factor.repeat(len(graph.operators[name].weight) // seam.width)
    return factors


@torch.no_grad()
def largest_magnitudes(graph: DeployGraph, crops: Tensor) -> dict[str, Tensor]:
    """(channels,) of every value, over crops (N, 3, h, w)."""
    found: dict[str, Tensor] = {}
    for batch in crops.split(BATCH):
        for name, value in graph.values(batch):
            largest = value.abs().amax((0, 2, 3))
            found[name] = torch.maximum(found[name], largest) if name in found else largest
    return found


def _by_channel(sizes: Tensor, width: int) -> Tensor:
    return sizes.view(-1, width).amax(0)
