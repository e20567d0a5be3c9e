"""From one photograph to a file, as a user asks for it: sizes, transparency, what is carried on, and little memory."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from compress.errors import BadInput
from runtime.engines import open_model
from runtime.upscale.__main__ import _of_folder
from runtime.upscale.enlarge import Settings
from runtime.upscale.single import upscale_photo
from runtime.upscale.sizes import Target
from tests.runtime.conftest import SCALE

ROOT = Path(__file__).resolve().parents[2]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def photo(tmp_path, photograph):
    path = tmp_path / "photo.png"
    Image.fromarray(photograph).save(path)
    return path


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_png_holds_what_the_engine_computes(tiny, photo, photograph, tmp_path, precision):
    _, model = tiny.of(precision)
    upscale_photo(photo, model, tmp_path / "out.png")
    assert np.array_equal(pixels(tmp_path / "out.png"), open_model(model).upscale(photograph).image)


@pytest.mark.parametrize(("suffix", "kind"), [(".jpg", "JPEG"), (".webp", "WEBP"), (".PNG", "PNG"), (".tif", "TIFF")])
def test_formats_carry_profile_and_exif(tiny, photograph, tmp_path, suffix, kind):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Maker", 6  # as a phone held upright writes it
    Image.fromarray(photograph).save(tmp_path / "photo.png", exif=exif.tobytes(), icc_profile=SRGB)
    out = tmp_path / f"out{suffix}"
    upscale_photo(tmp_path / "photo.png", tiny.int8_tflite, out)
    expected = open_model(tiny.int8_tflite).upscale(np.ascontiguousarray(np.rot90(photograph, -1))).image
    with Image.open(out) as picture:
        assert picture.format == kind
        assert picture.info["icc_profile"] == SRGB
        kept = picture.getexif()
        error = np.abs(np.asarray(picture.convert("RGB")).astype(int) - expected)
    assert kept[ExifTags.Base.Make] == "Maker"
    assert kept.get(ExifTags.Base.Orientation, 1) == 1
    assert error.mean() < (4 if kind == "JPEG" else 1e-9)  # an untrained student gives noise, hard for JPEG


@pytest.mark.parametrize(
    ("target", "size"),
    [
        (Target(scale=1.5), (146, 195)),
        (Target(scale=3), (291, 390)),  # beyond the network's own
        (Target(width=200), (149, 200)),
        (Target(height=100), (100, 134)),
        (Target(width=111, height=222), (222, 111)),
        (Target(width=65), (48, 65)),  # smaller than it was
        (Target(scale=1), (97, 130)),
        (Target(scale=0.001), (1, 1)),
    ],
)
def test_any_size(tiny, photo, photograph, tmp_path, target, size):
    """Pillow's Lanczos of the network's result, or of the photograph where that is large enough."""
    done = upscale_photo(photo, tiny.int8_tflite, tmp_path / "out.png", settings=Settings(target=target, tile=64))
    grows = size[0] > photograph.shape[0] or size[1] > photograph.shape[1]
    base = open_model(tiny.int8_tflite).upscale(photograph).image if grows else photograph
    across = Image.fromarray(base).resize((size[1], len(base)), Image.Resampling.LANCZOS)
    expected = np.asarray(across.resize((size[1], size[0]), Image.Resampling.LANCZOS))
    assert done.after == size
    assert (done.tiles > 0) == grows
    assert np.array_equal(pixels(tmp_path / "out.png"), expected)
    assert ("Lanczos" in " ".join(done.notes)) == (size != photograph.shape[:2])


@pytest.mark.parametrize("scale", [2.0, 1.3])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_nothing_hidden_bleeds_and_nothing_clear_gains_a_veil(tiny, photograph, tmp_path, mode, scale):
    y, x = np.mgrid[: photograph.shape[0], : photograph.shape[1]]
    alpha = np.clip(255 * (30 - np.hypot(y - 48, x - 60)), 0, 255).astype(np.uint8)
    results = []
    for hidden in (0, 255):
        colours = np.asarray(Image.fromarray(photograph).convert("L" if mode == "LA" else "RGB"))
        colours = np.where((alpha if mode == "LA" else alpha[..., None]) > 0, colours, np.uint8(hidden))
        Image.fromarray(np.dstack([colours, alpha])).save(tmp_path / "photo.png")
        settings = Settings(target=Target(scale=scale), tile=48)
        upscale_photo(tmp_path / "photo.png", tiny.int8_tflite, tmp_path / "out.png", settings=settings)
        with Image.open(tmp_path / "out.png") as picture:
            assert picture.mode == mode
            results.append(np.asarray(picture))
    assert np.array_equal(*results)
    height, width = results[0].shape[:2]
    y, x = np.mgrid[:height, :width] / scale
    distance = np.hypot(y - 48, x - 60)
    assert (results[0][..., -1][distance > 40] == 0).all()
    assert (results[0][..., -1][distance < 20] == 255).all()


def test_transparency_over_white_in_a_jpeg(tiny, photograph, tmp_path):
    alpha = np.zeros(photograph.shape[:2], np.uint8)
    alpha[:, :40] = 255
    Image.fromarray(np.dstack([photograph, alpha])).save(tmp_path / "photo.png")
    done = upscale_photo(tmp_path / "photo.png", tiny.int8_tflite, tmp_path / "out.jpg")
    assert "white" in " ".join(done.notes)
    assert pixels(tmp_path / "out.jpg")[:, SCALE * 60 :].min() > 250


@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_grey_stays_grey(tiny, photograph, tmp_path, mode):
    grey = Image.fromarray(photograph).convert("L")
    grey = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257) if mode == "I;16" else grey.convert(mode)
    grey.save(tmp_path / "photo.png")
    upscale_photo(tmp_path / "photo.png", tiny.int8_tflite, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.mode == "L"
        found = np.asarray(picture)
    lr = np.repeat(np.asarray(Image.fromarray(photograph).convert("L").convert(mode[0]).convert("L"))[..., None], 3, 2)
    expected = open_model(tiny.int8_tflite).upscale(lr).image
    if mode == "I;16":
        expected = (
            open_model(tiny.int8_tflite)
            .upscale(np.repeat(np.asarray(Image.fromarray(photograph).convert("L"))[..., None], 3, 2))
            .image
        )
    assert np.array_equal(found, np.asarray(Image.fromarray(expected).convert("L")))


def test_refuses_to_overwrite_its_inputs(tiny, photo, tmp_path):
    before = photo.read_bytes()
    (tmp_path / "link.png").symlink_to(photo)
    os.link(photo, tmp_path / "hard.png")
    for out in (photo, tmp_path / "link.png", tmp_path / "hard.png", tmp_path / "." / "photo.png"):
        with pytest.raises(BadInput, match="would overwrite"):
            upscale_photo(photo, tiny.int8_tflite, out)
    assert photo.read_bytes() == before


def test_links_in_a_circle(tiny, photo, tmp_path):
    circle = tmp_path / "circle.png"
    circle.symlink_to(circle.name)
    with pytest.raises(BadInput, match="found nothing"):
        upscale_photo(circle, tiny.int8_tflite, tmp_path / "out.png")
    upscale_photo(photo, tiny.int8_tflite, circle)
    assert pixels(circle).shape[2] == 3


def test_one_photograph_is_contained_whatever_kind_of_model(tiny, photo, tmp_path):
    assert not _of_folder([str(photo), "--model", str(tiny.int8_mlpackage), "--out", str(tmp_path)])
    assert _of_folder(["--model", str(tiny.int8_mlpackage), str(tmp_path)])


def test_failure_leaves_the_old_output(tiny, photo, tmp_path):
    photo.write_bytes(photo.read_bytes()[:-2000])
    (tmp_path / "out.png").write_text("old")
    with pytest.raises(BadInput, match="unreadable"):
        upscale_photo(photo, tiny.int8_tflite, tmp_path / "out.png")
    assert (tmp_path / "out.png").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.png", "photo.png"]


def test_what_a_killed_run_left_is_cleared_away(tiny, photo, tmp_path):
    left, other = tmp_path / ".out.png.abcd_123.part.png", tmp_path / ".other.png.abcd_123.part.png"
    left.touch()
    other.touch()
    upscale_photo(photo, tiny.int8_tflite, tmp_path / "out.png")
    assert not left.exists()
    assert other.exists()


def test_command_names_its_output_and_says_what_it_did(tiny, photo, photograph, command):
    run = command("runtime.upscale", photo, "--model", tiny.int8_tflite, "--scale", "1.5", "--threads", "2")
    assert run.returncode == 0, run.stderr
    height, width, _ = photograph.shape
    assert re.search(
        rf"photo_x1\.5\.png: 195x146 pixels from {width}x{height} in .* tile.*megapixels per s", run.stdout
    )
    assert "note: x2 by the network, then made smaller" in run.stdout
    assert pixels(photo.with_name("photo_x1.5.png")).shape == (146, 195, 3)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["missing.png"], "expected a photograph, found nothing"),
        (["photo.png", "--scale", "0"], "expected a scale above 0"),
        (["photo.png", "--scale", "nan"], "expected a scale above 0"),
        (["photo.png", "--scale", "1e9"], "on a side"),
        (["photo.png", "--scale", "2", "--width", "9"], "found both"),
        (["photo.png", "--tile", "many"], "expected --tile auto or a number"),
        (["photo.png", "--tile", "-3"], "expected tiles of at least 1"),
        (["photo.png", "--memory", "1B"], "budget"),
        (["photo.png", "--out", "out.gif"], "expected an output out of .png"),
        (["photo.png", "--out", "out.png", "--format", "jpg"], "expected an output named .jpg"),
        (["photo.png", "--quality", "101"], "quality of 1 to 100"),
        (["photo.png", "--format", "webp", "--scale", "150"], "16383"),
        (["photo.png", "--out", "photo.png/out.png"], "expected a path that can be"),
        (["photo.png", "--out", f"{'long' * 70}.png"], "File name too long"),
        ([f"{'long' * 70}.png"], "File name too long"),
    ],
)
def test_refusals(tiny, photo, tmp_path, monkeypatch, capsys, arguments, sentence):
    from compress.errors import run_command
    from runtime.upscale.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["upscale", *arguments, "--model", str(tiny.int8_tflite)])
    with pytest.raises(SystemExit, match="2"):
        run_command(main)
    error = capsys.readouterr().err
    assert re.sub("upscale: .*\n", "", error).count("\n") == 1
    assert sentence in error
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_bar_only_goes_forward(tiny, photo, tmp_path):
    script = (  # drawn again after each tile, however fast that is
        "import sys\nfrom runtime.upscale import __main__ as command, bar\nbar.REDRAWN = -1\nsys.exit(command.main())"
    )
    leader, follower = pty.openpty()
    command = [sys.executable, "-c", script, str(photo), "--model", str(tiny.int8_tflite), "--tile", "48"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=follower, cwd=ROOT)
    os.close(follower)
    shown = b""
    while True:
        try:
            shown += os.read(leader, 4096)
        except OSError:  # the other end is closed
            break
    os.close(leader)
    assert process.wait() == 0
    shares = [int(share) for share in re.findall(rb"(\d+)%", shown)]
    assert shares == sorted(shares)
    assert shares[-1] == 100
    assert len(set(shares)) > 5
    assert re.search(rb"\[#+\.+\] +\d+% \d+:\d\d left", shown)
    assert shown.endswith(b"\r\x1b[K")


def _peak(*arguments: object) -> int:
    """Bytes of the largest resident memory of a command."""
    program = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)"
    )
    command = [sys.executable, "-c", program, sys.executable, "-m", "runtime.upscale", *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", ".png"), ("RGB", ".jpg")])
def test_memory_does_not_hold_the_result(tiny, tmp_path, mode, suffix):
    """Four times the height: the growth stays a fraction of what the results differ by, photograph included."""
    peaks, width, heights = [], 200, (192, 768)
    for height in heights:
        gradient = Image.linear_gradient("L").resize((width, height))
        Image.merge(mode, [gradient] * len(mode)).save(tmp_path / "photo.png")
        out = tmp_path / f"out{suffix}"
        peaks.append(
            _peak(tmp_path / "photo.png", "--model", tiny.int8_tflite, "--out", out, "--scale", 9, "--tile", 64)
        )
    results = [9 * 9 * width * height * len(mode) for height in heights]
    assert peaks[1] - peaks[0] < 0.2 * (results[1] - results[0])
