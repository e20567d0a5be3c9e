"""A pipeline's recipe: title, stages, what they have in common, and what is reported of them."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from compress.cli import Parser
from compress.data.benchmarks import BUILT_IN
from compress.errors import BadInput
from compress.pipeline.measure import Lpips
from compress.pipeline.reading import read_stages
from compress.pipeline.stages import SIZES, Stage, parse_with
from compress.variants import merge, parse_yaml, read_variant, reason

STANDARD = ("Set5", "Set14", "BSD100")
KEYS = ("title", "seed_document", "out", "common", "stages", "report")


@dataclass(frozen=True, kw_only=True)
class Report:
    """What is measured and shown.

    Attributes:
        rows: stages to judge on the sets and to list; left out, all that make a student.
        labels: what to call them in tables.
        sets: benchmark sets; left out, those of common.validation, which stands for all of Set5, Set14 and BSD100 where
            it is some of them. Sets that are not there are left out.
        data: folder of the sets; left out, that of common.validation.
        lpips: backbone of LPIPS.
        strip: stages whose outputs the strip of crops shows between truth and bicubic.
        picture: of the first set, for the strip; left out, its first.
    """

    rows: list[str] | None = None
    labels: dict[str, str] = field(default_factory=dict)
    sets: list[str] | None = None
    data: Path | None = None
    lpips: Lpips = "none"
    strip: list[str] = field(default_factory=list)
    picture: str | None = None


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A recipe that was read and checked.

    Attributes:
        title, seed_document: free text for the results page.
        variant: the variant that was taken, or None.
        out: folder of the stages' folders.
        stages: by name, in order.
        rows: stages to judge and list, in order.
        sets: benchmark sets to judge them on.
        data: folder of the sets.
        report: as in the recipe.
    """

    title: str
    seed_document: str
    variant: str | None
    out: Path
    stages: dict[str, Stage]
    rows: list[str]
    sets: list[str]
    data: Path | None
    report: Report

    @property
    def products(self) -> dict[str, str]:
        """Name of the file that each stage makes."""
        return {name: stage.product for name, stage in self.stages.items()}

    def inputs(self, stage: Stage) -> dict[str, Path]:
        """The files that a stage reads, by option."""
        return stage.inputs(self.out, self.products)

    def with_dependents(self, names: Sequence[str]) -> list[str]:
        """The named stages and all that read, directly or not, what they make."""
        found = set(names)
        for name, stage in self.stages.items():
            if any(reference.stage in found for reference in stage.references):
                found.add(name)
        return [name for name in self.stages if name in found]

    def with_sources(self, names: Sequence[str]) -> list[str]:
        """The named stages and all whose files they read, directly or not."""
        found = set(names)
        for name, stage in reversed(self.stages.items()):
            if name in found:
                found |= {reference.stage for reference in stage.references}
        return [name for name in self.stages if name in found]


def read_pipeline(
    path: str | Path, variant: str | None = None, overrides: Sequence[str] = (), out: Path | None = None
) -> Pipeline:
    """Reads a pipeline's recipe and checks all that can be checked without its files.

    Args:
        path: the YAML file.
        variant: of the recipe, such as quick.
        overrides: `--name.of.option value` pairs, see `read_overrides`.
        out: in place of the recipe's.

    Raises:
        BadInput: anything in the recipe that cannot work.
    """
    document = read_variant(path, variant)
    whole, training = read_overrides(overrides)
    document = merge(document, whole)
    if unknown := [key for key in document if key not in KEYS]:
        raise BadInput(f"expected keys out of {', '.join(KEYS)} in {path}, found {unknown[0]!r}: correct the recipe.")
    texts = {key: document.get(key, "") for key in ("title", "seed_document", "out")}
    for key, text in texts.items():
        if not isinstance(text, str):
            raise BadInput(f"expected text for {key} in {path}, found {text!r}: correct the recipe.")
    common, reported = (_section(document, key, path) for key in ("common", "report"))
    stages = read_stages(document.get("stages"), common, training)
    report = read_report(reported)
    watched = merge(_section(common, "validation", path), _section(training, "validation", path))
    if not out and not texts["out"]:
        raise BadInput(f"expected a folder for the stages as `out` in {path}, found none: name one, or give --out.")
    data = report.data or (Path(watched["data"]) if watched.get("data") else None)
    return Pipeline(
        title=texts["title"] or Path(path).stem,
        seed_document=texts["seed_document"],
        variant=variant,
        out=out or Path(texts["out"]),
        stages=stages,
        rows=_rows(report, stages),
        sets=_sets(watched.get("sets", [BUILT_IN])) if report.sets is None else report.sets,
        data=data,
        report=report,
    )


