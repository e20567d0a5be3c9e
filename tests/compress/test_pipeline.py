"""Pipelines: stages run once, in order, each from what the one before made; anything that cannot work is said first."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from compress.checkpoint import load_student
from compress.data.benchmarks import open_benchmark
from compress.errors import BadInput, run_command
from compress.evaluate import bicubic_upscaler, evaluate, torch_upscaler
from compress.pipeline.__main__ import command_parser, main
from compress.pipeline.recipe import read_overrides, read_pipeline
from compress.pipeline.stages import COMMANDS
from compress.results.__main__ import main as results_page

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
SRRESNET = {
    "architecture": "srresnet",
    "options": {"scale": 2, "channels": 16, "blocks": 3, "head_kernel": 3, "tail_kernel": 3, "activation": "relu"},
}
ANCHOR = {"architecture": "anchor", "options": {"scale": 2, "channels": 8, "blocks": 1}}
DISTILLED = {"model": ANCHOR, "method": {"name": "distillation"}, "teacher": {"file": "stage:teacher"}}
Run = Callable[..., tuple[int, str]]


def _stages() -> dict[str, Any]:
    """One stage of every kind."""
    return {
        "teacher": {"train": {"model": SRRESNET, "schedule": {"steps": 6}}},
        "scratch": {"train": {"model": ANCHOR}},
        "distilled": {"train": DISTILLED},
        "pruned": {"blocks": {"student": "stage:teacher", "keep": 1, "by": "last"}},
        "tuned": {"train": {"model": {"start": "stage:pruned"}}},
        "slim": {"channels": {"student": "stage:teacher", "channels": 8}},
        "masked": {"magnitude": {"student": "stage:distilled", "pattern": "unstructured", "sparsity": 0.5}},
        "sizes": {"sizes": {"student": "stage:teacher", "density": 0.3}},
        "sized": {"train": {"model": {"architecture": "srresnet", "sizes": "stage:sizes"}}},
        "int8": {"quantize": {"student": "stage:distilled", "calibration": "skimage", "crops": 16}},
    }


def _recipe(photographs: Path, **changes: Any) -> dict[str, Any]:
    recipe = {
        "title": "A tiny pipeline",
        "seed_document": "Nobody: Nothing",
        "common": {
            "data": {"folder": str(photographs), "lr_patch": 16, "batch": 2, "workers": 0},
            "schedule": {"steps": 3, "ema": 0},
            "validation": {"sets": [], "every": 100},
            "precision": "float32",
        },
        "stages": _stages(),
        "report": {"sets": [str(photographs)], "rows": ["scratch", "tuned", "masked", "int8"], "strip": ["scratch"]},
        "variants": {"quick": {"common": {"schedule": {"steps": 2}}}},
    }
    return {**recipe, **changes}


@pytest.fixture(scope="module")
def tiny_photographs(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """Two of the photographs at 96x96: measuring them takes no time."""
    folder = tmp_path_factory.mktemp("tiny") / "pair"
    folder.mkdir()
    for path in sorted(photographs.iterdir())[:2]:
        with Image.open(path) as image:
            image.crop((0, 0, 96, 96)).save(folder / path.name)
    return folder


@pytest.fixture(scope="module")
def monkeypatch_module():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PL_GLOBAL_SEED", "0")  # Fabric sets it: undone afterwards
        yield patch


@pytest.fixture(scope="module")
def pipeline(monkeypatch_module) -> Run:
    """Runs the command in this process; its exit code and what it wrote to standard error."""

    def run(recipe: Path, *options: object) -> tuple[int, str]:
        import contextlib
        import io

        errors = io.StringIO()
        monkeypatch_module.setattr(sys, "argv", ["pipeline", str(recipe), *map(str, options)])
        with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as caught:
            run_command(main)
        return int(caught.value.code or 0), errors.getvalue()

    return run


@pytest.fixture(scope="module")
def write(tmp_path_factory: pytest.TempPathFactory, tiny_photographs: Path) -> Callable[..., Path]:
    """Writes a recipe, with the given fields replaced."""

    def write(**changes: Any) -> Path:
        path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
        path.write_text(yaml.safe_dump(_recipe(tiny_photographs, **changes), sort_keys=False))
        return path

    return write


@pytest.fixture(scope="module")
def whole(write: Callable[..., Path]) -> Path:
    return write()


@pytest.fixture(scope="module")
def finished(pipeline: Run, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a pipeline that ran to its end, published beside it."""
    out = tmp_path_factory.mktemp("finished") / "out"
    code, errors = pipeline(whole, "--out", out, "--publish", out.parent / "results" / "tiny")
    assert code == 0, errors
    (out.parent / "errors").write_text(errors)
    return out


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def _result(out: Path, stage: str) -> dict[str, Any]:
    return json.loads((out / stage / "result.json").read_text())


