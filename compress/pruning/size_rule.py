"""From a density to sizes: the width, layers per block and blocks of a compact network.

A network of width c, l layers per block and b blocks has about c^2 * l * b weights, so the compact one keeps

    (c'/c)^2 * (l'/l) * (b'/b) ~ d    (Jiang et al., PCS 2024: their networks; the formula is our reading)

of them. That leaves open how c, l and b share the reduction. The rule here: on a logarithmic scale, the width takes
`WIDTH_SHARE` of it and the depths that an architecture has (b; for SwinIR l and b) take equal parts of the rest.
Whole numbers that are nearest to these ideals and to d are chosen: they minimise

    (ln c'/c - w)^2 + (ln l'/l - e)^2 + (ln b'/b - e)^2 + `CLOSENESS` * (ln((c'/c)^2 (l'/l) (b'/b)) - ln d)^2

where w and e are the ideals. The sources state no such rule. Every share between 0.72 and 0.89 gives both networks of
the paper: EDSRmini (16 channels and 8 blocks, of 64 and 16) at d = 0.031, and SwinIRmini (dimension 24 and 3 blocks of
4 layers, of 60 and 4 blocks of 6) at d = 0.08.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

from compress.errors import BadInput

WIDTH_SHARE = 0.8
CLOSENESS = 4.0  # to the density, beside closeness to the ideals: what is kept stays within a quarter of it for EDSR
MULTIPLE = 8


@dataclass(frozen=True)
class Sizes:
    """Width, layers per block (None where an architecture fixes them) and blocks."""

    width: int
    layers: int | None
    blocks: int


@dataclass(frozen=True)
class Candidate:
    """Sizes, the share of the weights that they keep by the formula, and their distance from the rule's ideal."""

    sizes: Sizes
    kept: float
    distance: float


def sizes_of(config: dict[str, Any]) -> Sizes:
    """The sizes in an architecture's config.

    Raises:
        BadInput: an architecture without width and blocks to choose, or whose blocks differ in their layers.
    """
    if {"dim", "depths"} <= set(config):
        depths = config["depths"]
        if len(set(depths)) != 1:
            raise BadInput(
                f"expected blocks of equally many layers, found depths {', '.join(map(str, depths))}: choose the "
                "sizes by hand."
            )
        return Sizes(config["dim"], depths[0], len(depths))
    if not {"channels", "blocks"} <= set(config):
        raise BadInput(
            f"expected an architecture with `channels` and `blocks`, or `dim` and `depths`, found {', '.join(config)}: "
            "choose the sizes by hand."
        )
    return Sizes(config["channels"], None, config["blocks"])


def with_sizes(config: dict[str, Any], sizes: Sizes) -> dict[str, Any]:
    """The config with other sizes; the other widths that it names (block_channels, ...) shrink in proportion."""
    if sizes.layers is not None:
        return {**config, "dim": sizes.width, "depths": (sizes.layers,) * sizes.blocks}
    narrowed = {
        name: max(1, round(value * sizes.width / config["channels"]))
        for name, value in config.items()
        if name.endswith("_channels") and value  # 0 stands for as many as `channels`
    }
    return {**config, **narrowed, "channels": sizes.width, "blocks": sizes.blocks}


def candidates(
    original: Sizes, density: float, *, multiple: int = MULTIPLE, width_share: float = WIDTH_SHARE
) -> list[Candidate]:
    """All sizes up to the original's, the rule's choice first.

    Args:
        original: of the sparsified network.
        density: share of weights to keep, in (0, 1].
        multiple: widths are multiples of it; the original width is always among them.
        width_share: the width's part of the reduction, in [0, 1].

    Raises:
        BadInput: density, multiple or width_share out of range, or a network without blocks.
    """
    if not 0 < density <= 1 or not 0 <= width_share <= 1 or multiple < 1:
        raise BadInput(
            "expected a density above 0 and up to 1, a width share from 0 to 1 and a multiple of at least 1, found "
            f"{density:g}, {width_share:g} and {multiple}: correct the numbers."
        )
    if original.blocks < 1:
        raise BadInput("expected a network with blocks, found one without: choose the sizes by hand.")
    reduction, depths = math.log(density), 1 if original.layers is None else 2
    ideal = (width_share * reduction / 2, (1 - width_share) * reduction / depths)
    ranked = [_judged(sizes, original, reduction, ideal) for sizes in _smaller(original, multiple)]
    return sorted(ranked, key=lambda one: (one.distance, -one.sizes.width, -one.sizes.blocks))


def _smaller(original: Sizes, multiple: int) -> Iterator[Sizes]:
    widths = sorted({*range(multiple, original.width + 1, multiple), original.width})
    layers = [None] if original.layers is None else range(1, original.layers + 1)
    for width, depth, blocks in product(widths, layers, range(1, original.blocks + 1)):
        yield Sizes(width, depth, blocks)


def _judged(sizes: Sizes, original: Sizes, reduction: float, ideal: tuple[float, float]) -> Candidate:
    width = math.log(sizes.width / original.width)
    depths = [math.log(sizes.blocks / original.blocks)]
    if sizes.layers is not None and original.layers is not None:
        depths.append(math.log(sizes.layers / original.layers))
    kept = 2 * width + sum(depths)
    spread = (width - ideal[0]) ** 2 + sum((depth - ideal[1]) ** 2 for depth in depths)
    return Candidate(sizes, math.exp(kept), spread + CLOSENESS * (kept - reduction) ** 2)
