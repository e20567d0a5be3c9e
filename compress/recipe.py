"""A recipe: everything that defines one training run, as a YAML file with typed, checked fields."""

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from compress.cli import Parser
from compress.data.sources import DEFAULT_SOURCE
from compress.errors import BadInput
from compress.teachers import TeacherSpec
from compress.variants import read_variant

HELP = (
    "Trains a student, alone or under torchrun. Every option of the recipe can be changed on the command line, as in "
    "`--schedule.steps 1000`; `--quick` takes the recipe's short form, `--variant NAME` another one. A run that was "
    "stopped or killed goes on when the same command is given again."
)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """The network to train.

    Attributes:
        architecture: a name in `compress.models.ARCHITECTURES`.
        options: of the architecture.
        start: a student.pt to go on from, which then brings its own architecture and options.
        sizes: a JSON file made by `compress.pruning.sizes`, whose options go before those named here.
    """

    architecture: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    start: Path | None = None
    sizes: Path | None = None


@dataclass(frozen=True, kw_only=True)
class MethodSpec:
    """How to train it.

    Attributes:
        name: a name in `compress.methods.METHODS`.
        options: of the method.
    """

    name: str = "supervised"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TechniqueSpec:
    """What happens to the weights while it trains.

    Attributes:
        name: a name in `compress.techniques.TECHNIQUES`; a student with masks keeps them in any case.
        options: of the technique.
    """

    name: str = "none"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSpec:
    """The discriminator of an adversarial method; see `compress.models.discriminator`.

    Attributes:
        width: channels of its first layer, 64 in SRGAN.
        dense: units of its hidden dense layer.
        start: a discriminator.pt to go on from, of the same sizes.
        teacher: a discriminator.pt to distil, for methods that do.
    """

    width: int = 64
    dense: int = 1024
    start: Path | None = None
    teacher: Path | None = None


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What to train on.

    Attributes:
        folder: of images, or 'skimage' for the photographs that scikit-image installs.
        lr_patch: side of the LR patches in pixels.
        batch: patches per process and step.
        workers: loader processes; left out, a number that suits the machine.
        cache_labels: compute a teacher's outputs once for all images and keep them on disk.
    """

    folder: str = DEFAULT_SOURCE
    lr_patch: int = 32
    batch: int = 16
    workers: int | None = None
    cache_labels: bool = True


@dataclass(frozen=True, kw_only=True)
class ScheduleSpec:
    """How long and how fast. Adam; see `compress.schedule.learning_rate`.

    Attributes:
        steps: optimiser steps.
        learning_rate: at its highest.
        kind: 'cosine' to `final_rate`, or 'step': times `gamma` every `every` steps.
        warmup: steps of linear rise at the start.
        final_rate: where the cosine ends.
        every, gamma: of kind 'step'.
        betas: of Adam.
        clip_norm: largest norm of the gradient; 0 for no clipping.
        ema: decay of the exponential moving average of the weights, which is what is kept; 0 for none.
    """

    steps: int
    learning_rate: float = 1e-3
    kind: Literal["cosine", "step"] = "cosine"
    warmup: int = 0
    final_rate: float = 1e-6
    every: int = 200_000
    gamma: float = 0.5
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 1.0
    ema: float = 0.999


@dataclass(frozen=True, kw_only=True)
class ValidationSpec:
    """How the run is watched.

    Attributes:
        sets: benchmark sets (see `compress.evaluate`).
        data: the folder that holds them.
        every: steps between validations; the end of the run is always one.
    """

    sets: list[str] = field(default_factory=lambda: ["skimage"])
    data: Path | None = None
    every: int = 1000


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One training run.

    Attributes:
        model, method, technique, teacher, discriminator, data, schedule, validation: see their classes.
        out: folder of the run: state.pt, student.pt, log.csv, curve.png, strip.png; adversarial runs leave a
            discriminator.pt too.
        seed: of the initial weights and of the patches.
        precision: 'bf16' (mixed), 'float32', or 'auto': bf16 where the processor computes it natively.
        save_every: steps between saves of the resumable state.
    """

    model: ModelSpec
    schedule: ScheduleSpec
    method: MethodSpec = MethodSpec()
    technique: TechniqueSpec = TechniqueSpec()
    teacher: TeacherSpec | None = None
    discriminator: DiscriminatorSpec | None = None
    data: DataSpec = DataSpec()
    validation: ValidationSpec = ValidationSpec()
    out: Path = Path("runs/train")
    seed: int = 0
    precision: Literal["auto", "bf16", "float32"] = "auto"
    save_every: int = 500

    def fingerprint(self) -> dict[str, Any]:
        """What must not change between the start of a run and its resumption, as plain values."""
        plain = dataclasses.asdict(self)
        for free in ("out", "validation", "save_every"):
            del plain[free]
        plain["data"].pop("workers")
        return _plain(plain)

    def check(self) -> None:
        """Raises BadInput for numbers that cannot work, before anything is loaded."""
        schedule, data, model = self.schedule, self.data, self.model
        for name, value, low, high in (
            ("schedule.steps", schedule.steps, 1, math.inf),
            ("schedule.learning_rate", schedule.learning_rate, 1e-12, 10),
            ("schedule.warmup", schedule.warmup, 0, schedule.steps),
            ("schedule.every", schedule.every, 1, math.inf),
            ("schedule.ema", schedule.ema, 0, 0.999999),
            ("schedule.clip_norm", schedule.clip_norm, 0, math.inf),
            ("data.lr_patch", data.lr_patch, 8, 1024),
            ("data.batch", data.batch, 1, 65536),
            ("validation.every", self.validation.every, 1, math.inf),
            ("save_every", self.save_every, 1, math.inf),
        ):
            if not low <= value <= high:
                raise BadInput(f"expected {name} between {low} and {high}, found {value}: correct the recipe.")
        if (model.architecture is None) == (model.start is None):
            found = "neither" if model.start is None else "both"
            raise BadInput(f"expected either model.architecture or model.start in the recipe, found {found}: give one.")
        if model.start and (model.options or model.sizes):
            raise BadInput(
                "expected no model.options and no model.sizes beside model.start, found some: the student.pt brings its own."
            )


