"""A pipeline's stages, read from its recipe and checked before any of them runs."""

from collections.abc import Mapping
from typing import Any

from compress.errors import BadInput
from compress.pipeline.stages import KINDS, NAME, SIZES, TRAIN, Stage, expected_scale
from compress.variants import merge


def read_stages(document: Any, common: dict[str, Any], overrides: dict[str, Any]) -> dict[str, Stage]:
    """The stages of a recipe, in its order, every one checked as far as that can be done without its files.

    Args:
        document: the recipe's mapping `stages`; a stage that is null is left out.
        common: merged under every stage of kind 'train'.
        overrides: merged over every stage of kind 'train'.

    Raises:
        BadInput: no stages, an unknown kind, a wrong option, or a reference to a stage that does not come before.
    """
    if not isinstance(document, dict) or not any(document.values()):
        raise BadInput("expected `stages: {NAME: {KIND: {...}}}` in the recipe, found none: see the folder recipes/.")
    stages: dict[str, Stage] = {}
    for name, value in document.items():
        if value is None:
            continue
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise BadInput(f"expected names of stages made of letters, digits, _ and -, found {name!r}: rename it.")
        stage = _read_stage(name, value, common, overrides)
        _check_references(stage, stages, document)
        _ = stage.settings  # raises where an option cannot be
        stages[name] = stage
    _check_scales(stages)
    return stages


def _read_stage(name: str, value: Any, common: dict[str, Any], overrides: dict[str, Any]) -> Stage:
    if isinstance(value, dict):  # a variant sets the kind that it replaces to null
        value = {kind: options for kind, options in value.items() if options is not None}
    if not isinstance(value, dict) or len(value) != 1:
        found = f"{len(value)} of them" if isinstance(value, dict) else repr(value)
        raise BadInput(f"expected one kind for stage {name!r} ({', '.join(KINDS)}), found {found}: give one.")
    ((kind, options),) = value.items()
    if kind not in KINDS:
        raise BadInput(f"expected a kind out of {', '.join(KINDS)} for stage {name!r}, found {kind!r}: choose one.")
    if not isinstance(options, dict):
        raise BadInput(f"expected options (`name: value`) for stage {name!r}, found {options!r}: correct the recipe.")
    if kind == TRAIN:
        if "out" in options:
            raise BadInput(f"expected no 'out' in stage {name!r}, found one: the pipeline gives each its own.")
        options = merge(merge(common, options), overrides)
    return Stage(name=name, kind=kind, values=options)


def _check_references(stage: Stage, before: Mapping[str, Stage], document: dict[str, Any]) -> None:
    for reference in stage.references:
        what = f"expected stage {stage.name!r} to read a stage before it ({', '.join(before) or 'it is the first'})"
        if reference.stage not in before:
            later = "comes no earlier" if document.get(reference.stage) else "does not exist"
            raise BadInput(
                f"{what}, found {reference.stage!r} for {reference.option}, which {later}: correct the recipe."
            )
        is_sizes = reference.file is None and before[reference.stage].product == SIZES
        if is_sizes != (reference.option.rpartition(".")[2] == "sizes"):
            wanted, found = ("a student", "sizes") if is_sizes else ("sizes", "a student")
            raise BadInput(
                f"expected {wanted} for {reference.option} of stage {stage.name!r}, found stage {reference.stage!r}, "
                f"which makes {found}: correct the recipe."
            )


def _check_scales(stages: Mapping[str, Stage]) -> None:
    """A teacher of another scale is known before anything is trained."""
    for stage in stages.values():
        for reference in stage.references:
            if reference.option != "teacher.file":
                continue
            mine, theirs = expected_scale(stage, stages), expected_scale(stages[reference.stage], stages)
            if None not in (mine, theirs) and mine != theirs:
                raise BadInput(
                    f"expected a teacher of scale x{mine} for stage {stage.name!r}, found stage {reference.stage!r} of "
                    f"x{theirs}: use another teacher."
                )
