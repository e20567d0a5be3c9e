"""From a photograph to a file, and sentences for everything that is none."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from compress.errors import BadInput
from runtime.engines import open_model
from runtime.upscale import read_photo, upscale_photo
from tests.runtime.conftest import SCALE

UPSIDE_DOWN = 3
TURNED_RIGHT = 6  # as a phone held upright writes it


@pytest.fixture
def photo(tmp_path, photograph):
    path = tmp_path / "photo.png"
    Image.fromarray(photograph).save(path)
    return path


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_png_holds_what_the_engine_computes(tiny, photo, photograph, tmp_path, precision):
    _, model = tiny.of(precision)
    upscale_photo(photo, model, tmp_path / "out.png")
    found = np.asarray(Image.open(tmp_path / "out.png"))
    assert np.array_equal(found, open_model(model).upscale(photograph).image)


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "JPEG"), (".jpeg", "JPEG"), (".webp", "WEBP"), (".PNG", "PNG")])
def test_other_formats(tiny, photo, photograph, tmp_path, suffix, kind):
    out = tmp_path / f"out{suffix}"
    result = upscale_photo(photo, tiny.int8_tflite, out)
    with Image.open(out) as picture:
        assert picture.format == kind
        error = np.abs(np.asarray(picture.convert("RGB")).astype(int) - result.image)
    assert error.mean() < (4 if kind == "JPEG" else 1e-9)  # an untrained student gives noise, hard for JPEG


@pytest.mark.parametrize("orientation", [UPSIDE_DOWN, TURNED_RIGHT])
def test_orientation_is_applied(tmp_path, photograph, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(photograph).save(path, exif=exif)
    expected = np.rot90(photograph, 2 if orientation == UPSIDE_DOWN else -1)
    assert np.array_equal(read_photo(path), expected)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_mode_becomes_rgb(tiny, tmp_path, photograph, mode):
    path = tmp_path / "photo.tif"
    Image.fromarray(photograph).convert(mode).save(path)
    height, width, _ = photograph.shape
    assert upscale_photo(path, tiny.int8_tflite, tmp_path / "out.png").image.shape == (SCALE * height, SCALE * width, 3)


def test_refuses_to_overwrite_its_inputs(tiny, photo, tmp_path):
    before = photo.read_bytes()
    (tmp_path / "link.png").symlink_to(photo)
    os.link(photo, tmp_path / "hard.png")
    for out in (photo, tmp_path / "link.png", tmp_path / "hard.png", tmp_path / "." / "photo.png"):
        with pytest.raises(BadInput, match="would overwrite"):
            upscale_photo(photo, tiny.int8_tflite, out)
    assert photo.read_bytes() == before


def test_failure_leaves_the_old_output(tiny, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "out.png").write_text("old")
    with pytest.raises(BadInput, match="unreadable"):
        upscale_photo(tmp_path / "text.png", tiny.int8_tflite, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "text.png"]


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.png", None, "found nothing"),
        ("text.png", b"no picture", "unreadable file"),
        ("empty.jpg", b"", "unreadable file"),
        ("", None, "found a folder"),
    ],
)
def test_refuses_what_is_no_photograph(tiny, tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=sentence):
        upscale_photo(tmp_path / name, tiny.int8_tflite, tmp_path / "out.png")


def test_truncated_photograph_is_refused(tiny, photo, tmp_path):
    photo.write_bytes(photo.read_bytes()[:-2000])
    with pytest.raises(BadInput, match="unreadable"):
        upscale_photo(photo, tiny.int8_tflite, tmp_path / "out.png")


def test_refuses_other_outputs(tiny, photo, tmp_path):
    with pytest.raises(BadInput, match=r"expected an output out of \.png"):
        upscale_photo(photo, tiny.int8_tflite, tmp_path / "out.gif")


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.upscale", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_command(tiny, photo, tmp_path, photograph):
    run = _command(photo, "--model", tiny.int8_tflite, "--out", tmp_path / "out.webp", "--threads", 2)
    assert run.returncode == 0, run.stderr
    height, width, _ = photograph.shape
    assert f"{SCALE * width}x{SCALE * height} pixels" in run.stdout


def test_command_explains_bad_input(tiny, tmp_path):
    run = _command(tmp_path / "missing.png", "--model", tiny.int8_tflite, "--out", tmp_path / "out.png")
    assert run.returncode == 2
    assert "expected a photograph, found nothing" in run.stderr
    assert "Traceback" not in run.stderr
