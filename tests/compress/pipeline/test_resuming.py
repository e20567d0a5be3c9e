"""A pipeline given again: what is finished stays, what was cut short goes on, and what would not fit is refused."""

import shutil
import signal
from pathlib import Path

import pytest
import torch

from compress.checkpoint import load_student
from tests.compress.conftest import start_command, wait_for
from tests.compress.pipeline.conftest import ANCHOR, result_of


def _times(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file()}


def test_a_finished_pipeline_given_again_does_nothing(copied, whole, pipeline):
    before = _times(copied)
    code, errors = pipeline(whole, "--out", copied)
    assert code == 0, errors
    assert errors.count("finished before") == 10
    assert _times(copied) == before


def test_a_lost_product_is_made_anew_and_what_depends_on_it_stays_when_it_is_the_same(copied, whole, pipeline):
    before = load_student(copied / "pruned" / "student.pt").weights
    (copied / "pruned" / "student.pt").unlink()
    code, errors = pipeline(whole, "--out", copied)
    assert code == 0, errors
    assert errors.count("finished before") == 9
    assert all(
        torch.equal(value, before[name])
        for name, value in load_student(copied / "pruned" / "student.pt").weights.items()
    )


@pytest.mark.parametrize(
    ("options", "stage", "differing"),
    [
        (("--schedule.learning_rate", "1e-4"), "teacher", "schedule.learning_rate"),
        (("--stages.masked.magnitude.sparsity", "0.6"), "masked", "sparsity"),
        (("--stages.pruned.blocks.keep=2",), "pruned", "keep"),
    ],
)
def test_changed_settings_are_refused_with_stage_and_option(finished, whole, pipeline, options, stage, differing):
    before = _times(finished)
    code, errors = pipeline(whole, "--out", finished, *options)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert f"stage {stage!r} in {finished / stage} was run with, found others ({differing})" in errors
    assert f"--redo {stage}" in errors
    assert _times(finished) == before


def test_a_replaced_product_is_refused(copied, whole, pipeline):
    shutil.copy(copied / "scratch" / "student.pt", copied / "distilled" / "student.pt")
    code, errors = pipeline(whole, "--out", copied)
    assert code == 2
    assert "stage 'distilled'" in errors
    assert "found others (its own student.pt)" in errors


def test_what_reads_a_changed_product_is_refused_until_it_is_redone(copied, whole, pipeline):
    code, errors = pipeline(whole, "--out", copied, "--redo", "distilled", "--stages.distilled.train.seed", "1")
    assert code == 0, errors
    deleted = [line for line in errors.splitlines() if line.startswith("deleting")]
    assert deleted == ["deleting stage distilled", "deleting stage masked", "deleting stage int8"]
    assert errors.count("finished before") == 7
    shutil.rmtree(copied / "teacher")
    code, errors = pipeline(whole, "--out", copied, "--stages.teacher.train.seed", "1", "--stage", "teacher", "pruned")
    assert code == 2
    assert "stage 'pruned'" in errors.splitlines()[-1]
    assert "(the file of student)" in errors.splitlines()[-1]


def test_a_folder_that_no_pipeline_made_is_not_deleted(whole, tmp_path, pipeline):
    mine = tmp_path / "out" / "teacher"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years of work")
    code, errors = pipeline(whole, "--out", tmp_path / "out", "--redo", "teacher")
    assert code == 2
    assert "expected a stage's folder, found no stage.json" in errors
    assert (mine / "thesis.txt").exists()


def test_a_pipeline_killed_in_the_middle_of_a_stage_goes_on_to_the_same_students(write, tmp_path, pipeline):
    stages = {
        "first": {"train": {"model": ANCHOR}},
        "second": {"train": {"model": {"start": "stage:first"}, "schedule": {"steps": 60, "ema": 0}, "save_every": 20}},
        "int8": {"quantize": {"student": "stage:second", "crops": 16}},
    }
    recipe = write(stages=stages, report={"sets": []})
    assert pipeline(recipe, "--out", tmp_path / "whole")[0] == 0
    process = start_command("compress.pipeline", recipe, "--out", tmp_path / "cut", hold=tmp_path / "hold")
    wait_for(tmp_path / "cut" / "second" / "state.pt", process)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "cut" / "int8").exists()
    code, errors = pipeline(recipe, "--out", tmp_path / "cut")
    assert code == 0, errors
    assert "stage 1 of 3: first, finished before" in errors
    assert "stage 2 of 3: second\n" in errors
    for name in stages:
        one, two = (load_student(tmp_path / run / name / "student.pt").weights for run in ("whole", "cut"))
        assert all(torch.equal(one[key], two[key]) for key in one)
    assert result_of(tmp_path / "cut", "second")["seconds"] > 0
