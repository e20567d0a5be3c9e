"""A network that trains as the int8 student that it will be."""

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.checkpoint import Student
from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, PReLU
from compress.models.taps import thirds
from compress.quantization.fake import LearnedScale, fake_quantize, round_through
from compress.quantization.integer import add, prelu, quantize
from compress.quantization.layers import layers_of
from compress.quantization.scales import MOVES, channel_scales, integer_weights, scale_owners
from compress.quantization.scheme import HIGH, LOW, PIXELS, WEIGHT_LIMIT, ActivationScale, Quantization


class FakeQuantized(nn.Module):
    """(N, 3, H, W) in [0, 1] to (N, 3, s*H, s*W): the integer student's arithmetic, with gradients.

    Works in float32 under any autocast: bfloat16 has 8 bits, which would round before int8 does. While training, the
    image alone is neither rounded nor clipped, as with the float networks: a loss sees less of an image of whole
    pixels, most of all where it is right to half a pixel value or saturated.

    Args:
        network: an architecture's, `folded()`. Its convolutions train; slopes of PReLU stay as they are.
        scales: to start with, for every value of its deploy graph; see `ptq.activation_scales`.
        learn_weight_scales: otherwise they follow the largest weight of each channel.

    Attributes:
        activations: learned scales by value name, of those values that have one of their own.
        weights: learned scales by step name, or empty.
    """

    zero_points: Tensor

    def __init__(self, network: nn.Module, scales: dict[str, ActivationScale], learn_weight_scales: bool):
        super().__init__()
        graph = network.deploy()
        self.network, self.config, self.scale = network, network.config, graph.scale
        self.layers = layers_of(network)
        # convolutions are computed from `layers`: what the graph holds of them is out of date after one step
        self.steps = [(name, None if isinstance(o, Conv) else o, inputs) for name, o, inputs in graph.steps()]
        self.owners = scale_owners(graph)
        own = [value for value, owner in self.owners.items() if value == owner != INPUT]
        self.activations = nn.ModuleDict({value: LearnedScale(torch.tensor(scales[value].scale)) for value in own})
        zeros = [float(scales[value].zero_point) for value in own]
        self.register_buffer("zero_points", torch.tensor(zeros))  # floats, which a moving average leaves as they are
        self.weights = nn.ModuleDict()
        if learn_weight_scales:
            for step, layer in self.layers.items():
                self.weights[step] = LearnedScale(channel_scales(layer.weights(network)[0]))
        self.tapped = thirds(_stream(graph, self.owners))
        self.features = nn.ModuleDict({name: nn.Identity() for name in self.tapped})
        trained = {f"{layer.conv}.{kind}" for layer in self.layers.values() for kind in ("weight", "bias")}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in trained)

    def forward(self, lr: Tensor) -> Tensor:
        with torch.autocast(lr.device.type, enabled=False):
            return self._run(lr.float())

    def taps(self) -> list[str]:
        """Three modules whose outputs are features (N, C, H, W), as the architectures have them."""
        return [f"features.{name}" for name in self.tapped]

    def learned_scales(self) -> list[LearnedScale]:
        """Those of activations, then those of weights."""
        return cast(list[LearnedScale], [*self.activations.values(), *self.weights.values()])

    def scales(self) -> dict[str, ActivationScale]:
        """Of every value, as they are now."""
        found = torch.stack([learned() for learned in self.activations.values()]).tolist()
        zeros = map(int, self.zero_points.tolist())
        own = dict(zip(self.activations, map(ActivationScale, found, zeros), strict=True))
        return {value: PIXELS if owner == INPUT else own[owner] for value, owner in self.owners.items()}

    def quantization(self, calibration: dict[str, Any]) -> Quantization:
        """The integers and scales that `forward` computes with, on the CPU."""
        scales, layers = self.scales(), {}
        for step, operator, inputs in Student.of(self.network).deploy().steps():
            if isinstance(operator, Conv):
                scale = self.weights[step]().detach().cpu() if step in self.weights else None
                layers[step] = integer_weights(operator, scales[inputs[0]], scale)
        return Quantization(scales, layers, dict(calibration))

    def _run(self, lr: Tensor) -> Tensor:
        scales = self.scales()
        values, name = {INPUT: quantize(lr, PIXELS) - PIXELS.zero_point}, INPUT
        for name, operator, inputs in self.steps:
            terms, given = [values[i] for i in inputs], [scales[i] for i in inputs]
            if isinstance(operator, MOVES):
                values[name] = operator(terms[0])
            elif isinstance(operator, Clip) and given[0] == scales[name]:
                values[name] = terms[0]  # int8 of scale 1/255 cannot leave [0, 1]
            else:
                values[name] = self._computed(name, operator, terms, given, scales[name])
            if name in self.features:
                self.features[name](values[name] * scales[name].scale)
        return values[name] * PIXELS.scale

    def _computed(
        self,
        name: str,
        operator: nn.Module | None,
        terms: list[Tensor],
        given: list[ActivationScale],
        wanted: ActivationScale,
    ) -> Tensor:
        """The centred integers that a step makes of others; of the image, while training, what they are rounded from."""
        relu, image = operator is None and self.layers[name].relu, self.owners[name] == INPUT
        if operator is None:
            x, unit = self._convolve(name, terms[0], given[0])
        else:
            x, unit = operator(*(term * scale.scale for term, scale in zip(terms, given, strict=True))), None
        if image and self.training:
            return x / wanted.scale if unit is None else x * (unit / wanted.scale)
        low, high = LOW - wanted.zero_point, HIGH - wanted.zero_point
        scale = torch.tensor(wanted.scale, device=x.device) if image else self.activations[name]()
        rounded = _kernel(operator, terms, given, wanted)
        return fake_quantize(x, scale, max(low, 0) if relu else low, high, unit=unit, rounded=rounded)

    def _convolve(self, step: str, x: Tensor, given: ActivationScale) -> tuple[Tensor, Tensor]:
        """The sums of products of integers, bias included, and the unit (C, 1, 1) in which they count."""
        weight, bias = self.layers[step].weights(self.network)
        scale = self.weights[step]() if step in self.weights else channel_scales(weight.detach())
        integers = fake_quantize(weight, scale[:, None, None, None], -WEIGHT_LIMIT, WEIGHT_LIMIT)
        scale = scale.detach()
        precise = torch.float32 if x.device.type == "mps" else torch.float64  # as integer_weights, where it exists
        start = round_through(bias.to(precise) / (scale.to(precise) * given.scale)).float()
        return F.conv2d(x, integers, start, padding=weight.shape[-1] // 2), (given.scale * scale)[:, None, None]


@torch.no_grad()
def _kernel(
    operator: nn.Module | None, x: list[Tensor], given: list[ActivationScale], wanted: ActivationScale
) -> Tensor | None:
    """Centred integers as XNNPACK's fixed-point arithmetic rounds them; None for operators that round as usual."""
    if isinstance(operator, Add):
        return add(x[0], given[0].scale, x[1], given[1].scale, wanted) - wanted.zero_point
    if isinstance(operator, PReLU):
        return prelu(x[0], given[0].scale, operator.slope, wanted) - wanted.zero_point
    return None


def _stream(graph: DeployGraph, owners: dict[str, str]) -> list[str]:
    """The first layer and then the sums at LR resolution; without sums, all layers but the last."""
    convs, sums = [], []
    for name, operator, _ in graph.steps():
        if isinstance(operator, DepthToSpace):
            break
        if owners[name] == name and isinstance(operator, (Conv, Add)):
            (convs if isinstance(operator, Conv) else sums).append(name)
    return [convs[0], *sums] if sums else (convs[:-1] or convs)
