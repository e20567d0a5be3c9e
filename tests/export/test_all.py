"""One folder of all formats and precisions: manifest, golden vectors, card; and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.checkpoint import load_student
from compress.errors import BadInput
from compress.files import sha256
from export.__main__ import main
from export.folder import folder_sha256
from export.formats import FORMATS
from runtime.engines import open_model
from runtime.engines.base import to_pixels, to_real

ALL = {
    "student_float32.tflite", "student_float16.tflite", "student_int8.tflite", "student_float32.onnx",
    "student_float16.onnx", "student_int8.onnx", "student_int8-weights.onnx", "student_float32.mlpackage",
    "student_float16.mlpackage", "student_int8.mlpackage", "student_int8-weights.mlpackage",
    "student_int8-dynamic.tflite",
    "student_float32.pte", "student_float16.pte", "student_int8.pte", "student_float32.param", "student_float16.param",
}  # fmt: skip
BESIDE = {"manifest.json", "golden.npz", "README.md", "student.pt", "student_int8.pt"}
BESIDE |= {f"student_{precision}{suffix}" for precision in ("float32", "float16") for suffix in (".bin", ".json")}


@pytest.fixture(scope="module")
def student(float_student, folder, tmp_path_factory) -> Path:
    float_student("anchor_x2")
    path = tmp_path_factory.mktemp("all") / "mine.pt"
    path.write_bytes((folder / "anchor_x2.pt").read_bytes())
    return path


@pytest.fixture(scope="module")
def exported(student, photographs, command) -> Path:
    done = command("export", student, "--calibration", photographs)
    assert done.returncode == 0, done.stderr
    for name in ALL:
        assert name in done.stdout
    return student.with_name("mine_export")


def test_the_folder_holds_every_file_and_the_manifest_their_hashes(exported, student):
    assert {path.name for path in exported.iterdir()} == ALL | BESIDE
    assert (exported / "student.pt").read_bytes() == student.read_bytes()
    manifest = json.loads((exported / "manifest.json").read_text())
    assert {row["file"] for row in manifest["files"]} == ALL
    for row in manifest["files"]:
        path = exported / row["file"]
        assert row["sha256"] == (sha256(path) if path.is_file() else folder_sha256(path))
        assert sum(row["operators"].values()) > 5
        beside = {f"{path.stem}{suffix}" for suffix in (".bin", ".json")} if row["format"] == "ncnn" else set()
        assert row.get("beside", {}) == {name: sha256(exported / name) for name in beside}
    assert manifest["students"] == {name: sha256(exported / name) for name in ("student.pt", "student_int8.pt")}
    assert "--calibration" in manifest["command"]
    assert manifest["versions"].keys() >= {"torch", "onnx", "coremltools", "litert-torch"}
    card = (exported / "README.md").read_text()
    assert "student_int8.tflite" in card
    assert "Quantization" in card


@pytest.mark.parametrize("name", sorted(ALL))
def test_every_file_gives_the_golden_vector_of_its_precision(exported, name):
    engine = open_model(exported / name)
    precision = engine.metadata.precision
    with np.load(exported / "golden.npz") as golden:
        lr, expected = golden["lr"], golden[f"sr_{'float32' if precision == 'float16' else precision}"]
    found = engine.upscale(np.ascontiguousarray(lr))
    assert expected.std() > (2 if precision == "int8" else 0.01)
    if precision == "int8":
        assert np.abs(found.image.astype(int) - expected).max() <= 1
    else:
        tolerance = {"float32": 1e-4, "float16": 4e-3, "int8-weights": 4e-3, "int8-dynamic": 1e-4}[precision]
        pixels = 0.51 / 255 if found.raw.dtype == np.uint8 else 0.0
        assert np.abs(to_real(found.raw) - expected).max() <= tolerance + pixels
    if precision == "float32":
        assert np.array_equal(found.image, to_pixels(expected)) or name.endswith("mlpackage")


def test_a_float_student_without_photographs_gives_the_float_files_and_says_what_is_missing(student, command, tmp_path):
    done = command("export", student, "--out", tmp_path / "out", "--formats", "onnx")
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "student_float32.onnx", "student_float16.onnx", "manifest.json", "golden.npz", "README.md", "student.pt",
    }  # fmt: skip
    assert "int8 was left out" in done.stdout


def test_what_cannot_be_exported_is_refused_and_nothing_is_lost(exported, student, monkeypatch, tmp_path):
    def refused(says: str, *arguments: Any, **options: Any) -> None:
        with pytest.raises(BadInput, match=says) as caught:
            main(*arguments, **options)
        assert "\n" not in str(caught.value)

    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    refused("or --force to replace it", student)
    refused(
        "expected formats out of tflite, onnx, coreml, executorch, ncnn, found 'coreml2'",
        student,
        formats=["coreml2"],
        out=tmp_path / "x",
    )
    refused("found neither for int8", student, precisions=["int8"], out=tmp_path / "x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "mine.jpg").write_bytes(b"mine")
    refused("expected a folder that this command wrote", student, out=tmp_path / "photos", force=True)
    assert (tmp_path / "photos" / "mine.jpg").read_bytes() == b"mine"

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no such operator")

    import litert_torch

    monkeypatch.setattr(litert_torch, "convert", fail)
    with pytest.raises(BadInput, match="no such operator") as caught:
        main(student, force=True, formats=["tflite"])
    log = exported.with_name("mine_export.log")
    assert str(log) in str(caught.value)
    assert "Traceback" in log.read_text()
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before
    assert {path.name for path in exported.parent.iterdir()} == {"mine.pt", "mine_export", "mine_export.log"}


def test_an_int8_student_gives_everything_without_photographs(exported, tmp_path):
    main(exported / "student_int8.pt", out=tmp_path / "out", formats=["onnx"])
    names = {path.name for path in (tmp_path / "out").iterdir()}
    of_int8 = set(FORMATS["onnx"].precisions) - {"int16x8", "mixed"}
    assert {f"student_{precision}.onnx" for precision in of_int8} <= names
    assert load_student(tmp_path / "out" / "student_int8.pt").precision == "int8"
    assert "student.pt" not in names


def test_a_format_that_is_not_installed_is_left_out_unless_it_is_asked_for(student, tmp_path, monkeypatch):
    assert [name for name, one in FORMATS.items() if one.installed] == list(FORMATS)
    for module in ("executorch.version", "pnnx"):
        monkeypatch.setitem(sys.modules, module, None)
    assert [name for name, one in FORMATS.items() if one.installed] == ["tflite", "onnx", "coreml"]
    for name in ("executorch", "ncnn"):
        with pytest.raises(BadInput, match=rf"pip install 'pocketsr\[{name}\]'"):
            main(student, out=tmp_path / "out", formats=["onnx", name])
    assert not any(tmp_path.iterdir())