def named_paths(fingerprint: dict[str, Any]) -> dict[str, Any]:
    """A fingerprint with names in place of paths, for provenance: where files lay is nobody else's business."""
    named = dict(fingerprint)
    for section, paths in PATHS.items():
        if fingerprint[section]:
            names = {path: value and Path(value).name for path, value in fingerprint[section].items() if path in paths}
            named[section] = {**fingerprint[section], **names}
    return named


PATHS = {
    "model": ("start", "sizes"),
    "data": ("folder",),
    "teacher": ("file",),
    "discriminator": ("start", "teacher"),
}


def _plain(value: Any) -> Any:
    """Paths as strings, tuples as lists, so that what was stored compares equal to what was read."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def read_recipe(path: Path, overrides: Sequence[str] = (), variant: str | None = None) -> Recipe:
    """A recipe from its YAML file, in one of its variants, with `--name.of.option value` overrides.

    Raises:
        BadInput: no such file, not YAML, an unknown variant or key, a value of the wrong type.
    """
    if not path.is_file():
        raise BadInput(f"expected a recipe (a YAML file), found nothing at {path}: see the folder recipes/.")
    return recipe_from(read_variant(path, variant), overrides)


def recipe_from(values: dict[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from plain values. Raises BadInput for an unknown key or a value of the wrong type."""
    parser = recipe_parser()
    parsed = parser.instantiate(parser.parse_args(["--config", json.dumps(values), *overrides]))
    return Recipe(**{field.name: getattr(parsed, field.name) for field in dataclasses.fields(Recipe)})


def recipe_parser() -> Parser:
    """The command line of the recipe's options."""
    parser = Parser(prog="python -m compress.train recipes/NAME.yaml", description=HELP)
    parser.add_argument("--config", action="config", help="the recipe; on the command line simply the first argument")
    parser.add_class_arguments(Recipe, as_group=False)
    return parser
