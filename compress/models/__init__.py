"""The architectures, by name. One file each: a frozen config dataclass and its network."""

import dataclasses
import types
import typing
from dataclasses import dataclass

from torch import nn

from compress.errors import BadInput
from compress.models.anchor import Anchor, AnchorConfig
from compress.models.rlfn import RLFN, RLFNConfig
from compress.models.srresnet import SRResNet, SRResNetConfig


@dataclass(frozen=True)
class Architecture:
    """A network class and the dataclass that configures it."""

    network: type[nn.Module]
    config: type


ARCHITECTURES = {
    "anchor": Architecture(Anchor, AnchorConfig),
    "srresnet": Architecture(SRResNet, SRResNetConfig),
    "rlfn": Architecture(RLFN, RLFNConfig),
}


def build(architecture: str, config: dict[str, typing.Any]) -> nn.Module:
    """A freshly initialised network.

    Args:
        architecture: a name in `ARCHITECTURES`.
        config: keyword arguments of its config dataclass; what is left out keeps its default.

    Raises:
        BadInput: unknown architecture or option, or a value of the wrong type or out of range.
    """
    if architecture not in ARCHITECTURES:
        raise BadInput(f"expected an architecture out of {', '.join(ARCHITECTURES)}, found {architecture!r}.")
    known = ARCHITECTURES[architecture]
    return known.network(known.config(**_checked(architecture, known.config, config)))


def _checked(architecture: str, kind: type, config: dict[str, typing.Any]) -> dict[str, typing.Any]:
    """The options, after holding each against the type of its field."""
    types_of = typing.get_type_hints(kind)
    fields = [field.name for field in dataclasses.fields(kind)]
    for name, value in config.items():
        if name not in fields:
            raise BadInput(f"expected options of {architecture} out of {', '.join(fields)}, found {name!r}.")
        wanted = types_of[name]
        if typing.get_origin(wanted) is typing.Literal:
            choices = typing.get_args(wanted)
            if not any(value == choice and type(value) is type(choice) for choice in choices):
                listed = ", ".join(map(str, choices))
                raise BadInput(f"expected {architecture}'s {name} to be one of {listed}, found {value!r}.")
        elif type(value) is not wanted or isinstance(wanted, types.UnionType):
            raise BadInput(f"expected {architecture}'s {name} to be of type {wanted.__name__}, found {value!r}.")
        elif wanted is int and value < (0 if name == "blocks" else 1):
            raise BadInput(f"expected {architecture}'s {name} to be positive, found {value}.")
        if name.endswith("kernel") and value % 2 == 0:
            raise BadInput(f"expected {architecture}'s {name} to be odd, found {value}.")
    return config
