"""A pipeline with one stage of every kind, run to its end once for all tests of pipelines."""

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from compress.errors import run_command
from compress.pipeline.__main__ import main

SRRESNET = {
    "architecture": "srresnet",
    "options": {"scale": 2, "channels": 16, "blocks": 3, "head_kernel": 3, "tail_kernel": 3, "activation": "relu"},
}
ANCHOR = {"architecture": "anchor", "options": {"scale": 2, "channels": 8, "blocks": 1}}
DISTILLED = {"model": ANCHOR, "method": {"name": "distillation"}, "teacher": {"file": "stage:teacher"}}
Run = Callable[..., tuple[int, str]]


def stages_of_every_kind() -> dict[str, Any]:
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


def recipe_of(photographs: Path, **changes: Any) -> dict[str, Any]:
    recipe = {
        "title": "A tiny pipeline",
        "seed_document": "Nobody: Nothing",
        "common": {
            "data": {"folder": str(photographs), "lr_patch": 16, "batch": 2, "workers": 0},
            "schedule": {"steps": 3, "ema": 0},
            "validation": {"sets": [], "every": 100},
            "precision": "float32",
        },
        "stages": stages_of_every_kind(),
        "report": {"sets": [str(photographs)], "rows": ["scratch", "tuned", "masked", "int8"], "strip": ["scratch"]},
        "variants": {"quick": {"common": {"schedule": {"steps": 2}}}},
    }
    return {**recipe, **changes}


@pytest.fixture(scope="session")
def tiny_photographs(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """Two of the photographs at 96x96: measuring them takes no time."""
    folder = tmp_path_factory.mktemp("tiny") / "pair"
    folder.mkdir()
    for path in sorted(photographs.iterdir())[:2]:
        with Image.open(path) as image:
            image.crop((0, 0, 96, 96)).save(folder / path.name)
    return folder


@pytest.fixture(scope="session")
def pipeline() -> Run:
    """Runs the command in this process; its exit code and what it wrote to standard error."""

    def run(recipe: Path, *options: object) -> tuple[int, str]:
        errors = io.StringIO()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PL_GLOBAL_SEED", "0")  # Fabric sets it: undone afterwards
            patch.setattr(sys, "argv", ["pipeline", str(recipe), *map(str, options)])
            with contextlib.redirect_stderr(errors), pytest.raises(SystemExit) as caught:
                run_command(main)
        return int(caught.value.code or 0), errors.getvalue()

    return run


@pytest.fixture(scope="session")
def write(tmp_path_factory: pytest.TempPathFactory, tiny_photographs: Path) -> Callable[..., Path]:
    """Writes a recipe, with the given fields replaced."""

    def write(**changes: Any) -> Path:
        path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
        path.write_text(yaml.safe_dump(recipe_of(tiny_photographs, **changes), sort_keys=False))
        return path

    return write


@pytest.fixture(scope="session")
def whole(write: Callable[..., Path]) -> Path:
    return write()


@pytest.fixture(scope="session")
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


def result_of(out: Path, stage: str) -> dict[str, Any]:
    return json.loads((out / stage / "result.json").read_text())
