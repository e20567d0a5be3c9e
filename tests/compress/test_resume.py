"""Runs with more state than weights and moments go on to the same result when they are stopped half way."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from compress.checkpoint import Student, load_student, save_student
from compress.errors import run_command
from compress.models import build
from compress.models.discriminator import load_discriminator
from compress.run import Run
from compress.train import main

STEPS = 30
NO_VGG = {"content": 0.0, "truth": 1.0}
JUDGE = {"width": 2, "dense": 4}
KINDS: dict[str, dict[str, Any]] = {
    "adversarial": {"method": {"name": "adversarial", "options": NO_VGG}, "discriminator": JUDGE},
    "dukd": {"method": {"name": "dukd"}, "teacher": True},
    "multilap": {"method": {"name": "multilap"}, "teacher": True},
    "fakd": {"method": {"name": "fakd"}, "teacher": True},
    "magnitude": {"technique": {"name": "magnitude", "options": {"sparsity": 0.6, "start": 2, "end": 25, "every": 4}}},
    "sparsify": {
        "technique": {"name": "sparsify", "options": {"penalty": 0.05, "prox_steps": 12}},
        "schedule": {"ema": 0.0},
    },
    "channels": {
        "technique": {"name": "channels", "options": {"block_channels": 8, "growth": 0.05, "every": 1}},
        "schedule": {"ema": 0.0},
    },
    "qat": {"technique": {"name": "qat", "options": {"crops": 16}}},
}
save = Run._save


def _save_and_stop(run: Run) -> None:
    save(run)
    os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the training in this process, stopped as soon as it has saved once where that is asked for."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")

    def start(recipe: Path, out: Path, *, stop: bool) -> int:
        monkeypatch.setattr(sys, "argv", ["train", str(recipe), "--out", str(out)])
        with monkeypatch.context() as patch:
            patch.setattr(Run, "_save", _save_and_stop if stop else Run._save)
            with pytest.raises(SystemExit) as ended:
                run_command(main)
        return int(ended.value.code or 0)

    return start


@pytest.fixture(scope="module")
def start_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(3)
    network = build("edsr", {"scale": 2, "channels": 16, "blocks": 1})
    path = tmp_path_factory.mktemp("start") / "student.pt"
    save_student(Student.of(network), path)
    return path


def _recipe(kind: str, folder: Path, photographs: Path, start: Path, teacher: Path) -> Path:
    chosen = dict(KINDS[kind])
    recipe = {
        "model": {"start": str(start)},
        "data": {"folder": str(photographs), "lr_patch": 16, "batch": 2, "workers": 0},
        "validation": {"sets": [], "every": STEPS},
        "save_every": 10,
        "precision": "float32",
        "schedule": {"steps": STEPS, "learning_rate": 1e-3, "ema": 0.9, **chosen.pop("schedule", {})},
    }
    if chosen.pop("teacher", False):
        recipe["teacher"] = {"file": str(teacher)}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe | chosen))
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_stopped_run_goes_on_to_the_same_student(kind, run, tmp_path, photographs, start_file, teacher_file):
    recipe = _recipe(kind, tmp_path, photographs, start_file, teacher_file)
    assert run(recipe, tmp_path / "whole", stop=False) == 0
    assert run(recipe, tmp_path / "halves", stop=True) == 130
    stopped = torch.load(tmp_path / "halves" / "state.pt", weights_only=True)["step"]
    assert stopped == 11, "a stop ends the step in progress"
    assert not (tmp_path / "halves" / "student.pt").exists()
    assert run(recipe, tmp_path / "halves", stop=False) == 0
    whole, halves = (load_student(tmp_path / name / "student.pt") for name in ("whole", "halves"))
    assert whole.config == halves.config
    assert all(torch.equal(whole.weights[key], halves.weights[key]) for key in whole.weights)
    first = load_student(start_file).weights
    assert any(key not in first or not torch.equal(whole.weights[key], first[key]) for key in whole.weights)
    if kind == "magnitude":
        assert whole.sparsity.sparsity() == pytest.approx(0.6, abs=0.01)
        assert all(
            torch.equal(whole.sparsity.layers[key], halves.sparsity.layers[key]) for key in whole.sparsity.layers
        )
    if kind == "qat":
        assert whole.quantization.activations == halves.quantization.activations
    if kind == "adversarial":
        judges = [load_discriminator(tmp_path / name / "discriminator.pt").state_dict() for name in ("whole", "halves")]
        assert all(torch.equal(judges[0][key], judges[1][key]) for key in judges[0])
    assert whole.provenance["start"]["sha256"] == load_student(start_file).file_hash
