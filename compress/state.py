"""The resumable state of a training run: one file, replaced atomically."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from compress.checkpoint import read_tensors
from compress.errors import BadInput
from compress.files import written_atomically


@dataclass
class TrainingState:
    """What a run needs to go on.

    Attributes:
        step: optimiser steps taken.
        student, ema, optimizer: their state dicts; ema is None without averaging.
        sums: losses summed since the last row of the log, and their number under "count".
    """

    step: int
    student: dict[str, Any]
    optimizer: dict[str, Any]
    ema: dict[str, Any] | None
    sums: dict[str, float] = field(default_factory=dict)


def save_state(path: Path, state: TrainingState, fingerprint: dict[str, Any]) -> None:
    """Writes the state and the recipe it belongs to."""
    with written_atomically(path) as part:
        torch.save({"recipe": json.dumps(fingerprint, sort_keys=True), **vars(state)}, part)


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
        differing = ", ".join(_differences(before, fingerprint))
        raise BadInput(
            f"expected the recipe that the run in {path.parent} was started with, found another ({differing}): "
            "give another --out, or delete that folder."
        )
    return TrainingState(**content)


def _differences(before: Any, now: Any, prefix: str = "") -> list[str]:
    if not isinstance(before, dict) or not isinstance(now, dict):
        return [] if before == now else [prefix.removesuffix(".") or "recipe"]
    keys = sorted({*before, *now})
    return [name for key in keys for name in _differences(before.get(key), now.get(key), f"{prefix}{key}.")]
