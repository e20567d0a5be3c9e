"""Several processes under torchrun: they do what one does, and neither a death among them nor a stop loses the run."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
import yaml
from torch import Tensor

from compress.checkpoint import load_student
from compress.models import build
from compress.recipe import read_recipe
from compress.train import train
from tests.compress.conftest import ENVIRONMENT, MODEL, ROOT, WriteRecipe, same, short, start_training, weights

TORCHRUN = ("-m", "torch.distributed.run")
PLAIN = {"architecture": "anchor", "options": {"scale": 2, "channels": 8, "blocks": 1}}
BATCH_NORM = {
    "architecture": "srresnet",
    "options": {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 3, "tail_kernel": 3},
}
RESTARTS = (*TORCHRUN, "--nproc_per_node=2", "--standalone", "--max-restarts=1")
RESTARTING = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
Launcher: TypeAlias = "subprocess.Popen[str]"
LONG = 150  # steps: long enough to die in the middle


def _two() -> tuple[str, ...]:
    return (*TORCHRUN, "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={_free_port()}")


def _node() -> tuple[str, ...]:
    """The launcher of each of two nodes, with one process."""
    where = f"--rdzv_endpoint=127.0.0.1:{_free_port()}"
    return (*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", where)


def _two_nodes(recipe: Path, folder: Path, launcher: tuple[str, ...], **environment: str) -> list[Launcher]:
    first = start_training(recipe, folder / "first", launcher=launcher, **environment)
    time.sleep(0.5)  # one is always up before the other
    return [first, start_training(recipe, folder / "second", launcher=launcher, **environment)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _end(process: Launcher, code: int = 0) -> str:
    """Waits for the process; its standard error."""
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    return errors


def _workers(launcher: Launcher) -> dict[int, int]:
    """Process ids of a launcher's workers, by rank."""
    return {int(_environment(pid)["RANK"]): pid for pid in _children(launcher.pid) if "RANK" in _environment(pid)}


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _environment(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/environ").read_text().split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def _wait_for(path: Path, process: Launcher) -> None:
    while not path.exists() and process.poll() is None:
        time.sleep(0.002)
    assert process.poll() is None, process.communicate()[1]


def _ours(errors: str) -> list[str]:
    """The error lines of this project; a traceback that leads through it fails the test."""
    assert f'File "{ROOT / "compress"}' not in errors, errors
    return [line for line in errors.splitlines() if line.startswith("error: ")]


def _difference(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
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
    _end(start_training(few_steps, out, launcher=_two()))
    return out


def test_two_processes_train_as_one_with_the_double_batch(few_steps, two_processes, tmp_path, no_seed_left):
    train(read_recipe(few_steps, ["--out", str(tmp_path / "one"), "--data.batch", "8"]))
    one = weights(tmp_path / "one")
    assert _difference(one, weights(two_processes)) < 1e-6
    torch.manual_seed(0)
    assert _difference(one, build("anchor", PLAIN["options"]).state_dict()) > 4e-4
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
    rendezvous = _node()

    def run() -> None:
        for node in _two_nodes(few_steps, tmp_path, rendezvous):
            _end(node)

    run()
    assert same(weights(tmp_path / "first"), weights(two_processes))
    assert not (tmp_path / "second").exists()
    run()  # finished: the second node must hear of it from the first
    assert same(weights(tmp_path / "first"), weights(two_processes))


@pytest.fixture(scope="module")
def long_recipe(write_recipe: WriteRecipe) -> Path:
    return write_recipe(
        model=MODEL, validation={"sets": []}, schedule={"steps": LONG, "learning_rate": 5e-3, "ema": 0.9}
    )


@pytest.fixture(scope="module")
def undisturbed(long_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "run"
    _end(start_training(long_recipe, out, launcher=_two()))
    return out


# Bit for bit: every sum over two processes has two terms, whose order does not matter.


def test_torchrun_starts_a_killed_worker_again_and_the_run_ends_with_the_same_weights(
    long_recipe, undisturbed, tmp_path
):
    out = tmp_path / "run"
    launched = start_training(long_recipe, out, launcher=RESTARTS, **RESTARTING)
    _wait_for(out / "state.pt", launched)
    os.kill(_workers(launched)[1], signal.SIGKILL)
    (line,) = _ours(_end(launched))
    assert "another process of the run died" in line
    assert same(weights(out), weights(undisturbed))
    assert (out / "log.csv").read_text().count("\n") == (undisturbed / "log.csv").read_text().count("\n")


@pytest.mark.parametrize("dies", [0, 1])
def test_a_worker_killed_on_one_of_two_nodes_is_started_again_and_the_run_ends_with_the_same_weights(
    long_recipe, undisturbed, tmp_path, dies
):
    nodes = _two_nodes(long_recipe, tmp_path, (*_node(), "--max-restarts=1"), **RESTARTING)
    _wait_for(tmp_path / "first" / "state.pt", nodes[0])
    ((_, worker),) = _workers(nodes[dies]).items()
    os.kill(worker, signal.SIGKILL)
    for node in nodes:
        _end(node)
    assert same(weights(tmp_path / "first"), weights(undisturbed))
    assert not (tmp_path / "second").exists()


def test_all_processes_leave_the_group_before_they_end(few_steps, tmp_path):
    wrapper = tmp_path / "wrapper.py"
    wrapper.write_text(
        "import atexit, runpy, sys, torch\n"
        "atexit.register(lambda: print('still in the group:', torch.distributed.is_initialized(), file=sys.stderr))\n"
        "sys.argv[0] = 'compress.train'\n"
        "runpy.run_module('compress.train', run_name='__main__', alter_sys=True)\n"
    )
    launched = subprocess.run(
        [sys.executable, *_two(), str(wrapper), str(few_steps), "--out", str(tmp_path / "run")],
        cwd=ROOT, env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert launched.returncode == 0, launched.stderr
    assert re.findall("still in the group: (.*)", launched.stderr) == ["False", "False"]


def test_restarts_that_could_not_work_are_refused_before_the_training(long_recipe, tmp_path):
    launched = start_training(long_recipe, tmp_path / "run", launcher=(*_two(), "--max-restarts=1"))
    errors = _ours(_end(launched, code=1))
    assert errors
    assert {line.split(" in ")[0] for line in errors} == {"error: expected TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"}
    assert not (tmp_path / "run").exists()


def test_a_stopped_and_then_killed_run_says_so_and_goes_on_to_the_same_weights(long_recipe, undisturbed, tmp_path):
    out = tmp_path / "run"
    launched = start_training(long_recipe, out, launcher=_two())
    _wait_for(out / "state.pt", launched)
    launched.send_signal(signal.SIGTERM)  # torchrun hands it on to its workers
    _, errors = launched.communicate(timeout=300)
    assert [line.startswith("error: interrupted") for line in _ours(errors)] == [True, True], errors
    stopped = torch.load(out / "state.pt", weights_only=True)["step"]
    assert 20 <= stopped < LONG

    saved = (out / "state.pt").stat().st_mtime_ns
    launched = start_training(long_recipe, out, launcher=_two())
    while (out / "state.pt").stat().st_mtime_ns == saved and launched.poll() is None:
        time.sleep(0.002)
    workers = _workers(launched)
    os.kill(workers[0], signal.SIGKILL)
    errors = _end(launched, code=1)
    (line,) = _ours(errors)
    assert line == (
        "error: another process of the run died or cannot be reached: see what it printed, then run the same command again "
        f"to go on from the last save in {out}; torchrun does so by itself where --max-restarts says so."
    )
    assert re.search(rf"exitcode +: 1 \(pid: {workers[1]}\)", errors), errors
    assert not (out / "student.pt").exists()

    _end(start_training(long_recipe, out, launcher=_two()))
    assert same(weights(out), weights(undisturbed))


@pytest.mark.parametrize("which", [0, 1])
def test_a_dead_loader_process_ends_the_run_in_one_sentence(long_recipe, tmp_path, which):
    out = tmp_path / "run"
    process = start_training(long_recipe, out, "--data.workers", "2", "--schedule.steps", "100000")
    _wait_for(out / "state.pt", process)
    os.kill(_children(process.pid)[which], signal.SIGKILL)
    assert _ours(_end(process, code=1)) == [
        "error: a loader process died, as when memory runs out: lower data.workers or data.batch, then run the same command "
        f"again to go on from the last save in {out}."
    ]


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
        [sys.executable, *_two(), str(ROOT / "tests/compress/all_ranks.py"), *map(str, recipes.values())],
        cwd=ROOT, env=os.environ | ENVIRONMENT, capture_output=True, text=True, timeout=300, check=False,
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
        assert _difference(weights(tmp_path / f"{name}_alone"), weights(tmp_path / name)) < 1e-6, name
    # but what it keeps is the mean of what all of them saw
    train(read_recipe(recipes["one_step"], ["--out", str(tmp_path / "one_step_alone"), "--data.batch", "8"]))
    alone = torch.load(tmp_path / "one_step_alone" / "state.pt", weights_only=True)["student"]
    means = [key for key in alone if key.endswith("running_mean")]
    assert means
    for key in means[:1]:  # the input of the others went through one that normalises
        assert alone[key].abs().max() > 1e-4
        assert (alone[key] - held["one_step"][0][f"student.{key}"]).abs().max() < 1e-7


def test_a_pipeline_whose_worker_is_killed_goes_on_in_the_stage_it_was_in(photographs, tmp_path):
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
    launched = subprocess.Popen(
        [sys.executable, *RESTARTS, "-m", "compress.pipeline", str(path), "--out", str(out)],
        cwd=ROOT, env=os.environ | ENVIRONMENT | RESTARTING, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    _wait_for(out / "second" / "state.pt", launched)
    os.kill(_workers(launched)[0], signal.SIGKILL)
    errors = _end(launched)
    assert len(_ours(errors)) == 1
    assert [line for line in errors.splitlines() if line.startswith("stage ")] == [
        "stage 1 of 3: first", "stage 2 of 3: pruned", "stage 3 of 3: second",
        "stage 1 of 3: first, finished before", "stage 2 of 3: pruned, finished before", "stage 3 of 3: second",
    ]  # fmt: skip
    provenance = load_student(out / "second" / "student.pt").provenance
    assert (provenance["steps"], provenance["batch"]) == (LONG, 4)
