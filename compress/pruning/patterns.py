"""Which weights go together: each by itself, M - N out of every M, or blocks.

A convolution is seen as the matrix of im2col kernels: rows are output channels, columns run over K = (kh, kw, in),
the input channel fastest. This is the order in which TFLite and all NHWC kernels hold the weights; ONNX holds the same
weights as (out, in, kh, kw), so there the members of a group lie kh * kw apart.

Groups of N:M are M neighbours along K, blocks of RxC are R rows by C columns. Both must fit into the input channels
of one tap of the kernel, so that they stay together in whatever order a kernel walks the taps; this is also what
NVIDIA's 2:4 asks for (Mishra et al., "Accelerating Sparse Deep Neural Networks", 2021: two zeros in every four
input channels). For odd kernels and M a power of two it says the same as K being divisible by M. Layers that do not
fit stay dense.

Rows are counted as they ship: convolutions before a PixelShuffle ship with their outputs in another order, and blocks
of several rows must be blocks there, not in the training network.
"""

import copy
import re
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from compress.deploy import Conv
from compress.errors import BadInput

Skip = Literal["first_last", "first", "none"]


@dataclass(frozen=True)
class Pattern:
    """Units of `rows` x `columns` weights, of which any `group` neighbours along K keep `kept` or can all go.

    Attributes:
        name: "unstructured", "2:4" or "1x4 block", say.
        rows, columns: of a unit; 1 x 1 but for blocks.
        group, kept: M and N; 1 and 0 where there are no groups.
    """

    name: str
    rows: int = 1
    columns: int = 1
    group: int = 1
    kept: int = 0

    @property
    def most(self) -> float:
        """The largest share of zeros that the pattern can have; N:M has only this one."""
        return 1 - self.kept / self.group

    def misfit(self, weight: Tensor) -> str | None:
        """Why a weight (out, in, kh, kw) stays dense, or None."""
        outputs, inputs = weight.shape[:2]
        wanted = self.columns * self.group
        if inputs % wanted:
            return f"{inputs} input channels, not a multiple of {wanted}"
        return f"{outputs} output channels, not a multiple of {self.rows}" if outputs % self.rows else None

    def units(self, weight: Tensor, order: Tensor | None = None) -> Tensor:
        """A weight or mask (out, in, kh, kw) as (out / R, K / C, R * C); `order` lists the rows as they ship."""
        matrix = weight.permute(0, 2, 3, 1).flatten(1)
        if order is not None:
            matrix = matrix[order]
        blocks = matrix.unflatten(0, (-1, self.rows)).unflatten(2, (-1, self.columns))
        return blocks.permute(0, 2, 1, 3).flatten(2)

    def mask(self, kept: Tensor, weight: Tensor, order: Tensor | None = None) -> Tensor:
        """The mask of `weight`'s shape that keeps the units in `kept`, bool (out / R, K / C)."""
        outputs, inputs, height, width = weight.shape
        matrix = kept.repeat_interleave(self.rows, 0).repeat_interleave(self.columns, 1)
        if order is not None:
            matrix = matrix[order.argsort()]
        return matrix.reshape(outputs, height, width, inputs).permute(0, 3, 1, 2).contiguous()

    def scores(self, weight: Tensor, mask: Tensor, order: Tensor | None = None) -> Tensor:
        """Of every unit, (out / R, K / C): its mean magnitude, -1 where it is gone, inf where it must stay."""
        scores = self.units(weight.abs(), order).mean(2)
        scores = scores.masked_fill(~self.units(mask, order).all(2), -1.0)
        if self.kept:
            groups = scores.unflatten(1, (-1, self.group))
            best = groups.argsort(dim=2, stable=True)[..., -self.kept :]
            scores = groups.scatter(2, best, torch.inf).flatten(1)
        return scores

    def holds(self, mask: Tensor, order: Tensor | None = None) -> bool:
        """Whether a mask has the pattern."""
        if self.misfit(mask):
            return False
        units = self.units(mask, order)
        whole = bool((units.all(2) == units.any(2)).all())
        groups = units.all(2).unflatten(1, (-1, self.group)).sum(2)
        return whole and (not self.kept or bool((groups <= self.kept).all()))


