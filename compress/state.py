"""The resumable state of a training run: one file, replaced atomically."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compress.checkpoint import read_tensors
from compress.errors import BadInput
from compress.files import written_atomically
from compress.variants import differences


@dataclass
class TrainingState:
    """What a run needs to go on.

    Attributes:
        step: optimiser steps taken.
        student, ema, optimizer: their state dicts; ema is None without averaging.
        method, technique: their state dicts: a discriminator, masks, scales.
        discriminator_optimizer: its state dict; None without a discriminator.
        sums: losses summed since the last row of the log, and their number under "count".
    """

    step: int
    student: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    method: dict[str, Any]
    technique: dict[str, Any]
    discriminator_optimizer: dict[str, Any] | None
    sums: dict[str, float] = field(default_factory=dict)


def save_state(path: Path, state: TrainingState, fingerprint: dict[str, Any]) -> None:
    """Writes the state and the recipe it belongs to."""
    with written_atomically(path) as part, part.open("wb") as file:  # a full disk is then an OSError
        torch.save({"recipe": json.dumps(fingerprint, sort_keys=True), **vars(state)}, file)


def check_room(folder: Path, parameters: int) -> None:
    """Raises BadInput where the disk has no room for the state of that many trained parameters.

    Weights, moving average and the two moments of Adam in float32, twice: the old file goes when the new one is whole.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    needed, free = 2 * 4 * 4 * parameters, shutil.disk_usage(existing).free
    if free < needed:
        raise BadInput(
            f"expected {needed / 1e6:.0f} MB for the state of the run in {folder}, found {free / 1e6:.0f} MB free: free some "
            "space, or give another --out."
        )


def load_state(path: Path, fingerprint: dict[str, Any]) -> TrainingState | None:
    """The saved state; None where there is none.

    Raises:
        BadInput: a state of another recipe, naming the fields that differ, or a damaged file.
    """
    if not path.exists():
        return None
    content = read_tensors(path)
    if not isinstance(content, dict) or "recipe" not in content:
        raise BadInput(f"expected the state of a training run, found something else in {path}: give another --out.")
    before = json.loads(content.pop("recipe"))
    if before != fingerprint:
        differing = ", ".join(differences(before, fingerprint))
        raise BadInput(
            f"expected the recipe that the run in {path.parent} was started with, found another ({differing}): "
            "give another --out, or delete that folder."
        )
    return TrainingState(**content)
