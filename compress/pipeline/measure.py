"""result.json: what a stage of a pipeline made, in figures; the results page is made of these files alone."""

import csv
import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compress.card import measure
from compress.checkpoint import Student, load_student
from compress.data.benchmarks import Benchmark, find_benchmarks, open_benchmark
from compress.data.bicubic import imresize
from compress.errors import BadInput
from compress.evaluate import Upscaler, bicubic_upscaler, evaluate, torch_upscaler
from compress.files import parse_json, sha256, write_text
from compress.logbook import save_strip
from compress.metrics import Backbone
from compress.pipeline.costs import costs
from compress.pipeline.records import read_record
from compress.pipeline.stages import REFERENCE, STUDENT, TRAIN, Stage

FILE = "result.json"
MADE_OF = "made_of"  # what figures were made of, to know whether they still hold
FORMAT = 1
TAIL = 0.1  # share of the log that the final losses are averaged over

Lpips = Literal["alex", "squeeze", "vgg", "none"]


def backbone_of(lpips: Lpips) -> Backbone | None:
    """The backbone, or None for 'none'."""
    return None if lpips == "none" else lpips


def present(sets: Sequence[str], data: Path | None) -> list[str]:
    """Those of the benchmark sets that are there: below the data folder, built in, or folders of images."""
    known = {name.lower() for name in find_benchmarks(data)}
    return [name for name in sets if name.lower() in known or Path(name).is_dir()]


def write_result(
    stage: Stage, out: Path, *, sets: Sequence[str], data: Path | None, lpips: Lpips, start: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Measures what a stage made and writes result.json into its folder; one that still holds is kept.

    Args:
        stage: a finished one that makes a student.
        out: the pipeline's folder.
        sets: benchmark sets to judge on; none leaves only the costs.
        data: folder of the sets.
        lpips: backbone of LPIPS.
        start: the result of the stage whose weights it went on from.
    """
    folder = out / stage.name
    path = folder / FILE
    made_of = {"format": FORMAT, "sha256": sha256(folder / STUDENT), "sets": list(sets), "lpips": lpips}
    if held := _holding(path, made_of):
        return held
    student = load_student(folder / STUDENT)
    bare = dataclasses.replace(student, metrics=[])
    result = {
        MADE_OF: made_of,
        **describe(stage, folder, student, start),
        **costs(student).to_dict(),
        "metrics": measure(bare, sets, data, backbone_of(lpips)).metrics if sets else [],
    }
    return _write(path, result)


def write_sizes(stage: Stage, out: Path) -> dict[str, Any]:
    """result.json of a stage that chose sizes: what it wrote, without its tables."""
    folder = out / stage.name
    made_of = {"format": FORMAT, "sha256": sha256(folder / stage.product)}
    if held := _holding(folder / FILE, made_of):
        return held
    kept = {
        key: value for key, value in read_json(folder / stage.product).items() if key not in ("layers", "candidates")
    }
    return _write(folder / FILE, {MADE_OF: made_of, "stage": stage.name, "kind": stage.kind, "sizes": kept})


def describe(stage: Stage, folder: Path, student: Student, start: Mapping[str, Any] | None) -> dict[str, Any]:
    """Where a stage's student comes from: network, settings, steps, data, losses at the end."""
    record = read_record(folder)
    assert record is not None
    settings, provenance = record.settings, student.provenance
    trained = stage.kind == TRAIN
    steps = settings["schedule"]["steps"] if trained else 0
    before = start["steps_total"] if start else _steps_of_file(stage.start)
    total = None if before is None or stage.kind == "published" else before + steps
    return {
        "stage": stage.name,
        "kind": stage.kind,
        "options": _without_folders({key: value for key, value in settings.items() if key != "kind"}),
        "architecture": student.architecture,
        "config": student.config,
        "scale": student.scale,
        "precision": student.precision,
        "pattern": student.sparsity.pattern if student.sparsity else None,
        "steps": steps,
        "steps_total": total,
        "start": _named(stage.start) if stage.start else None,
        "teacher": _named(settings["teacher"]["file"]) if trained and settings["teacher"] else None,
        "seconds": record.seconds,
        "seed": settings["seed"] if trained else None,
        "data": provenance.get("data") if trained else None,
        "batch": provenance.get("batch") if trained else None,
        "training_precision": provenance.get("precision") if trained else None,
        "versions": provenance.get("versions") if trained else None,
        "losses": final_losses(folder / "log.csv") if trained else {},
    }


def final_losses(log: Path) -> dict[str, float]:
    """Mean of each loss of a run's log over its last tenth, at least one row; 'loss' is the sum that was minimised."""
    if not log.is_file():
        return {}
    with log.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("loss")]
    last = rows[-max(1, round(TAIL * len(rows))) :]
    names = [name for name in (rows[0] if rows else {}) if name.partition("_")[0] == "loss"]
    values = {name: [float(row[name]) for row in last if row.get(name)] for name in names}
    return {name: sum(found) / len(found) for name, found in values.items() if found}


