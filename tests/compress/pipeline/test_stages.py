"""Stages run once, in order, each from what the one before made."""

import json

import torch

from compress.checkpoint import load_student
from compress.pipeline.stages import COMMANDS
from tests.compress.conftest import start_command
from tests.compress.pipeline.conftest import SRRESNET, stages_of_every_kind


def test_every_stage_runs_in_order_and_leaves_its_product(finished):
    lines = (finished.parent / "errors").read_text().splitlines()
    titles = [line for line in lines if line.startswith("stage ")]
    assert titles == [f"stage {i} of 10: {name}" for i, name in enumerate(stages_of_every_kind(), 1)]
    for name, stage in stages_of_every_kind().items():
        assert (finished / name / ("sizes.json" if "sizes" in stage else "student.pt")).is_file()
    assert (finished / "pruned" / "blocks.json").is_file()


def test_each_stage_starts_from_what_the_one_before_made(finished):
    teacher, pruned = (load_student(finished / name / "student.pt") for name in ("teacher", "pruned"))
    assert (teacher.config["blocks"], pruned.config["blocks"]) == (3, 1)
    assert torch.equal(pruned.weights["blocks.0.conv1.weight"], teacher.weights["blocks.0.conv1.weight"])
    tuned = load_student(finished / "tuned" / "student.pt")
    moved = (tuned.weights["blocks.0.conv1.weight"] - pruned.weights["blocks.0.conv1.weight"]).abs().max()
    assert 0 < moved < 0.01, "three steps of 1e-3 from there, not from anew"
    sizes = json.loads((finished / "sizes" / "sizes.json").read_text())
    assert load_student(finished / "sized" / "student.pt").config == sizes["options"]
    assert load_student(finished / "int8" / "student.pt").precision == "int8"
    assert load_student(finished / "slim" / "student.pt").config["channels"] == 8
    description = load_student(finished / "distilled" / "student.pt").provenance["teacher"]
    assert description is not None


def test_one_stage_alone_needs_what_it_reads(whole, tmp_path, pipeline):
    code, errors = pipeline(whole, "--out", tmp_path / "out", "--stage", "distilled")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert (
        "which stage 'distilled' reads, found nothing: run stage 'teacher' first (--stage teacher distilled" in errors
    )
    assert not (tmp_path / "out").exists()
    code, errors = pipeline(whole, "--out", tmp_path / "out", "--stage", "teacher", "pruned")
    assert code == 0, errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["pruned", "teacher"]


def _launch(*arguments: object) -> tuple[int, str, str]:
    """The command in two processes: exit code, standard output, standard error."""
    processes = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2")
    process = start_command("compress.pipeline", *arguments, launcher=processes)
    printed, errors = process.communicate(timeout=300)
    return process.returncode, printed, errors


def test_two_processes_share_the_training_and_leave_the_rest_to_the_first(write, tmp_path):
    stages = {
        "first": {"train": {"model": SRRESNET}},
        "pruned": {"blocks": {"student": "stage:first", "keep": 1, "by": "last"}},
        "second": {"train": {"model": {"start": "stage:pruned"}}},
    }
    recipe = write(stages=stages, report={"sets": []})
    code, printed, errors = _launch(recipe, "--out", tmp_path / "out", "--data.batch", "1")
    assert code == 0, errors
    assert [line for line in errors.splitlines() if line.startswith("stage ")] == [
        "stage 1 of 3: first", "stage 2 of 3: pruned", "stage 3 of 3: second",
    ]  # fmt: skip
    assert load_student(tmp_path / "out" / "second" / "student.pt").provenance["batch"] == 2
    assert printed.count("wrote") == 1
    assert printed.count("second: ") == 1
    code, _, errors = _launch(recipe, "--out", tmp_path / "out", "--data.batch", "3")
    assert code != 0
    assert [line for line in errors.splitlines() if line.startswith("error: ")] == [
        f"error: expected the settings and files that stage 'first' in {tmp_path / 'out' / 'first'} was run with, found others "
        "(data.batch): give another --out, or run it anew with --redo first."
    ]


def test_every_kind_of_stage_is_a_command_that_exists():
    for command in COMMANDS.values():
        assert callable(command.load())
        assert command.reads()
