"""Stages of a pipeline: each one existing command with its own options, in a folder of its own.

A value `stage:NAME` stands for what an earlier stage makes, `stage:NAME/FILE` for a named file in its folder.
"""

import functools
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compress.cli import Parser, parser_of
from compress.errors import BadInput
from compress.files import sha256
from compress.methods import check_method
from compress.models import build
from compress.recipe import PATHS, Recipe, recipe_from
from compress.techniques import check_technique
from compress.train import train

TRAIN = "train"
STUDENT = "student.pt"
SIZES = "sizes.json"
REFERENCE = re.compile(r"stage:([A-Za-z0-9_-]+)(?:/([A-Za-z0-9_.-]+))?")
NAME = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True)
class Command:
    """A command that a stage can be.

    Attributes:
        module, function: what `python -m MODULE` runs; its positional parameters are the files that it reads.
        product: the file that it makes, given as `out`.
        outputs: files that it makes besides, by option.
    """

    module: str
    function: str = "main"
    product: str = STUDENT
    outputs: Mapping[str, str] = field(default_factory=dict)

    def load(self) -> Callable[..., None]:
        return getattr(importlib.import_module(self.module), self.function)

    def arguments(self, values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
        """All arguments of the function, from those in the recipe. Raises BadInput for one that cannot be."""
        written = {option: str(folder / name) for option, name in ({"out": self.product} | dict(self.outputs)).items()}
        if given := set(values) & set(written):
            raise BadInput(f"expected no {sorted(given)[0]!r} in a stage, found one: the pipeline gives each its own.")
        return parse_with(parser_of(self.load()), {**values, **written})

    def reads(self) -> list[str]:
        """Options that name files which it reads."""
        parameters = inspect.signature(self.load()).parameters.values()
        return [one.name for one in parameters if one.kind is one.POSITIONAL_OR_KEYWORD]


COMMANDS = {
    "blocks": Command("compress.pruning.blocks", outputs={"report": "blocks.json"}),
    "channels": Command("compress.pruning.channels"),
    "magnitude": Command("compress.pruning.magnitude"),
    "sizes": Command("compress.pruning.sizes", product=SIZES),
    "quantize": Command("compress.quantization.__main__"),
    "published": Command("compress.published", "convert"),
    "adopt": Command("compress.adopt"),
}
KINDS = (TRAIN, *COMMANDS)


@dataclass(frozen=True)
class Reference:
    """A value that stands for a file of another stage.

    Attributes:
        option: dotted name of the option that has the value.
        stage: the stage that makes the file.
        file: its name, or None for the stage's product.
    """

    option: str
    stage: str
    file: str | None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage.

    Attributes:
        name: of the stage and of its folder.
        kind: 'train' or a name in `COMMANDS`.
        values: its options as the recipe has them, references unresolved.
    """

    name: str
    kind: str
    values: dict[str, Any]

    @property
    def product(self) -> str:
        """Name of the file that it makes."""
        return STUDENT if self.kind == TRAIN else COMMANDS[self.kind].product

    @property
    def references(self) -> list[Reference]:
        """All values that stand for files of other stages."""
        return list(_references(self.values))

    @property
    def start(self) -> str | None:
        """The value that names the weights this stage goes on from; None where it begins with nothing."""
        return (self.values.get("model") or {}).get("start") if self.kind == TRAIN else self.values.get("student")

    @functools.cached_property
    def settings(self) -> dict[str, Any]:
        """What must not change once the stage has run: its options with all defaults, references as such.

        Raises:
            BadInput: an option that does not exist or cannot be; the stage is named in the sentence.
        """
        try:
            if self.kind != TRAIN:
                command = COMMANDS[self.kind]
                options = command.arguments(self.values, Path())
                own = {key: value for key, value in options.items() if key != "out" and key not in command.outputs}
                return {"kind": self.kind, **_plain(own)}
            recipe = recipe_from(self.values)
            recipe.check()
            _check_names(recipe)
            return {"kind": TRAIN, **_plain(recipe.fingerprint())}
        except BadInput as error:
            raise BadInput(f"stage {self.name!r}: {error}") from error

    def recipe(self, out: Path, products: Mapping[str, str]) -> Recipe:
        """The training run of a stage of kind 'train', with paths in place of references.

        Args:
            out: the pipeline's folder.
            products: the file that each stage makes.
        """
        return recipe_from(_resolved(self.values, out, products) | {"out": str(out / self.name)})

    def inputs(self, out: Path, products: Mapping[str, str]) -> dict[str, Path]:
        """The files that it reads, by dotted option. Folders of images are no inputs in this sense."""
        values = _resolved(self.values, out, products)
        if self.kind != TRAIN:
            return {option: Path(values[option]) for option in COMMANDS[self.kind].reads()}
        named = {f"{section}.{key}": (values.get(section) or {}).get(key) for section, key in _input_options()}
        return {option: Path(path) for option, path in named.items() if path is not None}

    def run(self, out: Path, products: Mapping[str, str]) -> None:
        """Runs it; a training run goes on from its last save. Raises what the command raises."""
        if self.kind == TRAIN:
            train(self.recipe(out, products))
        else:
            command = COMMANDS[self.kind]
            command.load()(**command.arguments(_resolved(self.values, out, products), out / self.name))


def input_hashes(inputs: Mapping[str, Path]) -> dict[str, str]:
    """SHA-256 of those input files that exist, by option."""
    return {option: sha256(path) for option, path in inputs.items() if path.is_file()}


def parse_with(parser: Parser, values: dict[str, Any]) -> dict[str, Any]:
    """Plain values held against a parser's typed options."""
    return vars(parser.instantiate(parser.parse_object(values)))


def expected_model(stage: Stage, stages: Mapping[str, Stage]) -> tuple[str, dict[str, Any]] | None:
    """Architecture and options of what a stage makes, as far as recipes tell without files; None where they do not.

    Blocks and channels that a stage removes are still counted.
    """
    model = stage.values.get("model") or {}
    source = stage.start or model.get("sizes")
    found = REFERENCE.fullmatch(source) if isinstance(source, str) else None
    own = model.get("options") or {}
    if found:
        before = expected_model(stages[found[1]], stages)
        return before and (before[0], {**before[1], **own})
    return (model["architecture"], own) if source is None and stage.kind == TRAIN else None


def expected_scale(stage: Stage, stages: Mapping[str, Stage]) -> int | None:
    """The scale of what a stage makes; see `expected_model`."""
    model = expected_model(stage, stages)
    if model is None:
        return None
    with torch.device("meta"):  # no memory, no time
        return int(build(*model).config.scale)


def _check_names(recipe: Recipe) -> None:
    """Architecture, method and technique, and their options, without loading a teacher or weights of a loss."""
    method, technique = recipe.method, recipe.technique
    if recipe.model.architecture is not None:
        with torch.device("meta"):  # no memory, no time
            build(recipe.model.architecture, recipe.model.options)
    given = {what: getattr(recipe, what) is not None for what in ("teacher", "discriminator")}
    check_method(method.name, method.options, **given)
    check_technique(technique.name, technique.options)


def _input_options() -> Iterator[tuple[str, str]]:
    """Section and name of each option of a training recipe that names a file."""
    return ((section, key) for section, keys in PATHS.items() if section != "data" for key in keys)


def _references(value: Any, option: str = "") -> Iterator[Reference]:
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _references(one, f"{option}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for one in value:
            yield from _references(one, option)
    elif isinstance(value, str) and value.startswith("stage:"):
        found = REFERENCE.fullmatch(value)
        if not found or (found[2] or "").startswith("."):
            raise BadInput(f"expected stage:NAME or stage:NAME/FILE for {option}, found {value!r}: correct the recipe.")
        yield Reference(option, found[1], found[2])


def _resolved(value: Any, out: Path, products: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(one, out, products) for key, one in value.items()}
    if isinstance(value, list):
        return [_resolved(one, out, products) for one in value]
    found = REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return str(out / found[1] / (found[2] or products[found[1]])) if found else value


def _plain(value: Any) -> Any:
    """As it comes back from JSON, so that what was recorded compares equal to what was read."""
    return json.loads(json.dumps(value, default=str))