def _times(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in sorted(out.rglob("*")) if path.is_file()}


def test_every_stage_runs_in_order_and_leaves_its_product(finished):
    lines = (finished.parent / "errors").read_text().splitlines()
    titles = [line for line in lines if line.startswith("stage ")]
    assert titles == [f"stage {i} of 10: {name}" for i, name in enumerate(_stages(), 1)]
    for name, stage in _stages().items():
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


def test_a_result_holds_costs_figures_and_where_the_student_comes_from(finished, tiny_photographs):
    result = _result(finished, "scratch")
    student = load_student(finished / "scratch" / "student.pt")
    assert result["parameters"] == sum(one.numel() for one in student.network().parameters())
    assert result["storage"]["float32"]["dense"] == pytest.approx(4 * result["parameters"], rel=0.1)
    assert result["macs"] == sum(
        w.numel() * 640 * 360 for name, w in student.weights.items() if name.endswith("weight")
    )
    benchmark = open_benchmark(str(tiny_photographs), 2)
    expected = evaluate(torch_upscaler(student.reference()), benchmark)
    (row,) = result["metrics"]
    assert row["psnr"] == pytest.approx(expected["psnr"])
    assert row["ssim"] == pytest.approx(expected["ssim"])
    assert (result["steps"], result["steps_total"], result["start"], result["teacher"]) == (3, 3, None, None)
    assert result["data"]["images"] == 2
    assert set(result["losses"]) == {"loss", "loss_l1"}
    assert result["seconds"] > 0
    assert _result(finished, "distilled")["teacher"] == "teacher"
    assert str(tiny_photographs.parent) not in json.dumps({key: result[key] for key in result if key != "made_of"})


def test_a_result_counts_the_steps_of_the_weights_that_it_went_on_from(finished):
    tuned, pruned = _result(finished, "tuned"), _result(finished, "pruned")
    assert (pruned["steps"], pruned["steps_total"], pruned["start"]) == (0, 6, "teacher")
    assert (tuned["steps"], tuned["steps_total"], tuned["start"]) == (3, 9, "pruned")


def test_zeros_and_integers_show_in_the_result(finished):
    masked, int8, dense = (_result(finished, name) for name in ("masked", "int8", "distilled"))
    assert masked["nonzero"] < 0.9
    assert dense["nonzero"] > 0.99
    assert masked["pattern"] == "unstructured"
    assert int8["precision"] == "int8"
    assert int8["storage"]["int8"]["dense"] < 0.5 * int8["storage"]["float32"]["dense"]
    assert masked["storage"]["float32"]["sparse"] < masked["storage"]["float32"]["dense"]


def test_only_the_rows_of_the_report_are_judged(finished):
    assert _result(finished, "tuned")["metrics"]
    assert _result(finished, "pruned")["metrics"] == []


