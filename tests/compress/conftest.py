"""What several tests of compress share."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor, nn

from compress.checkpoint import Student, load_student, save_student
from compress.models import build

ROOT = Path(__file__).resolve().parents[2]
STEPS = 120
MODEL = {"architecture": "anchor", "options": {"scale": 2, "channels": 8, "blocks": 1, "branches": True}}
ENVIRONMENT = {  # one thread and no GPU, so that the order of sums is always the same; scripts find this tree's packages
    "OMP_NUM_THREADS": "1",
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
}
HELD = str(ROOT / "tests/compress/held.py")
WriteRecipe = Callable[..., Path]


@pytest.fixture(scope="session")
def write_recipe(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> WriteRecipe:
    """Writes a tiny recipe, with the given fields replaced."""

    def write(**changes: object) -> Path:
        recipe = {
            "model": MODEL,
            "data": {"folder": str(photographs), "lr_patch": 16, "batch": 4, "workers": 0},
            "schedule": {"steps": STEPS, "learning_rate": 5e-3, "warmup": 10, "ema": 0.9},
            "validation": {"sets": [str(photographs)], "every": 40},
            "save_every": 20,
            "precision": "float32",
        }
        path = tmp_path_factory.mktemp("recipe") / "recipe.yaml"
        path.write_text(yaml.safe_dump({**recipe, **changes}))
        return path

    return write


def short(steps: int, **more: object) -> dict[str, object]:
    """Changes to that recipe: few steps, no averaging, no validation."""
    return {"schedule": {"steps": steps, "ema": 0, **more}, "validation": {"sets": []}}


def start_command(
    *command: str | Path, launcher: tuple[str, ...] = (), hold: Path | None = None, **environment: str
) -> "subprocess.Popen[str]":
    """`python -m <command>` in a process of its own, or in several that the launcher starts.

    With `hold`, which is made, trainings wait after every save but their last while that file exists.
    """
    if hold:
        hold.touch()
        environment["HOLD"] = str(hold)
    return subprocess.Popen(
        [sys.executable, *launcher, HELD if hold else "-m", *map(str, command)],
        cwd=ROOT, env=os.environ | ENVIRONMENT | environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def start_training(
    recipe: Path,
    out: Path,
    *options: str,
    launcher: tuple[str, ...] = (),
    hold: Path | None = None,
    **environment: str,
) -> "subprocess.Popen[str]":
    return start_command("compress.train", recipe, "--out", out, *options, launcher=launcher, hold=hold, **environment)


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    """Until a process that goes on has written that file."""
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1]


def weights(out: Path) -> dict[str, Tensor]:
    """Of the student that a run left."""
    return load_student(out / "student.pt").weights


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    """Whether weights are equal bit for bit."""
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    network = build("srresnet", {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 3, "tail_kernel": 3})
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    save_student(Student.of(network), path)
    return path


@pytest.fixture(scope="session")
def randomised() -> Callable[..., nn.Module]:
    """Makes every parameter and every batch-norm statistic of a network differ from its initial value."""

    def randomise(network: nn.Module, seed: int = 0) -> nn.Module:
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in network.parameters():
                size = max(parameter.abs().mean().item(), 0.1)
                parameter.add_(0.2 * size * torch.randn(parameter.shape, generator=draw))
            for module in network.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.running_mean.copy_(0.3 * torch.randn(module.running_mean.shape, generator=draw))
                    module.running_var.copy_(0.5 + torch.rand(module.running_var.shape, generator=draw))
                if isinstance(module, nn.PReLU):
                    module.weight.fill_(float(torch.rand((), generator=draw)))
        return network

    return randomise
