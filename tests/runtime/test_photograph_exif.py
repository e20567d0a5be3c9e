"""What the EXIF of a photograph says: how it lies, and what a result keeps."""

import struct

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps
from PIL.TiffImagePlugin import IFDRational

from runtime.upscale.exif import upright
from runtime.upscale.photograph import pixels_of, read_photograph
from tests.runtime.photographs import HEIGHT, WIDTH, noise, tiff


def _exif(written: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(written)
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation(tmp_path, orientation):
    """As Pillow turns it, which agrees with the EXIF standard's drawing."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(noise(3)).save(path, exif=exif)
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    found = read_photograph(path)
    assert np.array_equal(found.rgb, expected)
    assert pixels_of(path) == HEIGHT * WIDTH
    assert found.exif is not None
    assert _exif(found.exif)[ExifTags.Base.Orientation] == 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(("bits", "channels"), [(8, 1), (16, 1), (8, 3), (16, 3)])
def test_every_orientation_of_a_tiff(tmp_path, bits, channels, orientation):
    """Pillow turns these itself, but not those that it maps into memory."""
    pixels = noise(channels, dtype=np.uint8 if bits == 8 else np.uint16)
    body = pixels.astype(f"<u{bits // 8}").tobytes()
    options = {"bits": bits, "channels": channels, "white": 2 if channels == 3 else 1}
    (tmp_path / "turned.tif").write_bytes(tiff(body, orientation=orientation, **options))
    found = read_photograph(tmp_path / "turned.tif")
    expected = np.rint(pixels / (257 if bits == 16 else 1)).astype(np.uint8)
    assert np.array_equal(found.rgb, upright(np.broadcast_to(expected, (HEIGHT, WIDTH, 3)), orientation))
    assert found.exif is not None
    assert _exif(found.exif)[ExifTags.Base.Orientation] == 1


def test_exif_keeps_what_speaks_of_the_picture(tmp_path):
    exif = Image.Exif()
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Orientation] = "Maker", 6
    exif.get_ifd(ExifTags.IFD.Exif).update(
        {
            ExifTags.Base.ExposureTime: IFDRational(1, 125),
            ExifTags.Base.ExifImageWidth: WIDTH,
            ExifTags.Base.MakerNote: b"\0\1notes",
            ExifTags.IFD.Interop: {1: "R98"},
        }
    )
    exif.get_ifd(ExifTags.IFD.GPSInfo).update(
        {ExifTags.GPS.GPSLatitudeRef: "N", ExifTags.GPS.GPSLatitude: (52.0, 30.0, 0.0)}
    )
    for name in ("photo.jpg", "photo.png", "photo.webp", "photo.tif"):
        Image.fromarray(noise(3)).save(tmp_path / name, exif=exif.tobytes())
        found = read_photograph(tmp_path / name).exif
        assert found is not None
        kept = _exif(found)
        inside = kept.get_ifd(ExifTags.IFD.Exif)
        assert kept[ExifTags.Base.Make] == "Maker"
        assert inside[ExifTags.Base.MakerNote] == b"\0\1notes"
        assert inside[ExifTags.Base.ExposureTime] == pytest.approx(1 / 125)
        assert ExifTags.Base.ExifImageWidth not in inside
        if name != "photo.tif":  # Pillow, which wrote the file, loses it there
            assert kept.get_ifd(ExifTags.IFD.Interop) == {1: "R98"}
        assert kept.get_ifd(ExifTags.IFD.GPSInfo)[ExifTags.GPS.GPSLatitude] == (52.0, 30.0, 0.0)
        assert ExifTags.Base.Compression not in kept
        assert ExifTags.Base.StripOffsets not in kept


def test_text_of_any_letters_is_kept(tmp_path):
    """EXIF says ASCII, and writers put UTF-8 there."""
    name = "Jürgen 写".encode()
    block = (
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", ExifTags.Base.Artist, 2, len(name) + 1, 26) + bytes(4) + name
    )
    Image.fromarray(noise(3)).save(tmp_path / "photo.jpg", exif=b"Exif\0\0" + block + b"\0")
    found = read_photograph(tmp_path / "photo.jpg").exif
    assert found is not None
    assert name + b"\0" in found


def test_damaged_exif_costs_no_photograph(tmp_path):
    Image.fromarray(noise(3)).save(tmp_path / "photo.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    found = read_photograph(tmp_path / "photo.jpg")
    assert found.size == (HEIGHT, WIDTH)
