"""Training: it learns, repeats bit for bit, survives kills, stops in words, and N processes do what one does."""

import csv
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from compress.checkpoint import Student, load_student, save_student
from compress.data.benchmarks import open_benchmark
from compress.data.cache import cache_folder, collect
from compress.data.images import find_images
from compress.errors import BadInput, run_command
from compress.evaluate import evaluate, torch_upscaler
from compress.models import build
from compress.recipe import read_recipe
from compress.teachers import TeacherSpec, load_teacher
from compress.train import main
from tests.compress.conftest import MODEL, STEPS, WriteRecipe, same, short, start_training, wait_for, weights


def _rows(out: Path) -> list[dict[str, str]]:
    with (out / "log.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_second"} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def tiny(write_recipe: WriteRecipe) -> Path:
    return write_recipe()


@pytest.fixture(scope="module")
def finished(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an undisturbed run."""
    out = tmp_path_factory.mktemp("finished") / "run"
    process = start_training(tiny, out)
    printed, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert f"wrote {out / 'student.pt'}" in printed
    return out


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the command in this process; its exit code and what it wrote to standard error."""
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Fabric sets it: undone after the test

    def run(recipe: Path, *options: object) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["train", str(recipe), *map(str, options)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_command(main)
        return int(caught.value.code or 0), capsys.readouterr().err

    return run


def test_a_run_learns_and_leaves_its_files(finished, photographs):
    assert {p.name for p in finished.iterdir()} == {"state.pt", "student.pt", "log.csv", "curve.png", "strip.png"}
    psnr, loss = (
        [float(row[name]) for row in _rows(finished) if row[name]] for name in (f"psnr_{photographs.name}", "loss")
    )
    assert loss[-1] < loss[0]
    assert psnr == sorted(psnr)
    student, benchmark = load_student(finished / "student.pt"), open_benchmark(str(photographs), 2)
    torch.manual_seed(0)
    fresh = evaluate(torch_upscaler(build("anchor", MODEL["options"]).eval()), benchmark)
    trained = evaluate(torch_upscaler(student.network()), benchmark)
    assert trained["psnr"] > fresh["psnr"] + 1
    assert student.metrics[0]["psnr"] == pytest.approx(trained["psnr"], abs=1e-3)


def test_the_student_says_where_it_comes_from(finished, photographs):
    provenance = load_student(finished / "student.pt").provenance
    assert provenance["steps"] == STEPS
    assert provenance["batch"] == 4
    assert provenance["data"]["images"] == 3
    assert provenance["data"]["manifest_sha256"] == collect(find_images(photographs), 2, 16).manifest_hash()
    assert provenance["recipe"]["schedule"]["learning_rate"] == 5e-3


def test_the_same_seed_gives_the_same_weights_bit_for_bit_however_often_it_saves_and_validates(
    finished, tiny, tmp_path
):
    process = start_training(tiny, tmp_path / "again", "--save_every", "120", "--validation.sets", "[]")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert same(weights(tmp_path / "again"), weights(finished))


def test_the_log_has_each_step_once(finished):
    assert [int(row["step"]) for row in _rows(finished)] == [40, 50, 80, 100, 120]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stopped_run_goes_on_to_the_sameweights(finished, tiny, tmp_path, number):
    out = tmp_path / "run"
    process = start_training(tiny, out, hold=tmp_path / "hold")
    wait_for(out / "state.pt", process)
    process.send_signal(number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == (-signal.SIGKILL if number == signal.SIGKILL else 130), errors
    assert "Traceback" not in errors
    assert not (out / "student.pt").exists()
    stopped = torch.load(out / "state.pt", weights_only=True)["step"]
    assert stopped == (20 if number == signal.SIGKILL else 21), "a stop ends the step in progress"
    process = start_training(tiny, out)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert same(weights(out), weights(finished))
    assert _rows(out) == _rows(finished)
    assert not list(out.glob(".*.part*")) or number == signal.SIGKILL


def test_a_finished_run_given_again_ends_at_once_with_the_sameweights(finished, tiny, tmp_path, in_process):
    shutil.copytree(finished, tmp_path / "run")
    assert in_process(tiny, "--out", tmp_path / "run")[0] == 0
    assert same(weights(tmp_path / "run"), weights(finished))
    assert _rows(tmp_path / "run") == _rows(finished)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (("--schedule.learning_rate", 1e-4), "schedule.learning_rate"),
        (("--seed", 1), "seed"),
        (("--data.batch", 5), "data.batch"),
    ],
)
def test_a_changed_recipe_in_the_same_folder_is_refused(finished, tiny, in_process, change, field):
    code, errors = in_process(tiny, "--out", finished, *change)
    assert code == 2
    assert f"found another ({field})" in errors
    assert len(errors.splitlines()) == 1


def test_a_damaged_state_is_refused(finished, tiny, tmp_path, in_process):
    shutil.copytree(finished, tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:-2000])
    code, errors = in_process(tiny, "--out", tmp_path / "run")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert "truncated" in errors


