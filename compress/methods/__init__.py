"""Training methods, by name. One file each: a frozen config dataclass and a module that returns named losses."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from compress.errors import BadInput
from compress.methods.base import Method
from compress.methods.distillation import DistillationConfig, OutputDistillation
from compress.methods.supervised import Supervised, SupervisedConfig
from compress.options import checked


@dataclass(frozen=True)
class KnownMethod:
    """A method's class, the dataclass that configures it, and whether it learns from a teacher."""

    method: type[Method]
    config: type
    needs_teacher: bool


METHODS = {
    "supervised": KnownMethod(Supervised, SupervisedConfig, needs_teacher=False),
    "distillation": KnownMethod(OutputDistillation, DistillationConfig, needs_teacher=True),
}


def make_method(name: str, options: dict[str, Any], teacher: nn.Module | None) -> Method:
    """The training method of that name.

    Raises:
        BadInput: unknown method or option; a teacher missing where the method needs one, or given where it does not.
    """
    if name not in METHODS:
        raise BadInput(f"expected a method out of {', '.join(METHODS)}, found {name!r}: choose one.")
    known = METHODS[name]
    config = checked(known.config, options, name)
    if known.needs_teacher != (teacher is not None):
        what = "a teacher for" if known.needs_teacher else "no teacher for"
        found = "none" if teacher is None else "one"
        raise BadInput(f"expected {what} the method {name!r}, found {found}: see the recipes of the two kinds.")
    return known.method(config, teacher) if known.needs_teacher else known.method(config)
