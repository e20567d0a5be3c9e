"""The recipe of a pipeline: variants, values from the command line, and the sets that it is judged on."""

from pathlib import Path

import pytest

from compress.errors import BadInput
from compress.pipeline.__main__ import command_parser
from compress.pipeline.recipe import read_overrides, read_pipeline


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