def test_a_diverging_run_stops_in_words_and_keeps_soundweights(write_recipe, tmp_path, in_process):
    deep = {"architecture": "anchor", "options": {"scale": 2, "channels": 8, "blocks": 40}}
    recipe = write_recipe(model=deep, save_every=1, **short(50, learning_rate=10.0, clip_norm=0.0))
    code, errors = in_process(recipe, "--out", tmp_path / "run")
    assert code == 1
    last = errors.splitlines()[-1]
    assert last.startswith("error: the ")
    assert "at step " in last
    assert "schedule.learning_rate (now 10)" in last
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert f"at step {state['step'] + 1}:" in last
    assert all(value.isfinite().all() for value in state["student"].values())
    assert not (tmp_path / "run" / "student.pt").exists()


def test_an_endless_weight_in_the_start_is_noticed_at_the_first_step(write_recipe, tmp_path, in_process):
    network = build("anchor", {"scale": 2, "channels": 8, "blocks": 1})
    with torch.no_grad():
        network.tail.weight[0, 0, 1, 1] = float("inf")
    save_student(Student.of(network), tmp_path / "start.pt")
    recipe = write_recipe(model={"start": str(tmp_path / "start.pt")}, **short(5))
    code, errors = in_process(recipe, "--out", tmp_path / "run")
    assert code == 1
    assert "at step 1:" in errors.splitlines()[-1]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shedule": {"steps": 3}}, "shedule"),
        ({"model": {**MODEL, "depth": 3}}, "depth"),
        ({"schedule": {"steps": "many"}}, "schedule.steps"),
        ({"schedule": {"steps": 0}}, "expected schedule.steps between 1"),
        ({"schedule": {"steps": 5, "learning_rate": 1e10}}, "expected schedule.learning_rate between"),
        ({"schedule": {"steps": 5, "kind": "linear"}}, "cosine"),
        ({"schedule": {}}, "steps"),
        ({"model": {}}, "found neither"),
        ({"model": {**MODEL, "start": "x.pt"}}, "found both"),
        ({"model": {"architecture": "vdsr"}}, "found 'vdsr'"),
        ({"model": {"architecture": "anchor", "options": {"scale": 5}}}, "one of 2, 3, 4, found 5"),
        ({"model": {"start": "none.pt"}}, "found no file at none.pt"),
        ({"method": {"name": "magic"}}, "expected a method out of supervised, distillation"),
        ({"method": {"name": "distillation"}}, "expected a teacher for the method 'distillation', found none"),
        ({"method": {"name": "supervised", "options": {"truth": 1.0}}}, "found 'truth'"),
        ({"data": {"folder": "no/such/folder"}}, "expected a folder of images, found nothing at no/such/folder"),
        ({"validation": {"sets": ["Set99"]}}, "found 'Set99'"),
        ({"teacher": {"file": "none.pt"}, "method": {"name": "distillation"}}, "found no file at none.pt"),
    ],
)
def test_a_recipe_that_cannot_work_is_refused_in_one_line(write_recipe, tmp_path, in_process, changes, says):
    code, errors = in_process(write_recipe(**changes), "--out", tmp_path / "run")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert says in errors
    assert not (tmp_path / "run").exists()


def test_a_batch_beyond_the_data_and_a_patch_beyond_the_images_are_refused(tiny, tmp_path, in_process):
    code, errors = in_process(tiny, "--out", tmp_path / "run", "--data.batch", 60000)
    assert code == 2
    assert "expected a batch no larger than" in errors.splitlines()[-1]
    code, errors = in_process(tiny, "--out", tmp_path / "run", "--data.lr_patch", 65)
    assert code == 2
    assert "smaller than 130 pixels" in errors.splitlines()[-1]


def test_a_missing_recipe_and_broken_yaml_are_refused_in_one_line(tmp_path, in_process):
    code, errors = in_process(tmp_path / "none.yaml")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    (tmp_path / "bad.yaml").write_text("model: {architecture: anchor\nschedule: [")
    code, errors = in_process(tmp_path / "bad.yaml")
    assert (code, len(errors.splitlines())) == (2, 1), errors


def test_a_teacher_of_another_scale_is_refused(write_recipe, tmp_path, in_process, teacher_file):
    model = {"architecture": "anchor", "options": {"scale": 4, "channels": 8, "blocks": 1}}
    recipe = write_recipe(model=model, teacher={"file": str(teacher_file)}, method={"name": "distillation"})
    code, errors = in_process(recipe, "--out", tmp_path / "run")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert "expected a teacher of the student's scale x4, found x2" in errors