def test_bicubic_and_the_strip_belong_to_the_pipeline(finished, tiny_photographs):
    (row,) = json.loads((finished / "bicubic.json").read_text())["metrics"]
    expected = evaluate(bicubic_upscaler(2), open_benchmark(str(tiny_photographs), 2))
    assert row["psnr"] == pytest.approx(expected["psnr"])
    with Image.open(finished / "strip.png") as strip:
        assert strip.width > 3 * 96


def test_published_figures_make_the_results_page(finished, tmp_path):
    folder = finished.parent / "results"
    assert {path.name for path in (folder / "tiny").iterdir()} == {
        "pipeline.json", "bicubic.json", "strip.png", "scratch.json", "tuned.json", "masked.json", "int8.json", "sizes.json",
    }  # fmt: skip
    results_page([folder], out=tmp_path / "page.md", published=ROOT / "results" / "published.yaml")
    text = (tmp_path / "page.md").read_text()
    psnr = _result(finished, "scratch")["metrics"][0]["psnr"]
    (line,) = [line for line in text.splitlines() if line.startswith("| `scratch` ")]
    assert f"| {psnr:.2f} / " in line
    assert "## A tiny pipeline" in text
    assert "| 6 (pruned) + 3 |" in text


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


def test_quick_is_a_variant_in_a_folder_of_its_own(write):
    recipe = write(out="runs/tiny")
    quick = read_pipeline(recipe, "quick")
    assert quick.out == Path("runs/tiny_quick")
    assert quick.stages["scratch"].settings["schedule"]["steps"] == 2
    assert quick.stages["teacher"].settings["schedule"]["steps"] == 6, "a stage's own value goes before the common one"
    assert read_pipeline(recipe, None, ["--schedule.steps", "9"]).stages["teacher"].settings["schedule"]["steps"] == 9


def test_overrides_are_nested_values_of_the_recipe_or_of_the_training_stages():
    whole, training = read_overrides(
        ["--data.folder", "photos", "--stages.int8.quantize.crops=64", "--report.lpips", "none", "--seed", "-1"]
    )
    assert whole == {"stages": {"int8": {"quantize": {"crops": 64}}}, "report": {"lpips": "none"}}
    assert training == {"data": {"folder": "photos"}, "seed": -1}
    for bad in (["photos"], ["--data.folder"], ["--data.folder", "--seed"], ["--a..b", "1"], ["--a", "[1"]):
        with pytest.raises(BadInput, match="expected"):
            read_overrides(bad)


def _with(name: str, value: Any) -> dict[str, Any]:
    """Few stages, one of them as given."""
    few = {key: _stages()[key] for key in ("teacher", "sizes")}
    last = {"int8": {"quantize": {"student": "stage:teacher"}}}
    return {"stages": {**few, name: value, **last}, "report": {"sets": []}}


