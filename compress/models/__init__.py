"""The architectures, by name. One file each: a frozen config dataclass and its network."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from compress.errors import BadInput
from compress.models.anchor import Anchor, AnchorConfig
from compress.models.bsrn import BSRN, BSRNConfig
from compress.models.edsr import EDSR, EDSRConfig
from compress.models.rlfn import RLFN, RLFNConfig
from compress.models.srresnet import SRResNet, SRResNetConfig
from compress.models.swinir import SwinIR, SwinIRConfig
from compress.options import checked


@dataclass(frozen=True)
class Architecture:
    """A network class and the dataclass that configures it."""

    network: type[nn.Module]
    config: type


ARCHITECTURES = {
    "anchor": Architecture(Anchor, AnchorConfig),
    "srresnet": Architecture(SRResNet, SRResNetConfig),
    "edsr": Architecture(EDSR, EDSRConfig),
    "rlfn": Architecture(RLFN, RLFNConfig),
    "bsrn": Architecture(BSRN, BSRNConfig),
    "swinir": Architecture(SwinIR, SwinIRConfig),
}

LARGEST = 4096
"""Channels, blocks and the like of a network: more than any published one has, and few enough to refuse what is not one."""


def build(architecture: str, config: dict[str, Any]) -> nn.Module:
    """A freshly initialised network.

    Args:
        architecture: a name in `ARCHITECTURES`.
        config: keyword arguments of its config dataclass; what is left out keeps its default.

    Raises:
        BadInput: unknown architecture or option, or a value of the wrong type or out of range.
    """
    if architecture not in ARCHITECTURES:
        raise BadInput(
            f"expected an architecture out of {', '.join(ARCHITECTURES)}, found {architecture!r}: choose one."
        )
    known = ARCHITECTURES[architecture]
    return known.network(checked(known.config, config, architecture, largest=LARGEST))
