"""Photographs as files: colours, transparency and profiles that are read of them, and sentences for what is none."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.errors import BadInput
from runtime.upscale.photograph import read_photograph
from tests.runtime.photographs import HEIGHT, SRGB, WIDTH, cmyk_profile, noise

ROOT = Path(__file__).resolve().parents[2]


def test_palettes_and_transparent_colours(tmp_path):
    picture = Image.fromarray(noise(3)).quantize(16)
    picture.save(tmp_path / "palette.png", transparency=3)
    found = read_photograph(tmp_path / "palette.png")
    assert np.array_equal(found.rgb, np.asarray(picture.convert("RGB")))
    assert np.array_equal(found.alpha == 0, np.asarray(picture) == 3)
    assert not found.grey
    Image.fromarray(noise() // 64).save(tmp_path / "grey.png", transparency=2)
    found = read_photograph(tmp_path / "grey.png")
    assert found.grey
    assert np.array_equal(found.alpha == 0, found.rgb[..., 0] == 2)


def test_opaque_alpha_is_none(tmp_path):
    Image.fromarray(np.dstack([noise(3), np.full((HEIGHT, WIDTH), 255, np.uint8)])).save(tmp_path / "opaque.png")
    assert read_photograph(tmp_path / "opaque.png").alpha is None


@pytest.mark.parametrize(("mode", "grey"), [("1", True), ("L", True), ("LA", True), ("RGB", False), ("P", False)])
def test_grey_is_told_from_colour(tmp_path, mode, grey):
    Image.fromarray(noise(3)).convert(mode).save(tmp_path / "photo.tif" if mode == "LA" else tmp_path / "photo.png")
    (path,) = tmp_path.iterdir()
    assert read_photograph(path).grey == grey


def test_cmyk_goes_through_its_profile(tmp_path):
    """With a profile that is unlike Pillow's formula; the result carries none, which is sRGB."""
    cmyk = Image.fromarray(np.full((HEIGHT, WIDTH, 4), (200, 30, 30, 60), np.uint8), "CMYK")
    cmyk.save(tmp_path / "plain.tif")
    plain = read_photograph(tmp_path / "plain.tif")
    assert np.array_equal(plain.rgb, np.asarray(cmyk.convert("RGB")))
    assert "without a usable ICC profile" in plain.notes[0]
    cmyk.save(tmp_path / "damaged.tif", icc_profile=b"no profile")
    assert np.array_equal(read_photograph(tmp_path / "damaged.tif").rgb, plain.rgb)
    cmyk.save(tmp_path / "profiled.tif", icc_profile=cmyk_profile())
    found = read_photograph(tmp_path / "profiled.tif")
    assert found.icc is None
    assert "by its ICC profile" in found.notes[0]
    assert not np.array_equal(found.rgb, plain.rgb)


def test_profiles_are_kept_where_they_fit(tmp_path):
    Image.fromarray(noise(3)).save(tmp_path / "colour.png", icc_profile=SRGB)
    assert read_photograph(tmp_path / "colour.png").icc == SRGB
    Image.fromarray(noise()).save(tmp_path / "grey.jpg", icc_profile=SRGB)
    found = read_photograph(tmp_path / "grey.jpg")
    assert found.icc is None
    assert found.notes == ("an ICC profile for RGB pixels left out",)


def test_the_first_of_two_stills(tmp_path):
    """As phones write: two JPEGs in one file."""
    first, second = Image.fromarray(noise(3)), Image.new("RGB", (8, 8))
    first.save(tmp_path / "two.mpo", "MPO", save_all=True, append_images=[second], quality=100, subsampling=0)
    (tmp_path / "two.mpo").rename(tmp_path / "two.jpg")
    found = read_photograph(tmp_path / "two.jpg")
    assert found.size == (HEIGHT, WIDTH)
    assert found.notes == ("the first of the file's pictures",)


def _broken(folder: Path, kind: str) -> Path:
    """A file that is no photograph."""
    path = folder / "photo.png"
    frames = [Image.fromarray(noise(3)) for _ in range(3)]
    if kind in ("GIF", "PNG", "WEBP", "TIFF"):
        frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    elif kind == "bomb":
        Image.new("1", (20_000, 20_000)).save(path)
    elif kind == "truncated":
        frames[0].save(path)
        path.write_bytes(path.read_bytes()[:-900])
    elif kind == "eps":
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"no picture", "half a header": b"\x89PNG\r\n\x1a\n\0\0"}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("missing", "found nothing"),
        ("empty", "it is empty"),
        ("text", "no known kind of picture"),
        ("eps", "no known kind of picture"),
        ("half a header", "unreadable"),
        ("truncated", "unreadable"),
        ("bomb", r"found 400 \(20000x20000\).*--max-megapixels"),
        ("GIF", "animated GIF"),
        ("PNG", "animated PNG"),
        ("WEBP", "animated WEBP"),
        ("TIFF", "several pages"),
    ],
)
def test_refuses_what_is_no_photograph(tmp_path, kind, sentence):
    path = _broken(tmp_path, kind)
    with pytest.raises(BadInput, match=sentence) as refused:
        read_photograph(path)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and limits the memory of a process")
def test_too_little_memory_is_told_from_a_damaged_file(tmp_path):
    path = tmp_path / "large.png"
    Image.new("L", (10_000, 10_000)).save(path, compress_level=1)
    script = (
        "import resource, sys\nfrom compress.errors import BadInput\nfrom runtime.upscale.photograph import read_photograph\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 60_000_000,) * 2)\n"
        "try:\n    read_photograph(sys.argv[1])\nexcept BadInput as error:\n    print(error)\n"
    )
    command = [sys.executable, "-c", script, str(path)]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"found that {path} needs more than there is" in found.stdout, found.stderr


def test_large_photographs_on_request(tmp_path):
    Image.new("L", (1500, 1000)).save(tmp_path / "photo.png")
    with pytest.raises(BadInput, match="at most 1 megapixels"):
        read_photograph(tmp_path / "photo.png", max_megapixels=1)
    assert read_photograph(tmp_path / "photo.png", max_megapixels=2).size == (1000, 1500)
