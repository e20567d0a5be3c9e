"""Techniques by name; see compress.technique."""

from dataclasses import dataclass
from typing import Any

from compress.errors import BadInput
from compress.options import checked
from compress.pruning.channel_penalty import ChannelPenalty, ChannelPenaltyConfig
from compress.pruning.magnitude import KeepMasks, Magnitude, MagnitudeConfig
from compress.pruning.masks import Masks
from compress.pruning.sparsify import Sparsify, SparsifyConfig
from compress.quantization.qat import QatConfig, QuantizationAware
from compress.technique import Technique


@dataclass(frozen=True)
class KnownTechnique:
    """A technique's class, the dataclass that configures it, and whether it keeps the masks that a student brings."""

    technique: type[Technique]
    config: type
    keeps_masks: bool = False


TECHNIQUES = {
    "sparsify": KnownTechnique(Sparsify, SparsifyConfig),
    "magnitude": KnownTechnique(Magnitude, MagnitudeConfig, keeps_masks=True),
    "channels": KnownTechnique(ChannelPenalty, ChannelPenaltyConfig),
    "qat": KnownTechnique(QuantizationAware, QatConfig, keeps_masks=True),
}


def check_technique(name: str, options: dict[str, Any]) -> Any:
    """The technique's config; None for 'none'. Raises BadInput for an unknown technique or option."""
    if name == "none":
        if options:
            raise BadInput(f"expected no options without a technique, found {', '.join(options)}: name the technique.")
        return None
    if name not in TECHNIQUES:
        raise BadInput(f"expected a technique out of none, {', '.join(TECHNIQUES)}, found {name!r}: choose one.")
    return checked(TECHNIQUES[name].config, options, name)


def make_technique(name: str, options: dict[str, Any], masks: Masks | None = None) -> Technique:
    """The technique of that name. With 'none', masks that the student brings are kept.

    Raises:
        BadInput: unknown technique or option, or one that would fill the zeros of a masked student.
    """
    config = check_technique(name, options)
    if config is None:
        return KeepMasks(masks) if masks else Technique()
    known = TECHNIQUES[name]
    if masks is None:
        return known.technique(config)
    if not known.keeps_masks:
        raise BadInput(
            f"expected a student without masks for the technique {name!r}, found one with {masks.pattern} zeros, which "
            "it would fill: start from the student before it was masked."
        )
    return known.technique(config, masks)
