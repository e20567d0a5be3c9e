"""A pipeline that cannot work is refused in one line, before anything starts."""

from typing import Any

import pytest

from tests.compress.pipeline.conftest import ANCHOR, DISTILLED, stages_of_every_kind


def _with(name: str, value: Any) -> dict[str, Any]:
    """Few stages, one of them as given."""
    few = {key: stages_of_every_kind()[key] for key in ("teacher", "sizes")}
    last = {"int8": {"quantize": {"student": "stage:teacher"}}}
    return {"stages": {**few, name: value, **last}, "report": {"sets": []}}


def _training(**changes: Any) -> dict[str, Any]:
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
        ({"report": {"row": []}}, "found that Option 'row' is not accepted"),
        ({"common": [1]}, "expected options (`name: value`) for common"),
        (
            {"common": {"shedule": {"steps": 3}}},
            "stage 'teacher': expected known options with values that fit, found that Option 'shedule.steps'",
        ),
        (_with("a/b", _training()), "expected names of stages made of letters, digits, _ and -, found 'a/b'"),
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
            _with("last", _training(teacher={"file": "stage:last"})),
            "found 'last' for teacher.file, which comes no earlier",
        ),
        (
            _with("last", _training(teacher={"file": "stage:../x"})),
            "expected stage:NAME or stage:NAME/FILE for teacher.file",
        ),
        (_with("last", {"quantize": {"student": "stage:sizes"}}), "expected a student for student of stage 'last'"),
        (
            _with("last", _training(model={"architecture": "anchor", "sizes": "stage:teacher"})),
            "expected sizes for model.sizes",
        ),
        (
            _with("last", {"quantize": {"student": "stage:teacher", "rulle": "mse"}}),
            "stage 'last': expected known options with values that fit, found that Option 'rulle'",
        ),
        (
            _with("last", {"quantize": {"rule": "mse"}}),
            "stage 'last': expected known options with values that fit, found that the following arguments are required: student",
        ),
        (_with("last", {"quantize": {"student": "stage:teacher", "out": "x"}}), "expected no 'out' in a stage"),
        (_with("last", _training(out="x")), "expected no 'out' in stage 'last'"),
        (_with("last", {"blocks": {"student": "stage:teacher", "keep": "all"}}), "expected a whole number for --keep"),
        (_with("last", _training(schedule={"steps": 0})), "stage 'last': expected schedule.steps between 1"),
        (_with("last", _training(model={"architecture": "mlp"})), "stage 'last': expected an architecture out of"),
        (_with("last", _training(model={"architecture": "anchor", "options": {"depth": 3}})), "found 'depth'"),
        (_with("last", _training(method={"name": "magic"})), "stage 'last': expected a method out of"),
        (_with("last", _training(method={"name": "distillation", "options": {"truht": 1.0}})), "found 'truht'"),
        (_with("last", _training(teacher=None)), "expected a teacher for the method 'distillation', found none"),
        (
            _with("last", _training(discriminator={"width": 8})),
            "expected no discriminator for the method 'distillation'",
        ),
        (_with("last", _training(technique={"name": "melt"})), "stage 'last': expected a technique out of none, "),
        (_with("last", _training(technique={"name": "magnitude", "options": {"a": 1}})), "found 'a'"),
        (
            _with("last", _training(model={"architecture": "anchor", "options": {"scale": 4}})),
            "expected a teacher of scale x4 for stage 'last', found stage 'teacher' of x2",
        ),
        (_with("last", {"quantize": {"student": "none.pt"}}), "expected the file none.pt for student of stage 'last'"),
        (
            _with("last", _training(teacher={"file": "none.pt"})),
            "expected the file none.pt for teacher.file of stage 'last'",
        ),
        (_with("last", _training(data={"folder": "no/such"})), "stage 'last': expected a folder of images"),
        (_with("last", _training(validation={"sets": ["Set99"]})), "stage 'last': expected a benchmark set out of"),
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
        (("--schedule.stpes", "3"), "stage 'teacher': expected known options of 'schedule', found 'stpes'"),
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