def test_a_teacher_that_nobody_asks_is_refused(write_recipe, tmp_path, in_process, teacher_file):
    code, errors = in_process(write_recipe(teacher={"file": str(teacher_file)}), "--out", tmp_path / "run")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert "expected no teacher for the method 'supervised'" in errors


def test_a_distillation_run_logs_both_terms_with_and_without_cached_labels(
    write_recipe, tmp_path, in_process, teacher_file
):
    recipe = write_recipe(teacher={"file": str(teacher_file)}, method={"name": "distillation"}, **short(20))
    last = {}
    for cached in ("true", "false"):
        code, errors = in_process(recipe, "--out", tmp_path / cached, "--data.cache_labels", cached)
        assert code == 0, errors
        (last[cached],) = _rows(tmp_path / cached)
        assert load_student(tmp_path / cached / "student.pt").provenance["teacher"]["description"] == "teacher.pt"
    teacher = load_teacher(TeacherSpec(file=teacher_file), 2)
    assert len(list((cache_folder() / "labels" / teacher.key).glob("*_x2.npy"))) == 3
    for name in ("loss_truth", "loss_teacher"):
        # labels come from whole images, the live teacher sees patches: they differ at the border of a patch only
        assert float(last["true"][name]) == pytest.approx(float(last["false"][name]), rel=0.15)


def test_the_command_line_overrides_the_recipe(tiny):
    recipe = read_recipe(tiny, ["--schedule.steps", "7", "--data.batch=3"])
    assert (recipe.schedule.steps, recipe.data.batch, recipe.schedule.warmup) == (7, 3, 10)
    with pytest.raises(BadInput, match="stps"):
        read_recipe(tiny, ["--schedule.stps", "7"])


def test_options_keep_the_text_that_they_are(write_recipe):
    technique = {"name": "magnitude", "options": {"pattern": "2:4"}}
    assert read_recipe(write_recipe(technique=technique)).technique.options == {"pattern": "2:4"}
    given = ["--technique.name", "magnitude", "--technique.options.pattern", "2:4", "--schedule.learning_rate", "2e-4"]
    recipe = read_recipe(write_recipe(), given)
    assert recipe.technique.options == {"pattern": "2:4"}
    assert recipe.schedule.learning_rate == 2e-4


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"method": {"name": "adversarial", "options": {"content": 0.0}}}, "expected a discriminator for the method"),
        ({"discriminator": {"width": 4}}, "expected no discriminator for the method 'supervised'"),
        (
            {"method": {"name": "adversarial", "options": {"content": 0.0}}, "discriminator": {"width": 4},
             "data": {"lr_patch": 20}},
            "multiple of 16",
        ),
        (
            {"method": {"name": "adversarial", "options": {"content": 0.0}}, "discriminator": {"start": "none.pt"}},
            "found no file at none.pt",
        ),
        ({"technique": {"name": "magic"}}, "expected a technique out of none, sparsify"),
        ({"technique": {"options": {"sparsity": 0.5}}}, "expected no options without a technique, found sparsity"),
        (
            {"technique": {"name": "magnitude", "options": {"sparsity": 1.0, "scope": "layer", "end": 5}}},
            "removes all of body.0.weight",
        ),
        ({"technique": {"name": "channels", "options": {"channels": 4, "multiple": 8}}}, "nothing would be removed"),
        ({"technique": {"name": "sparsify"}}, "expected a network without branches to sparsify"),
        (
            {"technique": {"name": "sparsify"}, "model": {"architecture": "edsr", "options": {"scale": 2, "channels": 8}}},
            "expected schedule.ema 0",
        ),
        ({"model": {"architecture": "anchor", "sizes": "none.json"}}, "expected sizes written by"),
        ({"method": {"name": "multilap"}, "teacher": {"file": "TEACHER"}, "data": {"lr_patch": 20}}, "multiples of 16"),
    ],
)  # fmt: skip
def test_methods_and_techniques_that_cannot_work_are_refused_before_anything_is_written(
    write_recipe, tmp_path, in_process, photographs, teacher_file, changes, says
):
    if changes.get("teacher"):
        changes = {**changes, "teacher": {"file": str(teacher_file)}}
    data = {"folder": str(photographs), "lr_patch": 16, "batch": 4, "workers": 0, **changes.get("data", {})}
    code, errors = in_process(write_recipe(**{**changes, "data": data}), "--out", tmp_path / "run")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert says in errors
    assert not (tmp_path / "run").exists()
