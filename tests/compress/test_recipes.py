"""The recipes: their full forms hold the sources' numbers, their quick forms run to the end."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from compress.errors import run_command
from compress.models import build
from compress.pipeline.__main__ import main
from compress.pipeline.recipe import Pipeline, read_pipeline
from compress.recipe import read_recipe

RECIPES = Path(__file__).resolve().parents[2] / "recipes"
PIPELINES = sorted(path.stem for path in RECIPES.glob("*.yaml") if "\nstages:" in path.read_text())
SINGLE = sorted({path.stem for path in RECIPES.glob("*.yaml")} - set(PIPELINES))


def _value(pipeline: Pipeline, stage: str, name: str) -> Any:
    value: Any = pipeline.stages[stage].values
    for key in name.split("."):
        value = value[key]
    return value


def test_every_seed_has_its_recipe():
    seeds = {"poster", "hussain", "hussain_pruning", "cdism_edsr", "cdism_swinir", "park"}
    assert seeds <= set(PIPELINES)
    assert all(read_pipeline(RECIPES / f"{name}.yaml").seed_document for name in seeds)


@pytest.mark.parametrize("name", PIPELINES)
@pytest.mark.parametrize("variant", [None, "quick"])
def test_a_pipeline_can_be_read_in_its_full_and_its_quick_form(name, variant):
    assert len(read_pipeline(RECIPES / f"{name}.yaml", variant).stages) >= 4


@pytest.mark.parametrize("name", ["poster", "hussain", "hussain_pruning", "cdism_edsr", "cdism_swinir", "park"])
def test_a_seed_has_the_form_that_its_results_were_measured_with(name):
    pipeline = read_pipeline(RECIPES / f"{name}.yaml", "measured")
    assert {"Set5", "Set14"} <= set(pipeline.sets)
    assert pipeline.report.strip


@pytest.mark.parametrize("name", SINGLE)
def test_a_single_run_can_be_read(name):
    read_recipe(RECIPES / f"{name}.yaml").check()


@pytest.mark.parametrize(
    ("recipe", "stage", "name", "value"),
    [
        ("poster", "teacher", "model.options.blocks", 16),
        ("poster", "scratch", "model.options.blocks", 6),
        ("poster", "distilled", "model.options.blocks", 6),
        ("poster", "by_taylor_pruned", "keep", 6),
        ("poster", "distilled", "data.folder", "data/train/DIV2K"),
        ("hussain", "teacher", "model.options.blocks", 16),
        ("hussain", "published_teacher", "model.options.blocks", 4),
        ("hussain", "published_teacher", "model.options.scale", 4),
        ("hussain", "published_teacher", "method.options.truth", 1.0),
        ("hussain", "published_teacher", "method.options.content", 6e-3),
        ("hussain", "published_teacher", "method.options.adversarial", 1e-3),
        ("hussain", "published_teacher", "method.options.lpips", 1e-6),
        ("hussain", "published_teacher", "method.options.lpips_against", "teacher"),
        ("hussain", "published_truth", "method.options.lpips_against", "truth"),
        ("hussain", "lpips_teacher", "method.options.lpips", 0.1),
        ("hussain", "published_teacher", "data.lr_patch", 24),
        ("hussain", "published_teacher", "schedule.learning_rate", 2e-4),
        ("hussain", "published_teacher", "schedule.gamma", 0.1),
        ("hussain", "published_teacher", "schedule.every", 2000 * 800 // 16),
        ("hussain", "published_teacher", "schedule.betas", [0.9, 0.999]),
        ("hussain_pruning", "pruned_global", "technique.options.sparsity", 0.18),
        ("hussain_pruning", "pruned_global", "technique.options.scope", "global"),
        ("hussain_pruning", "pruned_layer", "technique.options.scope", "layer"),
        ("cdism_edsr", "sparse", "technique.options.penalty", 1e-4),
        ("cdism_edsr", "sparse", "technique.options.epsilon", 1e-4),
        ("cdism_edsr", "sparse", "technique.options.prox_steps", 2000),
        ("cdism_edsr", "sparse", "schedule.learning_rate", 5e-3),
        ("cdism_edsr", "sparse", "method.options.loss", "charbonnier"),
        ("cdism_edsr", "sparse", "data.batch", 16),
        ("cdism_edsr", "sparse", "data.lr_patch", 48),
        ("cdism_edsr", "mini", "method.options.teacher", 1.0),
        ("cdism_edsr", "mini", "method.options.truth", 0.1),
        ("cdism_edsr", "mini", "schedule.learning_rate", 1e-4),
        ("cdism_edsr", "mini", "schedule.ema", 0.999),
        ("cdism_edsr", "mini", "model.options.residual_scale", 2.0),
        ("cdism_swinir", "teacher", "model.options.depths", [6, 6, 6, 6]),
        ("cdism_swinir", "mini", "model.options.depths", [4, 4, 4]),
        ("cdism_swinir", "mini", "model.options.dim", 24),
        ("park", "srgan", "method.options.adversarial", 1e-3),
        ("park", "gan2gan", "teacher.file", "stage:srgan"),
        ("park", "gan2gan", "method.name", "adversarial"),
        ("park", "gan2gan_d", "discriminator.teacher", "stage:srgan/discriminator.pt"),
        ("park", "gan2g", "teacher.file", "stage:srgan"),
        ("park", "gan2g", "method.name", "distillation"),
        ("park", "gan2g_al", "model.start", "stage:gan2g"),
        ("park", "g2g", "teacher.file", "stage:srresnet"),
        ("park", "g2g_al", "model.start", "stage:g2g"),
        ("park", "g2g_al", "method.name", "adversarial"),
        ("structured", "slim", "technique.options.growth", 1e-4),
        ("structured", "slim", "technique.options.every", 20),
        ("structured", "slim", "technique.options.ceiling", 0.5),
        ("distillers", "dukd", "method.options.truth", 5.0),
        ("distillers", "dukd", "method.options.teacher", 1.0),
        ("distillers", "fakd", "method.options.affinity", 10.0),
    ],
)
def test_the_full_form_has_the_published_number(recipe, stage, name, value):
    assert _value(read_pipeline(RECIPES / f"{recipe}.yaml"), stage, name) == value


@pytest.mark.parametrize(("recipe", "percent"), [("cdism_edsr", 96), ("cdism_swinir", 89)])
def test_the_minis_of_cdism_have_the_published_share_of_the_parameters_less(recipe, percent):
    pipeline = read_pipeline(RECIPES / f"{recipe}.yaml")
    sizes = {}
    for stage in ("teacher", "mini"):
        model = _value(pipeline, stage, "model")
        assert model["options"]["scale"] == 2
        sizes[stage] = sum(p.numel() for p in build(model["architecture"], model["options"]).parameters())
    assert round(100 * (1 - sizes["mini"] / sizes["teacher"])) == percent


@pytest.fixture
def torch_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """For the recipe with perceptual losses: the public weights of VGG19 and LPIPS, where they are."""
    shared_data: Path = request.getfixturevalue("shared_data")
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    shutil.copytree(shared_data / "torch_home" / "hub" / "checkpoints", folder)
    shutil.copyfile(shared_data / "perceptual" / "vgg19_features_to_conv3_4.pth", folder / "vgg19-dcbb9e9d.pth")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.mark.parametrize("name", PIPELINES)
def test_the_quick_form_runs_to_the_end_and_measures_every_row(name, tmp_path, monkeypatch, request):
    if name == "hussain":
        request.getfixturevalue("torch_home")
    monkeypatch.setenv("PL_GLOBAL_SEED", "0")  # Fabric sets it: undone after the test
    monkeypatch.chdir(RECIPES.parent)
    arguments = [f"recipes/{name}.yaml", "--quick", "--out", tmp_path / "runs", "--publish", tmp_path / "results"]
    monkeypatch.setattr(sys, "argv", ["pipeline", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        run_command(main)
    assert ended.value.code == 0
    pipeline = read_pipeline(RECIPES / f"{name}.yaml", "quick")
    for row in pipeline.rows:
        result = json.loads((tmp_path / "results" / f"{row}.json").read_text())
        assert result["parameters"] > 1000
        assert [metric["set"] for metric in result["metrics"]] == ["skimage"]
    assert (tmp_path / "results" / "strip.png").is_file()
