"""The figures of one pipeline as `python -m compress.pipeline ... --publish` left them, read back and looked up."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compress.errors import BadInput
from compress.pipeline.measure import read_json

HEADER = "pipeline.json"
NEEDED = (
    "architecture", "batch", "config", "data", "kind", "macs", "metrics", "nonzero", "options", "parameters",
    "precision", "scale", "start", "steps", "steps_total", "storage", "teacher", "training_precision",
)  # fmt: skip
Metric = Literal["psnr", "ssim", "lpips"]


@dataclass(frozen=True, kw_only=True)
class SeedResults:
    """Figures of one pipeline.

    Attributes:
        name: of its folder, such as poster, by which published figures are found.
        folder: that the figures were read from.
        title, seed_document, variant: as in the recipe.
        labels: what to call rows.
        strip: whether there is a strip of crops.
        rows: a result.json per row, in the order of the stages.
        sizes: of stages that chose sizes.
        bicubic: result row per set.
    """

    name: str
    folder: Path
    title: str
    seed_document: str
    variant: str | None
    labels: dict[str, str]
    strip: bool
    rows: dict[str, dict[str, Any]]
    sizes: dict[str, dict[str, Any]]
    bicubic: dict[str, dict[str, Any]]

    def label(self, row: str) -> str:
        """What to call a row: its label, or its name as code."""
        return self.labels.get(row, f"`{row}`")

    def figure(self, row: str, name: str, metric: Metric) -> float | None:
        """The figure of a row, or of 'bicubic', on the set of that name; None where there is none."""
        metrics = self.bicubic.values() if row == "bicubic" else self.rows.get(row, {}).get("metrics", [])
        return next((one[metric] for one in metrics if one["set"] == name), None)

    def sets(self, rows: Sequence[str], metric: Metric) -> list[str]:
        """Sets on which all the rows have the figure, in the order of the first."""
        first = [one["set"] for one in self.rows.get(rows[0], {}).get("metrics", [])]
        return [name for name in first if all(self.figure(row, name, metric) is not None for row in rows)]

    def mean(self, row: str, metric: Metric, sets: Sequence[str]) -> float:
        """Mean of a row's figures over sets that it has; not a number where there are none."""
        figures = [self.figure(row, name, metric) for name in sets]
        return math.fsum(one for one in figures if one is not None) / len(figures) if figures else math.nan

    def every_set(self) -> list[str]:
        """All sets that any row was judged on."""
        return list(dict.fromkeys(one["set"] for result in self.rows.values() for one in result["metrics"]))


def find_results(folders: Sequence[Path]) -> list[SeedResults]:
    """The results in the folders: each one that --publish wrote, or a folder of such.

    Raises:
        BadInput: a folder without results, or damaged ones.
    """
    found: list[SeedResults] = []
    for folder in folders:
        inner = sorted(folder.glob(f"*/{HEADER}"))
        headers = [folder / HEADER] if (folder / HEADER).is_file() else inner
        if not headers:
            raise BadInput(
                f"expected figures of a pipeline ({HEADER}) in {folder} or in folders there, found none: write them with "
                "`python -m compress.pipeline recipes/NAME.yaml --publish results/NAME`."
            )
        found += [read_results(header.parent) for header in headers]
    names = [seed.name for seed in found]
    if doubles := sorted({name for name in names if names.count(name) > 1}):
        raise BadInput(f"expected results of different names, found {doubles[0]!r} twice: give each folder once.")
    return found


def read_results(folder: Path) -> SeedResults:
    """The results in one folder. Raises BadInput for missing or damaged ones."""
    header = read_json(folder / HEADER)
    try:
        names, files, labels = list(header["rows"]), list(header["files"]), dict(header["labels"])
        rows = {name: _read_row(folder / f"{name}.json") for name in names}
        others = [Path(file).stem for file in files if file.endswith(".json") and Path(file).stem not in names]
        sizes = {name: read_json(folder / f"{name}.json")["sizes"] for name in others if name != "bicubic"}
        floor = read_json(folder / "bicubic.json")["metrics"] if "bicubic.json" in files else []
        return SeedResults(
            name=folder.resolve().name,
            folder=folder,
            title=str(header["title"]),
            seed_document=str(header["seed_document"]),
            variant=header["variant"],
            labels=labels,
            strip=bool(header["strip"]),
            rows=rows,
            sizes=sizes,
            bicubic={row["set"]: row for row in floor},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(
            f"expected figures that --publish wrote in {folder}, found some without {error}: write them anew."
        ) from error


def _read_row(path: Path) -> dict[str, Any]:
    row = read_json(path)
    if missing := [key for key in NEEDED if key not in row]:
        raise KeyError(f"{missing[0]} in {path.name}")
    return row