def _train(**changes: Any) -> dict[str, Any]:
    return {"train": {**DISTILLED, **changes}}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"stages": {}}, "expected `stages:"),
        ({"stages": None}, "expected `stages:"),
        ({"stagse": {}}, "expected keys out of title, seed_document, out, common, stages, report"),
        ({"title": 3}, "expected text for title"),
        ({"report": {"rows": ["nobody"]}}, "report.rows, found 'nobody'"),
        ({"report": {"strip": ["sizes"]}}, "report.strip, found 'sizes'"),
        ({"report": {"lpips": "best"}}, "expected one of alex, squeeze, vgg, none for --lpips, found 'best'"),
        ({"report": {"row": []}}, "row"),
        ({"common": [1]}, "expected options (`name: value`) for common"),
        ({"common": {"shedule": {"steps": 3}}}, "stage 'teacher': "),
        (_with("a/b", _train()), "expected names of stages made of letters, digits, _ and -, found 'a/b'"),
        (
            _with("last", {"melt": {}}),
            "expected a kind out of train, blocks, channels, magnitude, sizes, quantize, publ",
        ),
        (_with("last", {"train": {}, "quantize": {}}), "expected one kind for stage 'last'"),
        (_with("last", 3), "expected one kind for stage 'last'"),
        (_with("last", {"quantize": 3}), "expected options (`name: value`) for stage 'last', found 3"),
        (_with("last", {"quantize": {"student": "stage:nobody"}}), "found 'nobody' for student, which does not exist"),
        (_with("scratch", {"quantize": {"student": "stage:int8"}}), "found 'int8' for student, which comes no earlier"),
        (
            _with("last", _train(teacher={"file": "stage:last"})),
            "found 'last' for teacher.file, which comes no earlier",
        ),
        (
            _with("last", _train(teacher={"file": "stage:../x"})),
            "expected stage:NAME or stage:NAME/FILE for teacher.file",
        ),
        (_with("last", {"quantize": {"student": "stage:sizes"}}), "expected a student for student of stage 'last'"),
        (
            _with("last", _train(model={"architecture": "anchor", "sizes": "stage:teacher"})),
            "expected sizes for model.sizes",
        ),
        (
            _with("last", {"quantize": {"student": "stage:teacher", "rulle": "mse"}}),
            "stage 'last': expected known options with values that fit, found that Option 'rulle'",
        ),
        (_with("last", {"quantize": {"rule": "mse"}}), "stage 'last': "),
        (_with("last", {"quantize": {"student": "stage:teacher", "out": "x"}}), "expected no 'out' in a stage"),
        (_with("last", _train(out="x")), "expected no 'out' in stage 'last'"),
        (_with("last", {"blocks": {"student": "stage:teacher", "keep": "all"}}), "expected a whole number for --keep"),
        (_with("last", _train(schedule={"steps": 0})), "stage 'last': expected schedule.steps between 1"),
        (_with("last", _train(model={"architecture": "mlp"})), "stage 'last': expected an architecture out of"),
        (_with("last", _train(model={"architecture": "anchor", "options": {"depth": 3}})), "found 'depth'"),
        (_with("last", _train(method={"name": "magic"})), "stage 'last': expected a method out of"),
        (_with("last", _train(method={"name": "distillation", "options": {"truht": 1.0}})), "found 'truht'"),
        (_with("last", _train(teacher=None)), "expected a teacher for the method 'distillation', found none"),
        (_with("last", _train(discriminator={"width": 8})), "expected no discriminator for the method 'distillation'"),
        (_with("last", _train(technique={"name": "melt"})), "stage 'last': expected a technique out of none, "),
        (_with("last", _train(technique={"name": "magnitude", "options": {"a": 1}})), "found 'a'"),
        (
            _with("last", _train(model={"architecture": "anchor", "options": {"scale": 4}})),
            "expected a teacher of scale x4 for stage 'last', found stage 'teacher' of x2",
        ),
        (_with("last", {"quantize": {"student": "none.pt"}}), "expected the file none.pt for student of stage 'last'"),
        (
            _with("last", _train(teacher={"file": "none.pt"})),
            "expected the file none.pt for teacher.file of stage 'last'",
        ),
        (_with("last", _train(data={"folder": "no/such"})), "stage 'last': expected a folder of images"),
        (_with("last", _train(validation={"sets": ["Set99"]})), "stage 'last': expected a benchmark set out of"),
        (
            _with(
                "last",
                {
                    "train": {
                        "model": ANCHOR,
                        "method": {"name": "adversarial", "options": {"content": 0.0}},
                        "discriminator": {"width": 8, "dense": 8},
                        "data": {"lr_patch": 15},
                    }
                },
            ),
            "stage 'last': expected the discriminator's patch to be a multiple of 16 HR pixels, found 30",
        ),
    ],
)
def test_a_pipeline_that_cannot_work_is_refused_in_one_line_before_anything_starts(
    write, tmp_path, pipeline, changes, says
):
    code, errors = pipeline(write(**changes), "--out", tmp_path / "out")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert says in errors
    assert not (tmp_path / "out").exists()


