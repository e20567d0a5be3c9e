"""What the report shows is what the gate found: pictures, names, hashes."""

import base64
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.checkpoint import load_student
from compress.data.benchmarks import Benchmark, open_benchmark
from compress.errors import BadInput
from compress.files import sha256
from export.folder import folder_sha256
from runtime.names import told_apart
from runtime.parity.results import Refusal
from runtime.report.data import difference
from runtime.report.encoding import heat_levels, jpegs
from runtime.report.provenance import provenance
from runtime.report.saved import read_parity
from runtime.report.scenes import VIEW, Painter, labels, scenes
from tests.runtime.conftest import SCALE


def test_scenes_show_what_the_files_compute(tiny, parity, one, tmp_path):
    """Every picture of a photograph, and the same window of it where only a piece was computed."""
    painter = Painter(load_student(tiny.int8_pt), parity, None, 1)
    assert painter.names == ["float.tflite", "int8.tflite", "int8.onnx"]
    [scene] = scenes(painter, [one])
    assert all(length <= most for length, most in zip(scene.pictures[0].image.shape, VIEW, strict=False))
    assert [one.kind for one in scene.pictures] == ["bicubic", "student", "file", "file", "file", "truth"]
    assert all(one.psnr is not None and 15 < one.psnr < 60 for one in scene.pictures[:-1])
    reference = scene.pictures[3].reference
    assert reference is not None
    assert difference(scene.pictures[3].image, reference).max() <= 2

    _, lr, _ = next(iter(one))
    Image.fromarray(lr).save(tmp_path / "photo.png")
    [photo, *_] = scenes(painter, [], tmp_path / "photo.png")
    assert photo.truth is None
    for whole, piece in zip(scene.pictures[1:5], photo.pictures[1:], strict=True):
        assert difference(whole.image, piece.image).max() <= 1, "a piece of a photograph is not what the whole gives"


def test_photographs_are_the_first_of_every_set_in_turn_under_the_sets_own_name(tiny, parity):
    pairs = open_benchmark("skimage", SCALE).pairs
    sets = [Benchmark("first", SCALE, pairs[:2]), Benchmark("second", SCALE, pairs[2:3])]
    with Painter(load_student(tiny.int8_pt), parity, None, 1) as painter:
        found = [(one.name, one.source) for one in scenes(painter, sets)]
    assert found == [(pairs[0].name, "first"), (pairs[2].name, "second"), (pairs[1].name, "first")]


def test_files_of_one_name_are_told_apart(parity):
    first, second, other = parity.files
    moved = [
        dataclasses.replace(one, description=dataclasses.replace(one.description, path=Path(path)))
        for one, path in ((first, "/a/old/x.tflite"), (second, "/a/new/x.tflite"), (other, "y.onnx"))
    ]
    assert labels(moved) == ["old/x.tflite", "new/x.tflite", "y.onnx"]
    twice = [*moved, dataclasses.replace(moved[0], engine="tensorflow")]
    assert labels(twice) == ["old/x.tflite on litert", "new/x.tflite", "y.onnx", "old/x.tflite on tensorflow"]
    assert told_apart([Path("x"), Path("a/x"), Path("b/a/x"), Path("x")]) == {
        Path("x"): "x", Path("a/x"): "a/x", Path("b/a/x"): "b/a/x",
    }  # fmt: skip


def test_provenance_has_the_hash_of_every_file_and_folder(tiny, parity, tmp_path):
    folder, pair = tmp_path / "x.mlpackage", tmp_path / "y.param"
    folder.mkdir()
    for path in (folder / "part", pair, tmp_path / "y.bin", tmp_path / "z.bin"):
        path.write_text(path.name)
    refused = tuple(
        Refusal(name=path.name, path=path, engine="any", reason="expected more.") for path in (folder, pair)
    )
    found = provenance(load_student(tiny.int8_pt), dataclasses.replace(parity, files=(), refused=refused), "command")
    assert found["x.mlpackage"].endswith(folder_sha256(folder))
    assert (found["y.param"], found["y.param's .bin"]) == (
        f"SHA-256 {sha256(pair)}",
        f"SHA-256 {sha256(tmp_path / 'y.bin')}",
    )


def test_gates_result_is_read_back(tiny, parity, one, tmp_path):
    student = load_student(tiny.int8_pt)
    files = [tiny.float_tflite, tiny.int8_tflite, tiny.int8_onnx]
    (tmp_path / "parity.json").write_text(parity.to_json())
    again = read_parity(tmp_path / "parity.json", student, files, [one.name])
    assert json.loads(again.to_json()) == json.loads(parity.to_json())
    with pytest.raises(BadInput, match=r"found one for float\.tflite, int8\.onnx, int8\.tflite"):
        read_parity(tmp_path / "parity.json", student, files[:1], [one.name])
    with pytest.raises(BadInput, match="expected the gate's result for the student"):
        read_parity(tmp_path / "parity.json", load_student(tiny.float_pt), files, [one.name])
    with pytest.raises(BadInput, match="expected the gate's result on Set5, found one on one photograph"):
        read_parity(tmp_path / "parity.json", student, files, ["Set5"])
    (tmp_path / "other.json").write_text(json.dumps({"passed": True}))
    with pytest.raises(BadInput, match="found something else"):
        read_parity(tmp_path / "other.json", student, files, [one.name])


def test_heat_grows_with_the_difference_and_only_none_is_dark():
    a = np.zeros((1, 5, 3), np.uint8)
    b = np.array([[[0, 0, 0], [0, 1, 0], [0, 2, 1], [5, 0, 0], [0, 0, 255]]], np.uint8)
    values = difference(a, b)
    assert values.tolist() == [[0, 1, 2, 5, 255]]
    levels = heat_levels(values, 64)[0].tolist()
    assert levels == sorted(levels)
    assert levels[0] == 0 < levels[1]


def test_large_pictures_keep_to_their_budget(data):
    images = [picture.image for picture in data.scenes[0].pictures]
    best, small = jpegs(images, 10**9), jpegs(images, 150_000)
    assert sum(map(len, small)) <= 150_000 < sum(map(len, best))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(best[0].partition(",")[2]))))
    assert np.abs(shown.astype(int) - images[0]).mean() < 4
