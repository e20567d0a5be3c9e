"""Which steps of a graph can differ in their arithmetic, and what each costs.

A layer here is a convolution or a sum with what only changes or moves its values afterwards (PReLU, sigmoid, shuffle):
they share one arithmetic, so that no value is converted between them. Images stay int8, and so do steps that only clip
or move their pixels.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU, Repeat, Sigmoid
from compress.quantization.scales import MOVES, pixel_values
from compress.quantization.scheme import Arithmetic


@dataclass(frozen=True)
class Layer:
    """Steps of one arithmetic.

    Attributes:
        name: of the first.
        steps: in order.
        macs: multiply-accumulates per LR pixel; additions, for a sum.
    """

    name: str
    steps: tuple[str, ...]
    macs: int


def layers(graph: DeployGraph) -> list[Layer]:
    """All that can have an arithmetic of its own, in order of execution."""
    pixels, owner = pixel_values(graph), {INPUT: ""}
    groups: dict[str, list[str]] = {}
    channels, area = {INPUT: 3}, {INPUT: 1}
    macs: dict[str, int] = {}
    for name, operator, inputs in graph.steps():
        channels[name], area[name] = channels[inputs[0]], area[inputs[0]]
        owner[name] = owner[inputs[0]]
        if isinstance(operator, (Conv, Add)):
            if isinstance(operator, Conv):
                channels[name] = len(operator.weight)
            per_pixel = operator.weight.numel() if isinstance(operator, Conv) else channels[name]
            owner[name], macs[name] = name, per_pixel * area[name]
        elif isinstance(operator, DepthToSpace):
            channels[name], area[name] = channels[name] // operator.block**2, area[name] * operator.block**2
        elif isinstance(operator, Repeat):
            channels[name] *= operator.times
        if isinstance(operator, (Clip, *MOVES)) and (name in pixels or not owner[name]):
            owner[name] = ""
            continue
        assert isinstance(operator, (Conv, Add, PReLU, Sigmoid, Clip, *MOVES))
        groups.setdefault(owner[name], []).append(name)
    return [Layer(name, tuple(steps), macs[name]) for name, steps in groups.items()]


def arithmetic_of(graph: DeployGraph, chosen: Mapping[str, Arithmetic]) -> dict[str, Arithmetic]:
    """As `Quantization` keeps it, of an arithmetic by name of layer; those that are not named are int8."""
    found = {}
    for layer in layers(graph):
        kind = chosen.get(layer.name, "int8")
        found |= {} if kind == "int8" else dict.fromkeys(layer.steps, kind)
    return found
