"""stage.json: what a stage of a pipeline was run with, so that it is run once, and never mistaken for another."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from compress.errors import BadInput
from compress.files import parse_json, sha256, write_text
from compress.pipeline.stages import Stage, input_hashes
from compress.variants import differences

FILE = "stage.json"
Standing = Literal["new", "begun", "finished"]


@dataclass(frozen=True)
class Record:
    """What stands in stage.json.

    Attributes:
        settings: of the stage, with all defaults.
        inputs: SHA-256 of the files that it reads, by option.
        product: SHA-256 of what it made; None while it has not finished.
        seconds: that it worked before `begun`.
        begun: when it was last started, in seconds since 1970; None once it has finished.
    """

    settings: dict[str, Any]
    inputs: dict[str, str]
    product: str | None = None
    seconds: float = 0.0
    begun: float | None = None


def read_record(folder: Path) -> Record | None:
    """The record in a stage's folder; None where there is none. Raises BadInput for a damaged one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Record(**parse_json(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(
            f"expected the record of a stage in {path}, found something else: --redo {folder.name}."
        ) from error


def standing(stage: Stage, folder: Path, inputs: Mapping[str, Path]) -> Standing:
    """How far a stage has come in its folder.

    Raises:
        BadInput: it was run with other settings or from other files, or what it made was replaced.
    """
    record = read_record(folder)
    if record is None:
        return "new"
    hashes = input_hashes(inputs)
    differing = differences(record.settings, stage.settings)
    differing += [f"the file of {option}" for option in hashes if hashes[option] != record.inputs.get(option)]
    product = folder / stage.product
    if record.product and product.is_file() and sha256(product) != record.product:
        differing.append(f"its own {stage.product}")
    if differing:
        raise BadInput(
            f"expected the settings and files that stage {stage.name!r} in {folder} was run with, found others "
            f"({', '.join(differing)}): give another --out, or run it anew with --redo {stage.name}."
        )
    return "finished" if record.product and product.is_file() else "begun"


def begin(stage: Stage, folder: Path, inputs: Mapping[str, Path]) -> None:
    """Writes down what a stage is about to be run with; time that an earlier, interrupted run took is kept."""
    record = read_record(folder)
    seconds = 0.0
    if record:
        seconds = record.seconds + (_worked_since(folder, record.begun) if record.begun else 0.0)
    _write(folder, Record(stage.settings, input_hashes(inputs), None, seconds, time.time()))


def finish(stage: Stage, folder: Path) -> None:
    """Writes down that the stage has made its product."""
    record = read_record(folder)
    assert record is not None
    seconds = record.seconds + (time.time() - record.begun if record.begun else 0.0)
    _write(folder, Record(record.settings, record.inputs, sha256(folder / stage.product), round(seconds, 1)))


def remove(folder: Path) -> None:
    """Deletes a stage's folder. Raises BadInput for a folder that no pipeline made."""
    if not folder.exists():
        return
    if not (folder / FILE).is_file():
        raise BadInput(f"expected a stage's folder, found no {FILE} in {folder}: delete it yourself if it may go.")
    shutil.rmtree(folder)


def _worked_since(folder: Path, begun: float) -> float:
    """Seconds from then to the last file that was written: a killed run leaves no other trace of its time."""
    written = [path.stat().st_mtime for path in folder.iterdir() if path.is_file() and path.name != FILE]
    return max(0.0, max(written, default=begun) - begun)


def _write(folder: Path, record: Record) -> None:
    write_text(folder / FILE, json.dumps(asdict(record), indent=1, sort_keys=True) + "\n")
