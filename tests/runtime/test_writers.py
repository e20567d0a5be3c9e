"""Pictures written row by row are the pictures that Pillow writes at once; a broken one never appears."""

import io
import random
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import ExifTags, ImageCms
from PIL import Image as Pillow
from PIL.TiffImagePlugin import IFDRational

from compress.data.sources import skimage_photographs
from compress.errors import BadInput
from runtime.upscale.writers import open_writer
from runtime.upscale.writers.base import CHANNELS

SUFFIX = {"png": ".png", "tiff": ".tif", "webp": ".webp", "jpeg": ".jpg"}
LOSSLESS = [(kind, mode) for kind in ("png", "tiff", "webp") for mode in CHANNELS]
MAKE, ORIENTATION, ARTIST, RATING, TITLE, EXPOSURE, LATITUDE = 0x010F, 0x0112, 0x013B, 0x4746, 0x9C9B, 0x829A, 2


def picture(mode: str, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth with some noise and a flat patch, so that every PNG filter has its place."""
    draw = np.random.default_rng(seed)
    y, x, c = np.mgrid[:height, :width, : CHANNELS[mode]]
    values = 128 + 90 * np.sin(x / 13 + c) * np.cos(y / 9 - c) + draw.normal(0, 6, (height, width, CHANNELS[mode]))
    values[: height // 3, : width // 2] = 200
    return values.clip(0, 255).astype(np.uint8)


def write(path: Path, pixels: NDArray[np.uint8], mode: str, cuts: tuple[int, ...] = (), **options) -> Path:
    with open_writer(path, pixels.shape[1], pixels.shape[0], mode=mode, **options) as writer:
        for rows in np.split(pixels, sorted(min(cut, len(pixels)) for cut in cuts)):
            writer.write(rows)
    return path


def read(path: Path, mode: str) -> NDArray[np.uint8]:
    with Pillow.open(path) as found:
        expected = {"L": "RGB", "LA": "RGBA"}.get(mode, mode) if found.format == "WEBP" else mode
        assert found.mode == expected
        found.load()
        return np.asarray(found.convert(mode)).reshape(found.height, found.width, CHANNELS[mode])


@pytest.fixture(scope="module")
def exif() -> bytes:
    found = Pillow.Exif()
    found[MAKE], found[ORIENTATION] = "Maker of cameras", 1
    found[ARTIST], found[RATING], found[TITLE] = "写".encode(), 4, "写".encode("utf-16-le") + bytes(2)
    found.get_ifd(ExifTags.IFD.Exif)[EXPOSURE] = IFDRational(1, 250)
    found.get_ifd(ExifTags.IFD.GPSInfo)[LATITUDE] = (48.0, 8.0, 15.5)
    return found.tobytes()


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    path = next(path for path in skimage_photographs("train") if path.stem == "astronaut")
    return np.asarray(Pillow.open(path).convert("RGB"))


@pytest.mark.parametrize(("kind", "mode"), LOSSLESS)
@given(height=st.integers(1, 90), width=st.integers(1, 90), cuts=st.lists(st.integers(0, 90), max_size=6))
@settings(max_examples=20, deadline=None)
def test_any_rows_make_the_same_picture(tmp_path_factory, kind, mode, height, width, cuts):
    pixels = picture(mode, height, width)
    path = write(tmp_path_factory.getbasetemp() / f"rows{SUFFIX[kind]}", pixels, mode, tuple(cuts))
    assert np.array_equal(read(path, mode), pixels)


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("quality", [None, 30, 100])
@given(height=st.integers(1, 300), width=st.integers(1, 90), cuts=st.lists(st.integers(0, 300), max_size=6))
@settings(max_examples=20, deadline=None)
def test_a_jpeg_of_bands_decodes_as_one_encoded_at_once(tmp_path_factory, mode, quality, height, width, cuts):
    pixels = picture(mode, height, width)
    path = write(tmp_path_factory.getbasetemp() / "bands.jpg", pixels, mode, tuple(cuts), quality=quality)
    whole = io.BytesIO()
    squeezed = pixels[..., 0] if mode == "L" else pixels
    Pillow.fromarray(squeezed).save(whole, "JPEG", quality=quality or 95, subsampling=0)
    expected = np.asarray(Pillow.open(whole)).reshape(pixels.shape)
    assert np.array_equal(read(path, mode), expected)


def test_a_jpeg_as_wide_or_as_high_as_any(tmp_path):
    for height, width in ((17, 65500), (65500, 9)):
        pixels = picture("L", height, width)
        whole = io.BytesIO()
        Pillow.fromarray(pixels[..., 0]).save(whole, "JPEG", quality=95)
        found = write(tmp_path / "long.jpg", pixels, "L", (100, 30000))
        assert np.array_equal(read(found, "L")[..., 0], np.asarray(Pillow.open(whole)))


def test_large_pictures_of_many_pieces(tmp_path, photo):
    pixels = np.tile(photo, (3, 3, 1))
    for kind in ("png", "tiff"):
        path = write(tmp_path / f"large{SUFFIX[kind]}", pixels, "RGB", (700, 701, 1000))
        assert np.array_equal(read(path, "RGB"), pixels)
    assert np.array_equal(tifffile.imread(tmp_path / "large.tif"), pixels)


def test_pngs_are_about_as_small_as_pillows_smallest(tmp_path, photo):
    drawing = np.full((400, 600, 3), 255, np.uint8)  # repeats what it shows
    for x in range(0, 600, 25):
        drawing[x % 40 :: 40, x : x + 12] = (30, 80, x // 3)
    for pixels, allowed in ((photo, 1.01), (drawing, 1.6)):
        best = io.BytesIO()
        Pillow.fromarray(pixels).save(best, "PNG", optimize=True)
        assert write(tmp_path / "small.png", pixels, "RGB").stat().st_size < allowed * len(best.getvalue()) + 500


@pytest.mark.parametrize("kind", SUFFIX)
def test_profile_and_exif_are_kept(tmp_path, exif, kind):
    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for given_exif in (exif, exif.removeprefix(b"Exif\0\0")):
        path = write(tmp_path / f"tagged{SUFFIX[kind]}", picture("RGB", 70, 50), "RGB", icc=icc, exif=given_exif)
        with Pillow.open(path) as found:
            assert found.info["icc_profile"] == icc
            tags = found.getexif()
            assert tags[MAKE] == "Maker of cameras"
            assert tags[ARTIST].encode("latin-1").decode() == "写"
            assert (tags[RATING], tags[TITLE].decode("utf-16-le")) == (4, "写\0")
            assert tags.get_ifd(ExifTags.IFD.Exif)[EXPOSURE] == pytest.approx(1 / 250)
            assert tags.get_ifd(ExifTags.IFD.GPSInfo)[LATITUDE] == (48.0, 8.0, 15.5)
            found.load()


def test_a_profile_longer_than_a_segment_is_split_in_a_jpeg(tmp_path):
    icc = random.Random(0).randbytes(200_000)
    with Pillow.open(write(tmp_path / "wide.jpg", picture("RGB", 70, 50), "RGB", icc=icc)) as found:
        assert found.info["icc_profile"] == icc


def test_big_tiffs_are_read_by_others(tmp_path, exif, monkeypatch):
    monkeypatch.setattr("runtime.upscale.writers.tiff.CLASSIC", 1000)
    pixels = picture("RGBA", 200, 500)
    path = write(tmp_path / "big.tif", pixels, "RGBA", (7, 90), icc=b"profile", exif=exif)
    assert path.read_bytes()[2] == 43
    assert np.array_equal(read(path, "RGBA"), pixels)
    with tifffile.TiffFile(path) as found:
        assert found.is_bigtiff
        assert np.array_equal(found.asarray(), pixels)
        assert found.pages[0].tags["Make"].value == "Maker of cameras"
        assert found.pages[0].tags["ExifTag"].value["ExposureTime"] == (1, 250)


@pytest.mark.parametrize(
    ("name", "size", "options", "sentence"),
    [
        ("a.jpg", (65501, 8), {}, "expected at most 65500 pixels a side in a JPEG, found 65501x8"),
        ("a.webp", (8, 16384), {}, "expected at most 16383 pixels a side in a WebP, found 8x16384"),
        ("a.jpg", (8, 8), {"mode": "RGBA"}, "expected an image without transparency for a JPEG, found mode RGBA"),
        ("a.jpg", (8, 8), {"exif": bytes(70000)}, "expected at most 65527 bytes of EXIF in a JPEG, found 70000"),
        ("a.tif", (8, 8), {"exif": b"no exif at all"}, "expected an EXIF block that can be rewritten for a TIFF"),
        ("a.gif", (8, 8), {}, r"expected an output out of .png, .jpg, .jpeg, .tif, .tiff, .webp, found a.gif"),
        ("a.png", (8, 8), {"format": "bmp"}, "expected a format out of png, jpeg, tiff, webp, found 'bmp'"),
        ("a.png", (8, 8), {"quality": 0}, "expected a quality of 1 to 100, found 0"),
    ],
)
def test_what_a_format_cannot_hold_is_a_sentence_and_no_file(tmp_path, name, size, options, sentence):
    with pytest.raises(BadInput, match=f"^{sentence}"), open_writer(tmp_path / name, *size, **options):
        pytest.fail("opened")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", SUFFIX)
def test_missing_and_wrong_rows_leave_the_old_file(tmp_path, kind):
    path, pixels = tmp_path / f"old{SUFFIX[kind]}", picture("RGB", 40, 30)
    path.write_text("old")
    wrong = [[pixels[:39]], [pixels, pixels[:1]], [pixels[:, :29]], [pixels[..., 0]], [pixels / 1], [np.uint8(3)]]

    def write_all(pieces: Iterable[NDArray[np.uint8]]) -> None:
        with open_writer(path, 30, 40, mode="RGB") as writer:
            for piece in pieces:
                writer.write(piece)

    def interrupted() -> Iterator[NDArray[np.uint8]]:
        yield pixels[:20]
        raise KeyboardInterrupt

    for pieces in wrong:
        with pytest.raises(ValueError, match=r"^expected"):
            write_all(pieces)
    with pytest.raises(KeyboardInterrupt):
        write_all(interrupted())
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_a_format_may_be_named_apart_from_the_suffix(tmp_path):
    with Pillow.open(write(tmp_path / "picture.tmp", picture("L", 9, 9), "L", format="jpeg")) as found:
        assert found.format == "JPEG"


def test_a_kill_half_way_leaves_no_picture_of_that_name(tmp_path):
    script = (
        "import sys, time, numpy as np\nfrom runtime.upscale.writers import open_writer\n"
        "with open_writer(sys.argv[1], 2000, 2000, mode='RGB') as writer:\n"
        "    writer.write(np.zeros((1500, 2000, 3), np.uint8))\n    print('half', flush=True)\n    time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "out.png")]
    child = subprocess.Popen(command, cwd=Path(__file__).resolve().parents[2], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"half\n"
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert all(path.name.startswith(".out.png.") and ".part" in path.name for path in tmp_path.iterdir())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff"])
def test_memory_does_not_grow_with_the_height(tmp_path, kind):
    script = (
        "import sys, numpy as np\nfrom runtime.peak import peak_raised_by\nfrom runtime.upscale.writers import open_writer\n"
        "rows = np.random.default_rng(0).integers(0, 256, (128, 1500, 3), np.uint8)\n"
        "def work():\n"
        "    with open_writer(sys.argv[1], 1500, 128 * int(sys.argv[2]), mode='RGB') as writer:\n"
        "        for _ in range(int(sys.argv[2])): writer.write(rows)\n"
        "print(peak_raised_by(work))\n"
    )
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", script, str(tmp_path / f"tall{SUFFIX[kind]}")]
    peaks = [int(subprocess.check_output([*command, str(count)], cwd=root)) for count in (10, 60)]
    assert peaks[1] - peaks[0] < 50 * 128 * 1500 * 3 / 20
