"""Several processes under torchrun do what one does with all of their patches."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from compress.checkpoint import load_student
from compress.models import build
from compress.recipe import read_recipe
from compress.train import train
from tests.compress.conftest import ENVIRONMENT, ROOT, WriteRecipe, same, short, start_training, weights
from tests.compress.distributed.conftest import BATCH_NORM, LIMIT, end, launcher_of_a_node, launcher_of_two, two_nodes

PLAIN = {"architecture": "anchor", "options": {"scale": 2, "channels": 8, "blocks": 1}}


def difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    assert a.keys() == b.keys()
    return max((a[key].double() - b[key].double()).abs().max().item() for key in a)


@pytest.fixture
def no_seed_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Fabric sets it: undone after the test


@pytest.fixture(scope="module")
def few_steps(write_recipe: WriteRecipe) -> Path:
    return write_recipe(model=PLAIN, **short(4, learning_rate=2e-4, clip_norm=0.0))


@pytest.fixture(scope="module")
def two_processes(few_steps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run in two processes on one machine."""
    out = tmp_path_factory.mktemp("two") / "run"
    end(start_training(few_steps, out, launcher=launcher_of_two()))
    return out


def test_two_processes_train_as_one_with_the_double_batch(few_steps, two_processes, tmp_path, no_seed_left):
    train(read_recipe(few_steps, ["--out", str(tmp_path / "one"), "--data.batch", "8"]))
    one = weights(tmp_path / "one")
    assert difference(one, weights(two_processes)) < 1e-6
    torch.manual_seed(0)
    assert difference(one, build("anchor", PLAIN["options"]).state_dict()) > 4e-4
    assert load_student(two_processes / "student.pt").provenance["batch"] == 8
    # Adam's first moment is the decaying sum of the averaged gradients
    moments = [
        torch.load(out / "state.pt", weights_only=True)["optimizer"]["state"]
        for out in (tmp_path / "one", two_processes)
    ]
    for index, moment in moments[0].items():
        assert (moment["exp_avg"] - moments[1][index]["exp_avg"]).abs().max() < 1e-6
        assert moment["exp_avg"].abs().max() > 1e-5


def test_two_nodes_that_share_no_disk_train_as_two_processes_and_go_on_as_them(few_steps, two_processes, tmp_path):
    rendezvous = launcher_of_a_node()

    def run() -> None:
        for node in two_nodes(few_steps, tmp_path, rendezvous):
            end(node)

    run()
    assert same(weights(tmp_path / "first"), weights(two_processes))
    assert not (tmp_path / "second").exists()
    run()  # finished: the second node must hear of it from the first
    assert same(weights(tmp_path / "first"), weights(two_processes))


def test_methods_with_two_networks_or_many_forward_passes_keep_all_processes_equal(
    write_recipe, teacher_file, tmp_path, no_seed_left
):
    fast = {"steps": 4, "learning_rate": 2e-4, "clip_norm": 0.0, "ema": 0.5}
    common: dict[str, Any] = {"schedule": fast, "validation": {"sets": []}, "save_every": 2}
    dukd = {"method": {"name": "dukd"}, "teacher": {"file": str(teacher_file)}}
    adversarial = {
        "model": BATCH_NORM,
        "method": {"name": "adversarial", "options": {"content": 0.0, "truth": 1.0, "adversarial": 0.1}},
        "discriminator": {"width": 4, "dense": 8},
    }
    changes = {
        "adversarial": adversarial,
        "adversarial_again": adversarial,
        "dukd_batch_norm": {"model": BATCH_NORM, **dukd},
        "dukd": {"model": PLAIN, **dukd},
        "fakd": {"model": PLAIN, "method": {"name": "fakd"}, "teacher": {"file": str(teacher_file)}},
        "qat": {"model": PLAIN, "technique": {"name": "qat"}},
        "sparsify": {
            "model": PLAIN,
            "technique": {"name": "sparsify", "options": {"prox_steps": 2}},
            "schedule": {**fast, "ema": 0},
        },
        "one_step": {"model": BATCH_NORM, "schedule": {"steps": 1, "ema": 0}},
    }
    recipes = {name: write_recipe(**{**common, **change}, out=str(tmp_path / name)) for name, change in changes.items()}
    launched = subprocess.run(
        [sys.executable, *launcher_of_two(), str(ROOT / "tests/compress/distributed/all_ranks.py"), *map(str, recipes.values())],
        cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    held = {name: [torch.load(tmp_path / name / f"rank{rank}.pt") for rank in range(2)] for name in recipes}
    for name, (first, second) in held.items():
        assert same(first, second), name
        student = load_student(tmp_path / name / "student.pt")
        assert all(value.isfinite().all() for value in student.weights.values())
    assert any(key.startswith("discriminator.") for key in held["adversarial"][0])
    assert same(held["adversarial"][0], held["adversarial_again"][0])
    # with batch norm this cannot be: every process normalises by the statistics of its own patches
    for name in ("dukd", "fakd"):
        train(read_recipe(recipes[name], ["--out", str(tmp_path / f"{name}_alone"), "--data.batch", "8"]))
        assert difference(weights(tmp_path / f"{name}_alone"), weights(tmp_path / name)) < 1e-6, name
    # but what it keeps is the mean of what all of them saw
    train(read_recipe(recipes["one_step"], ["--out", str(tmp_path / "one_step_alone"), "--data.batch", "8"]))
    alone = torch.load(tmp_path / "one_step_alone" / "state.pt", weights_only=True)["student"]
    means = [key for key in alone if key.endswith("running_mean")]
    assert means
    for key in means[:1]:  # the input of the others went through one that normalises
        assert alone[key].abs().max() > 1e-4
        assert (alone[key] - held["one_step"][0][f"student.{key}"]).abs().max() < 1e-7


def test_all_processes_leave_the_group_before_they_end(few_steps, tmp_path):
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(
        "import atexit, runpy, sys, torch\n"
        # a whole line at once, for what torchrun starts is unbuffered, and print writes piece by piece
        "atexit.register(lambda: sys.stderr.write(f'still in the group: {torch.distributed.is_initialized()}\\n'))\n"
        "sys.argv[0] = 'compress.train'\n"
        "runpy.run_module('compress.train', run_name='__main__', alter_sys=True)\n"
    )
    launched = subprocess.run(
        [sys.executable, *launcher_of_two(), str(wrapper), str(few_steps), "--out", str(tmp_path / "run")],
        cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=LIMIT,
        check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    assert re.findall("still in the group: (.*)", launched.stderr) == ["False", "False"], launched.stderr