def read_report(values: dict[str, Any]) -> Report:
    """The section `report`. Raises BadInput for an unknown key or a value of the wrong type."""
    parser = Parser(prog="python -m compress.pipeline recipes/NAME.yaml")
    parser.add_class_arguments(Report, as_group=False)
    parsed = parse_with(parser, values)
    return Report(**{one.name: parsed[one.name] for one in fields(Report)})


def read_overrides(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """`--name.of.option value` pairs as nested values: of the recipe as a whole, and of every training stage.

    Names that begin with `stages.`, `report.` or are `title` mean the recipe as a whole, all others what is common to the
    stages of kind 'train', where they replace what the stages say themselves. Values are YAML.

    Raises:
        BadInput: a word that is no option, or an option without a value.
    """
    whole: dict[str, Any] = {}
    training: dict[str, Any] = {}
    words = list(arguments)
    while words:
        name, equals, text = words.pop(0).partition("=")
        if not name.startswith("--") or not all(name[2:].split(".")):
            raise BadInput(f"expected an option such as --data.folder, found {name!r}: `--help` lists them.")
        if not equals:
            if not words or words[0].startswith("--"):
                raise BadInput(f"expected a value after {name}, found none: give one.")
            text = words.pop(0)
        try:
            value = parse_yaml(text)
        except yaml.YAMLError as error:
            raise BadInput(
                f"expected a YAML value for {name}, found {text!r} ({reason(error)}): correct it."
            ) from error
        *sections, option = name[2:].split(".")
        target = whole if name[2:].split(".")[0] in KEYS else training
        for section in sections:
            target = target.setdefault(section, {})
            if not isinstance(target, dict):
                raise BadInput(f"expected {name} to be an option of a section, found one given as a value: choose one.")
        target[option] = value
    return whole, training


def published_header(pipeline: Pipeline, rows: Sequence[str], strip: bool) -> dict[str, Any]:
    """pipeline.json beside the results: title, order and names of the rows."""
    return {
        "title": pipeline.title,
        "seed_document": pipeline.seed_document,
        "variant": pipeline.variant,
        "rows": list(rows),
        "labels": asdict(pipeline.report)["labels"],
        "strip": strip,
    }


def _section(values: Mapping[str, Any], key: str, path: str | Path) -> dict[str, Any]:
    section = values.get(key) or {}
    if not isinstance(section, dict):
        raise BadInput(f"expected options (`name: value`) for {key} in {path}, found {section!r}: correct the recipe.")
    return section


def _sets(watched: list[str]) -> list[str]:
    """A run is watched on a small set, but judged on all the usual ones."""
    return list(STANDARD) if watched and set(watched) <= set(STANDARD) else watched


def _rows(report: Report, stages: Mapping[str, Stage]) -> list[str]:
    students = [name for name, stage in stages.items() if stage.product != SIZES]
    for option, names in (("rows", report.rows or []), ("strip", report.strip), ("labels", list(report.labels))):
        if unknown := [name for name in names if name not in students]:
            raise BadInput(
                f"expected stages that make a student ({', '.join(students)}) in report.{option}, found {unknown[0]!r}: "
                "correct the recipe."
            )
    return students if report.rows is None else [name for name in students if name in report.rows]