def write_bicubic(out: Path, scale: int, sets: Sequence[str], data: Path | None, lpips: Lpips) -> dict[str, Any]:
    """Measures MATLAB's bicubic, the floor of every table, and writes bicubic.json; one that still holds is kept."""
    path = out / "bicubic.json"
    made_of = {"format": FORMAT, "scale": scale, "sets": list(sets), "lpips": lpips}
    if held := _holding(path, made_of):
        return held
    rows = [
        evaluate(bicubic_upscaler(scale), open_benchmark(name, scale, data), lpips=backbone_of(lpips)) for name in sets
    ]
    metrics = [{key: value for key, value in row.items() if key != "per_image"} for row in rows]
    return _write(path, {MADE_OF: made_of, "scale": scale, "metrics": metrics})


def draw_strip(path: Path, students: Mapping[str, Path], benchmark: Benchmark, picture: str | None) -> None:
    """Writes the same crop of the truth, of every student's output and of bicubic side by side.

    Args:
        path: the PNG.
        students: student.pt by caption.
        benchmark: the set that the picture is of.
        picture: its name; None for the set's first.

    Raises:
        BadInput: the set has no picture of that name.
    """
    found = next(((lr, hr) for name, lr, hr in benchmark if picture in (None, name)), None)
    if found is None:
        names = ", ".join(pair.name for pair in benchmark.pairs)
        raise BadInput(f"expected a picture of {benchmark.name} ({names}), found {picture!r}: correct report.picture.")
    lr, hr = found
    upscalers: dict[str, Upscaler] = {
        caption: torch_upscaler(load_student(file).reference()) for caption, file in students.items()
    }
    pictures = {"truth": hr, **{caption: np.asarray(upscale(lr)) for caption, upscale in upscalers.items()}}
    save_strip(path, pictures | {"bicubic": imresize(lr, benchmark.scale)})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises BadInput for anything else."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(
            f"expected figures of a pipeline (JSON) in {path}, found something else: make it anew."
        ) from error
    if not isinstance(content, dict):
        raise BadInput(f"expected figures of a pipeline (JSON) in {path}, found something else: make it anew.")
    return content


def _without_folders(value: Any) -> Any:
    """Names in place of paths: where files lay is nobody else's business."""
    if isinstance(value, dict):
        return {key: _without_folders(one) for key, one in value.items()}
    if isinstance(value, str) and not REFERENCE.fullmatch(value):
        return Path(value).name if "/" in value else value
    return value


def _named(value: str) -> str:
    """The stage behind a reference, or the name of a file."""
    found = REFERENCE.fullmatch(value)
    return found[1] if found else Path(value).name


def _steps_of_file(start: str | None) -> int | None:
    """Steps that a student from outside the pipeline was trained before this stage went on from it; None: unknown."""
    if start is None:
        return 0
    return load_student(start).provenance.get("steps")


def _holding(path: Path, made_of: dict[str, Any]) -> dict[str, Any] | None:
    """The figures in a file where they were made of the same as now would be."""
    before = read_json(path) if path.is_file() else {}
    return before if before.get(MADE_OF) == made_of else None


def _write(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    finite = _finite(result)
    write_text(path, json.dumps(finite, indent=1, sort_keys=True) + "\n")
    return finite


def _finite(value: Any) -> Any:
    """JSON has no inf and nan (the PSNR of identical images, the LPIPS of tiny ones): they become None."""
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
