"""Neither a death among several processes nor a stop loses the run: bit for bit, for sums of two terms have no order."""

import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
import yaml

from compress.checkpoint import load_student
from tests.compress.conftest import MODEL, ROOT, WriteRecipe, same, start_command, start_training, wait_for, weights
from tests.compress.distributed.conftest import (
    BATCH_NORM,
    TORCHRUN,
    Launcher,
    end,
    launcher_of_a_node,
    launcher_of_two,
    two_nodes,
)

RESTARTS = (*TORCHRUN, "--nproc_per_node=2", "--standalone", "--max-restarts=1")
RESTARTING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
LONG = 60  # steps, saved after every 20


def _workers(launcher: Launcher) -> dict[int, int]:
    """Process ids of a launcher's workers, by rank."""
    return {int(_environment(pid)["RANK"]): pid for pid in _children(launcher.pid) if "RANK" in _environment(pid)}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _environment(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _ours(errors: str) -> list[str]:
    """The error lines of this project; a traceback that leads through it fails the test."""
    assert f'File "{ROOT / "compress"}' not in errors, errors
    return [line for line in errors.splitlines() if line.startswith("error: ")]


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """Keeps trainings that are given it where they last saved, until the test is done with them there and removes it."""
    return tmp_path / "hold"


@pytest.fixture(scope="module")
def long_recipe(write_recipe: WriteRecipe) -> Path:
    return write_recipe(
        model=MODEL, validation={"sets": []}, schedule={"steps": LONG, "learning_rate": 5e-3, "ema": 0.9}
    )


@pytest.fixture(scope="module")
def undisturbed(long_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    end(start_training(long_recipe, out, launcher=launcher_of_two()))
    return out


def test_torchrun_starts_a_killed_worker_again_and_the_run_ends_with_the_same_weights(
    long_recipe, undisturbed, tmp_path, hold
):
    out = tmp_path / "run"
    launched = start_training(long_recipe, out, launcher=RESTARTS, hold=hold, **RESTARTING)
    wait_for(out / "state.pt", launched)
    os.kill(_workers(launched)[1], signal.SIGKILL)
    hold.unlink()
    (line,) = _ours(end(launched))
    assert "another process of the run died" in line
    assert same(weights(out), weights(undisturbed))
    assert (out / "log.csv").read_text().count("\n") == (undisturbed / "log.csv").read_text().count("\n")


@pytest.mark.parametrize("dies", [0, 1])
def test_a_worker_killed_on_one_of_two_nodes_is_started_again_and_the_run_ends_with_the_same_weights(
    long_recipe, undisturbed, tmp_path, hold, dies
):
    launcher = (*launcher_of_a_node(), "--max-restarts=1")
    nodes = two_nodes(long_recipe, tmp_path, launcher, hold=hold, **RESTARTING)
    wait_for(tmp_path / "first" / "state.pt", nodes[0])
    ((_, worker),) = _workers(nodes[dies]).items()
    os.kill(worker, signal.SIGKILL)
    hold.unlink()
    for node in nodes:
        end(node)
    assert same(weights(tmp_path / "first"), weights(undisturbed))
    assert not (tmp_path / "second").exists()


def test_restarts_that_could_not_work_are_refused_before_the_training(long_recipe, tmp_path):
    launched = start_training(long_recipe, tmp_path / "run", launcher=(*launcher_of_two(), "--max-restarts=1"))
    errors = _ours(end(launched, code=1))
    assert errors
    assert {line.split(" in ")[0] for line in errors} == {"error: expected TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"}
    assert not (tmp_path / "run").exists()


def test_a_stopped_and_then_killed_run_says_so_and_goes_on_to_the_same_weights(
    long_recipe, undisturbed, tmp_path, hold
):
    out = tmp_path / "run"
    launched = start_training(long_recipe, out, launcher=launcher_of_two(), hold=hold)
    wait_for(out / "state.pt", launched)
    launched.send_signal(signal.SIGTERM)  # torchrun hands it on to its workers
    _, errors = launched.communicate(timeout=300)
    assert [line.startswith("error: interrupted") for line in _ours(errors)] == [True, True], errors
    assert torch.load(out / "state.pt", weights_only=True)["step"] == 21, "it ends the step in progress"

    saved = (out / "state.pt").stat().st_mtime_ns
    launched = start_training(long_recipe, out, launcher=launcher_of_two(), hold=hold)
    while (out / "state.pt").stat().st_mtime_ns == saved and launched.poll() is None:
        time.sleep(0.002)
    workers = _workers(launched)
    os.kill(workers[0], signal.SIGKILL)
    hold.unlink()
    errors = end(launched, code=1)
    (line,) = _ours(errors)
    assert line == (
        "error: another process of the run died or cannot be reached: see what it printed, then run the same command again "
        f"to go on from the last save in {out}; torchrun does so by itself where --max-restarts says so."
    )
    assert re.search(rf"exitcode +: 1 \(pid: {workers[1]}\)", errors), errors
    assert not (out / "student.pt").exists()

    end(start_training(long_recipe, out, launcher=launcher_of_two()))
    assert same(weights(out), weights(undisturbed))


@pytest.mark.parametrize("which", [0, 1])
def test_a_dead_loader_process_ends_the_run_in_one_sentence(long_recipe, tmp_path, which):
    out = tmp_path / "run"
    process = start_training(long_recipe, out, "--data.workers", "2", "--schedule.steps", "100000")
    wait_for(out / "state.pt", process)
    os.kill(_children(process.pid)[which], signal.SIGKILL)
    assert _ours(end(process, code=1)) == [
        "error: a loader process died, as when memory runs out: lower data.workers or data.batch, then run the same command "
        f"again to go on from the last save in {out}."
    ]


def test_a_pipeline_whose_worker_is_killed_goes_on_in_the_stage_it_was_in(photographs, tmp_path, hold):
    stage = {"schedule": {"steps": LONG, "ema": 0}, "save_every": 20}
    recipe = {
        "title": "Three stages",
        "common": {
            "data": {"folder": str(photographs), "lr_patch": 16, "batch": 2, "workers": 0},
            "validation": {"sets": []},
            "precision": "float32",
        },
        "stages": {
            "first": {
                "train": {
                    "model": {**BATCH_NORM, "options": {**BATCH_NORM["options"], "blocks": 2}},
                    "schedule": {"steps": 2},
                }
            },
            "pruned": {"blocks": {"student": "stage:first", "keep": 1, "by": "last"}},
            "second": {"train": {"model": {"start": "stage:pruned"}, **stage}},
        },
        "report": {"sets": []},
    }
    path, out = tmp_path / "pipeline.yaml", tmp_path / "out"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    launched = start_command("compress.pipeline", path, "--out", out, launcher=RESTARTS, hold=hold, **RESTARTING)
    wait_for(out / "second" / "state.pt", launched)
    os.kill(_workers(launched)[0], signal.SIGKILL)
    hold.unlink()
    errors = end(launched)
    assert len(_ours(errors)) == 1
    assert [line for line in errors.splitlines() if line.startswith("stage ")] == [
        "stage 1 of 3: first", "stage 2 of 3: pruned", "stage 3 of 3: second",
        "stage 1 of 3: first, finished before", "stage 2 of 3: pruned, finished before", "stage 3 of 3: second",
    ]  # fmt: skip
    provenance = load_student(out / "second" / "student.pt").provenance
    assert (provenance["steps"], provenance["batch"]) == (LONG, 4)
