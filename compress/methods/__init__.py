"""Training methods, by name. One file each: a frozen config dataclass and a module that returns named losses."""

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from compress.errors import BadInput
from compress.methods.adversarial import Adversarial, AdversarialConfig
from compress.methods.base import Method
from compress.methods.distillation import DistillationConfig, OutputDistillation
from compress.methods.dukd import Dukd, DukdConfig
from compress.methods.fakd import Fakd, FakdConfig
from compress.methods.multilap import MultiLapConfig, MultiLapDistillation
from compress.methods.perceptual import PerceptualConfig, PerceptualDistillation
from compress.methods.supervised import Supervised, SupervisedConfig
from compress.options import checked


@dataclass(frozen=True)
class KnownMethod:
    """What there is to know of a method before it is made.

    Attributes:
        method, config: its class and the dataclass that configures it.
        teacher: whether it learns from a teacher; `perceptual` can do with and without.
        labels: whether all it asks of the teacher is its output for the patches, which can be cached.
        discriminator: whether it is adversarial.
    """

    method: type[Method]
    config: type
    teacher: Literal["never", "optional", "always"] = "never"
    labels: bool = False
    discriminator: bool = False


METHODS = {
    "supervised": KnownMethod(Supervised, SupervisedConfig),
    "distillation": KnownMethod(OutputDistillation, DistillationConfig, teacher="always", labels=True),
    "multilap": KnownMethod(MultiLapDistillation, MultiLapConfig, teacher="always", labels=True),
    "fakd": KnownMethod(Fakd, FakdConfig, teacher="always"),
    "dukd": KnownMethod(Dukd, DukdConfig, teacher="always"),
    "adversarial": KnownMethod(Adversarial, AdversarialConfig, teacher="optional", labels=True, discriminator=True),
    "perceptual": KnownMethod(
        PerceptualDistillation, PerceptualConfig, teacher="optional", labels=True, discriminator=True
    ),
}


def check_method(name: str, options: dict[str, Any], *, teacher: bool, discriminator: bool) -> Any:
    """The method's config, held against what the recipe gives it.

    Args:
        teacher, discriminator: whether there is one.

    Raises:
        BadInput: unknown method or option; a teacher or discriminator missing where the method needs one, or given
            where it has no use for it.
    """
    if name not in METHODS:
        raise BadInput(f"expected a method out of {', '.join(METHODS)}, found {name!r}: choose one.")
    known = METHODS[name]
    config = checked(known.config, options, name)
    needs = {"teacher": (known.teacher, teacher), "discriminator": ("never", discriminator)}
    if known.discriminator:
        needs["discriminator"] = ("always", discriminator)
    for what, (need, given) in needs.items():
        if (need == "always" and not given) or (need == "never" and given):
            wanted, found = (f"no {what}", "one") if given else (f"a {what}", "none")
            raise BadInput(f"expected {wanted} for the method {name!r}, found {found}: see the recipes of that method.")
    return config


def make_method(
    name: str,
    options: dict[str, Any],
    teacher: nn.Module | None = None,
    discriminator: nn.Module | None = None,
    discriminator_teacher: nn.Module | None = None,
) -> Method:
    """The training method of that name. Raises BadInput as `check_method`, and as the method itself."""
    config = check_method(name, options, teacher=teacher is not None, discriminator=discriminator is not None)
    known = METHODS[name]
    networks: dict[str, nn.Module | None] = {}
    if known.teacher != "never":
        networks["teacher"] = teacher
    if known.discriminator:
        networks["discriminator"] = discriminator
    if name == "adversarial":
        networks["discriminator_teacher"] = discriminator_teacher
    elif discriminator_teacher is not None:
        raise BadInput(f"expected no discriminator.teacher for the method {name!r}, found one: leave it out.")
    return known.method(config, **networks)
