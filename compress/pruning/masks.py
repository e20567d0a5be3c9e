"""Masks: which weights of a student are zero for good."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compress.deploy import Conv
from compress.errors import BadInput
from compress.pruning.patterns import parse_pattern, shipped_orders

Scope = Literal["global", "layer"]


@dataclass(frozen=True)
class Masks:
    """The zeros that fine-tuning, quantization and export keep.

    Attributes:
        pattern: "unstructured", "2:4", "1x4 block" and the like; see `compress.pruning.patterns`.
        layers: bool, True where a weight is kept, by parameter name of the merged network ("body.0.weight") and of
            the parameter's shape. Layers that are not named are dense.
    """

    pattern: str
    layers: dict[str, Tensor]

    def sparsity(self) -> float:
        """Share of zeros among the weights of the masked layers, in [0, 1]."""
        return 1 - sum(int(mask.sum()) for mask in self.layers.values()) / sum(m.numel() for m in self.layers.values())

    @torch.no_grad()
    def apply(self, network: nn.Module) -> None:
        """Sets what is masked to exactly +0.0, in place."""
        for name, mask in self.layers.items():
            weight = network.get_parameter(name)
            weight.masked_fill_(~mask.to(weight.device), 0)

    @torch.no_grad()
    def shipped(self, network: nn.Module) -> dict[str, Tensor]:
        """The masks by step name of the deploy graph, rows in its order; layers without a mask are left out.

        Args:
            network: the merged network, of an architecture that can ship.
        """
        marked = copy.deepcopy(network)
        for name, mask in self.layers.items():
            # not-a-number survives the folding of batch norm, gains and permutations, and nothing else becomes one
            marked.get_parameter(name).masked_fill_(~mask, torch.nan)
        kept = {name: ~step.weight.isnan() for name, step, _ in marked.deploy().steps() if isinstance(step, Conv)}
        return {name: mask for name, mask in kept.items() if not mask.all()}

    def check(self, network: nn.Module, integers: Mapping[str, Tensor] | None = None) -> None:
        """Holds the masks against the weights that they are said to belong to.

        Args:
            network: merged, with its weights.
            integers: int8 weights by step name of the deploy graph, for an int8 student.

        Raises:
            ValueError: an unknown or wholly masked layer, a wrong shape, a mask without the pattern, or a weight
                that is not zero where it is masked.
        """
        pattern, parameters = parse_pattern(self.pattern), dict(network.named_parameters())
        orders = shipped_orders(network) if pattern.rows > 1 else {}
        for name, mask in self.layers.items():
            weight = parameters.get(name)
            if weight is None or weight.ndim != 4:
                raise ValueError(f"no convolution has a weight {name!r}")
            if weight.shape != mask.shape:
                raise ValueError(f"{name} has the shape {tuple(weight.shape)}, its mask {tuple(mask.shape)}")
            if not mask.any():
                raise ValueError(f"all of {name} is masked")
            if not pattern.holds(mask, orders.get(name)):
                raise ValueError(f"the mask of {name} is not {self.pattern}")
            if weight[~mask].any():
                raise ValueError(f"{name} is not zero where it is masked")
        for name, mask in (self.shipped(network) if integers else {}).items():
            if integers[name][~mask].any():
                raise ValueError(f"the integers of {name} are not zero where they are masked")

    def to_dict(self) -> dict[str, Any]:
        """As plain containers and tensors, for student.pt."""
        return {"pattern": self.pattern, "layers": dict(self.layers)}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Masks":
        """The inverse of `to_dict`. Raises ValueError, TypeError, KeyError or AttributeError when the content is not
        as described."""
        try:
            pattern = parse_pattern(plain["pattern"])
        except BadInput as error:
            raise ValueError(f"unknown pattern {plain['pattern']!r}") from error
        layers = dict(plain["layers"])
        if pattern.name != plain["pattern"] or not layers:
            raise ValueError(f"pattern {plain['pattern']!r} with {len(layers)} layers")
        for name, mask in layers.items():
            if not isinstance(name, str) or not isinstance(mask, Tensor) or mask.dtype != torch.bool:
                raise ValueError(f"the mask of {name!r} is not a tensor of type bool")
        return cls(pattern.name, layers)


@torch.no_grad()
def grow(masks: Masks, network: nn.Module, share: float, scope: Scope, orders: Mapping[str, Tensor]) -> Masks:
    """The masks grown to a share of zeros: units of least mean magnitude go first, ties in the order of the weights.

    Args:
        masks: what is gone already, and stays so.
        network: with the weights.
        share: of zeros among the weights of the masked layers, in [0, 1]; a layer that has more keeps them.
        scope: 'global' takes the share of all layers together, 'layer' of each.
        orders: of the rows as they ship, by parameter name, for blocks of several rows.

    Raises:
        BadInput: a layer would lose all its weights.
    """
    pattern, layers = parse_pattern(masks.pattern), {}
    weights = {name: network.get_parameter(name) for name in masks.layers}
    scores = {name: pattern.scores(weights[name], mask, orders.get(name)) for name, mask in masks.layers.items()}
    flat = [score.flatten() for score in scores.values()]
    if scope == "global":
        kept = _all_but_least(torch.cat(flat), share).split([len(score) for score in flat])
    else:
        kept = [_all_but_least(score, share) for score in flat]
    for (name, score), units in zip(scores.items(), kept, strict=True):
        layers[name] = masks.layers[name] & pattern.mask(units.view_as(score), weights[name], orders.get(name))
        if not layers[name].any():
            remedy = " or set scope to layer" if scope == "global" and share < 1 else ""
            raise BadInput(
                f"expected masks that leave something of every layer, found that a sparsity of {share:.4g} (scope "
                f"{scope}) removes all of {name}: lower the sparsity{remedy}."
            )
    return Masks(masks.pattern, layers)


def _all_but_least(scores: Tensor, share: float) -> Tensor:
    """True but for the `share` of the scores (N,) that are least."""
    kept = torch.ones_like(scores, dtype=torch.bool)
    kept[scores.argsort(stable=True)[: round(share * len(scores))]] = False
    return kept