def test_a_teacher_file_of_another_scale_is_refused_before_anything_starts(write, finished, tmp_path, pipeline):
    x4 = {
        **DISTILLED,
        "model": {**ANCHOR, "options": {"scale": 4}},
        "teacher": {"file": str(finished / "teacher" / "student.pt")},
    }
    code, errors = pipeline(
        write(stages={"first": {"train": {"model": ANCHOR}}, "last": {"train": x4}}, report={"sets": []}),
        "--out",
        tmp_path / "out",
    )
    assert code == 2
    assert "stage 'last': expected a teacher of the student's scale x4, found x2" in errors
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--stage", "nobody"), "for --stage, found 'nobody'"),
        (("--redo", "nobody"), "for --redo, found 'nobody'"),
        (("--variant", "slow"), "out of quick, found 'slow'"),
        (("--quick", "--variant", "slow"), "not allowed with"),
        (("--schedule.stpes", "3"), "stage 'teacher': "),
    ],
)
def test_wrong_options_of_the_command_are_refused_in_one_line(whole, tmp_path, pipeline, options, says):
    code, errors = pipeline(whole, "--out", tmp_path / "out", *options)
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert says in errors
    assert not (tmp_path / "out").exists()


def test_a_recipe_without_a_folder_and_no_recipe_are_refused(whole, tmp_path, pipeline):
    code, errors = pipeline(whole)
    assert code == 2
    assert "expected a folder for the stages as `out`" in errors
    assert pipeline(tmp_path / "none.yaml")[0] == 2


def test_a_folder_that_no_pipeline_made_is_not_deleted(whole, tmp_path, pipeline):
    mine = tmp_path / "out" / "teacher"
    mine.mkdir(parents=True)
    (mine / "thesis.txt").write_text("years of work")
    code, errors = pipeline(whole, "--out", tmp_path / "out", "--redo", "teacher")
    assert code == 2
    assert "expected a stage's folder, found no stage.json" in errors
    assert (mine / "thesis.txt").exists()


def _start(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=ROOT, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_pipeline_killed_in_the_middle_of_a_stage_goes_on_to_the_same_students(write, tmp_path, pipeline):
    stages = {
        "first": {"train": {"model": ANCHOR}},
        "second": {"train": {"model": {"start": "stage:first"}, "schedule": {"steps": 60, "ema": 0}, "save_every": 20}},
        "int8": {"quantize": {"student": "stage:second", "crops": 16}},
    }
    recipe = write(stages=stages, report={"sets": []})
    assert pipeline(recipe, "--out", tmp_path / "whole")[0] == 0
    process = _start("compress.pipeline", recipe, "--out", tmp_path / "cut")
    state = tmp_path / "cut" / "second" / "state.pt"
    while not state.exists() and process.poll() is None:
        time.sleep(0.002)
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
    assert _result(tmp_path / "cut", "second")["seconds"] > 0


def _launch(*arguments: object) -> tuple[int, str, str]:
    """The command in two processes: exit code, standard output, standard error."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = _start(
        "torch.distributed.run", "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={port}",
        "-m", "compress.pipeline", *arguments,
    )  # fmt: skip
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


def test_help_names_every_option():
    shown = command_parser().format_help()
    for option in ("--quick", "--variant", "--stage", "--redo", "--out", "--publish", "--data.folder"):
        assert option in shown


@pytest.mark.parametrize(
    ("watched", "judged"),
    [(["Set5"], ["Set5", "Set14", "BSD100"]), (["skimage"], ["skimage"]), ([], []), (["Set5", "x"], ["Set5", "x"])],
)
def test_a_run_watched_on_a_usual_set_is_judged_on_all_usual_sets(write, watched, judged):
    recipe = write(out="x", report={}, common={"schedule": {"steps": 3}, "validation": {"sets": watched}})
    assert read_pipeline(recipe).sets == judged
    assert read_pipeline(recipe, None, ["--report.sets", "[Set14]"]).sets == ["Set14"]