def parse_pattern(name: str) -> Pattern:
    """The pattern of that name: "unstructured", N:M such as "2:4", RxC such as "1x4" or "1x4 block".

    Raises:
        BadInput: another name, or numbers that make no pattern.
    """
    if name == "unstructured":
        return Pattern(name)
    if found := re.fullmatch(r"(\d+):(\d+)", name):
        kept, group = int(found[1]), int(found[2])
        if 0 < kept < group:
            return Pattern(f"{kept}:{group}", group=group, kept=kept)
    if found := re.fullmatch(r"(\d+)x(\d+)( block)?", name):
        rows, columns = int(found[1]), int(found[2])
        if rows * columns > 1:
            return Pattern(f"{rows}x{columns} block", rows, columns)
    raise BadInput(f"expected a pattern such as unstructured, 2:4 or 1x4, found {name!r}: choose one.")


@dataclass(frozen=True)
class Prunable:
    """Which layers of a network are pruned.

    Attributes:
        weights: by parameter name, in the network's order.
        orders: of their rows as they ship, where blocks have several rows.
        dense: the other convolutions, by parameter name, with the reason.
    """

    weights: dict[str, Tensor]
    orders: dict[str, Tensor]
    dense: dict[str, str]


def prunable(network: nn.Module, pattern: Pattern, skip: Skip) -> Prunable:
    """The convolutions of a merged network that a pattern fits.

    Args:
        network: of `compress.models`; registers its layers in the order in which they run.
        pattern: of the zeros.
        skip: 'first_last' leaves the first and the last convolution dense, 'first' the first one.

    Raises:
        BadInput: there are none.
    """
    weights = {f"{name}.weight": m.weight.detach() for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    names = list(weights)
    ends = {names[0]: "first layer"} if names and skip != "none" else {}
    if names and skip == "first_last":
        ends.setdefault(names[-1], "last layer")
    reasons = {name: ends.get(name) or pattern.misfit(weight) for name, weight in weights.items()}
    dense = {name: reason for name, reason in reasons.items() if reason}
    fitting = {name: weight for name, weight in weights.items() if name not in dense}
    if not fitting:
        why = ", ".join(f"{name} ({reason})" for name, reason in dense.items()) or "no convolution at all"
        raise BadInput(
            f"expected convolutions that can be pruned to {pattern.name}, found none ({why}): choose another pattern, "
            "or set skip to none."
        )
    return Prunable(fitting, shipped_orders(network) if pattern.rows > 1 else {}, dense)


@torch.no_grad()
def shipped_orders(network: nn.Module) -> dict[str, Tensor]:
    """Output channels of each convolution in the order in which the deploy graph has them, by parameter name.

    Found by sending numbered rows through `deploy`. Folded norms and gains scale all rows of a layer alike, so its
    largest row over its smallest tells which layer it is. Empty for networks that cannot ship.
    """
    if not hasattr(network, "deploy"):
        return {}
    probe, orders = copy.deepcopy(network), {}
    for parameter in probe.parameters():
        parameter.zero_()
    for module in probe.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_parameters()
    convolutions = [(name, module) for name, module in probe.named_modules() if isinstance(module, nn.Conv2d)]
    for index, (_, conv) in enumerate(convolutions):
        rows = torch.linspace(1, index + 2, len(conv.weight), device=conv.weight.device)
        conv.weight.add_(rows[:, None, None, None])
    for _, step, _ in probe.deploy().steps():
        if isinstance(step, Conv) and len(step.weight) > 1 and step.weight.all():
            rows = step.weight[:, 0, 0, 0]
            name, _ = convolutions[round((rows.max() / rows.min()).item()) - 2]
            orders[f"{name}.weight"] = rows.argsort().argsort()
    return orders
