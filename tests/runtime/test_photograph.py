"""Photographs of every kind, as files: what is read of them, and sentences for what is none."""

import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import ExifTags, Image, ImageCms, ImageOps
from PIL.TiffImagePlugin import IFDRational

from compress.errors import BadInput
from runtime.upscale.exif import upright
from runtime.upscale.photograph import pixels_of, read_photograph

RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 21, 34
ROOT = Path(__file__).resolve().parents[2]
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(*channels: int, dtype: type = np.uint8) -> np.ndarray:
    return RNG.integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, *channels), dtype=dtype, endpoint=True)


def png(rows: list[bytes], bits: int, colour_type: int, transparent: tuple[int, ...] = ()) -> bytes:
    """A PNG of any depth, few of which Pillow writes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour_type, 0, 0, 0))
    if transparent:
        header += chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent))
    content = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", content) + chunk(b"IEND", b"")


def deep_rows(pixels: np.ndarray) -> list[bytes]:
    """Those of a PNG of 16 bits per channel."""
    return [row.astype(">u2").tobytes() for row in pixels]


def packed_rows(values: np.ndarray, bits: int) -> list[bytes]:
    """Grey of few bits, one pixel behind the other, each row filled up to a byte."""
    planes = values[..., None] >> np.arange(bits)[::-1] & 1
    return [np.packbits(row.astype(np.uint8)).tobytes() for row in planes]


def tiff(
    body: bytes,
    order: str = "<",
    *,
    bits: int = 16,
    channels: int = 3,
    white: int = 2,
    orientation: int = 1,
    planar: int = 1,
) -> bytes:
    """An uncompressed TIFF in a byte order, '<' or '>', of one strip or one for every plane."""
    plane = len(body) // channels if planar == 2 else len(body)
    strips = len(body) // plane
    body += b"\0" * (len(body) % 2)
    offsets, lengths = [8 + k * plane for k in range(strips)], [plane] * strips
    tables = [struct.pack(f"{order}{channels}H", *[bits] * channels)]
    tables += [struct.pack(f"{order}{strips}I", *numbers) for numbers in (offsets, lengths)]
    bits_at, offsets_at, lengths_at = (8 + len(body) + sum(map(len, tables[:k])) for k in range(3))
    body += b"".join(tables)
    entries = [
        (256, 4, 1, WIDTH), (257, 4, 1, HEIGHT), (258, 3, channels, bits_at if channels > 2 else bits), (259, 3, 1, 1),
        (262, 3, 1, white), (273, 4, strips, offsets_at if strips > 1 else 8), (274, 3, 1, orientation),
        (277, 3, 1, channels), (278, 4, 1, HEIGHT), (279, 4, strips, lengths_at if strips > 1 else plane),
        (284, 3, 1, planar),
    ]  # fmt: skip
    start = 8 + len(body)
    directory = struct.pack(f"{order}H", len(entries))
    for tag, kind, count, value in entries:
        short = kind == 3 and count == 1
        directory += struct.pack(
            f"{order}HHI" + ("HH" if short else "I"), tag, kind, count, value, *([0] if short else [])
        )
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(f"{order}I", start)
    return head + body + directory + struct.pack(f"{order}I", 0)


def cmyk_profile() -> bytes:
    """An ICC profile by which lightness falls with the mean of the inks, whatever their colours."""
    corners = np.array([[(bits >> k) & 1 for k in (3, 2, 1, 0)] for bits in range(16)]).mean(axis=1)
    lab = np.stack([255 * (1 - corners), np.full(16, 128), np.full(16, 128)], axis=1).astype(np.uint8)
    ramp = bytes(range(256))
    matrix = struct.pack(">9i", *(65536 * int(i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + matrix + ramp * 4 + lab.tobytes() + ramp * 3
    size = 128 + 4 + 12 + len(table)
    head = struct.pack(">I4sI4s4s4s", size, b"none", 0x02400000, b"prtr", b"CMYK", b"Lab ") + bytes(12) + b"acsp"
    head += bytes(28) + struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + struct.pack(">I4sII", 1, b"A2B0", 144, len(table)) + table


@pytest.mark.parametrize("colour_type", [0, 2, 4, 6])
def test_16_bit_png_is_rounded(tmp_path, colour_type):
    """v / 257 rounded, on every channel; cutting the low byte off would be half a level too dark."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[colour_type]
    pixels = noise(channels, dtype=np.uint16)
    (tmp_path / "deep.png").write_bytes(png(deep_rows(pixels), 16, colour_type))
    found = read_photograph(tmp_path / "deep.png")
    expected = np.rint(pixels / 257).astype(np.uint8)
    assert np.array_equal(found.rgb, np.broadcast_to(expected[..., : 3 if channels > 2 else 1], found.rgb.shape))
    assert found.grey == (channels < 3)
    if channels in (2, 4):
        assert np.array_equal(found.alpha, expected[..., -1])
    assert found.notes == ("16 bits per channel rounded to 8",)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [False, True])
def test_16_bit_tiff_is_rounded(tmp_path, order, compressed):
    pixels = noise(3, dtype=np.uint16)
    path = tmp_path / "deep.tif"
    if compressed:
        tifffile.imwrite(path, pixels, compression="zlib", byteorder=order, photometric="rgb")
    else:
        path.write_bytes(tiff(pixels.astype(f"{order}u2").tobytes(), order))
    assert np.array_equal(read_photograph(path).rgb, np.rint(pixels / 257))


def test_16_bit_planes_are_refused(tmp_path):
    """Pillow makes garbage of them."""
    planes = noise(3, dtype=np.uint16).transpose(2, 0, 1).astype("<u2").tobytes()
    (tmp_path / "planes.tif").write_bytes(tiff(planes, planar=2))
    with pytest.raises(BadInput, match="layout that Pillow decodes wrongly"):
        read_photograph(tmp_path / "planes.tif")


@pytest.mark.parametrize(("bits", "white"), [(16, 1), (16, 0), (12, 1), (8, 0)])
def test_grey_tiffs_from_black_to_white_and_from_white_to_black(tmp_path, bits, white):
    pixels = noise(dtype=np.uint16) >> (16 - bits)
    body = pixels.astype(f"<u{bits // 8}").tobytes() if bits != 12 else b"".join(packed_rows(pixels, bits))
    (tmp_path / "grey.tif").write_bytes(tiff(body, bits=bits, channels=1, white=white))
    share = pixels / (2**bits - 1)
    expected = 255 * (share if white else 1 - share)
    assert np.abs(read_photograph(tmp_path / "grey.tif").rgb[..., 0] - expected).max() <= 0.54  # 12 bits: by way of 16


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


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_a_transparent_grey_of_any_depth(tmp_path, bits):
    pixels = RNG.integers(0, 2**bits, (HEIGHT, WIDTH)).astype(np.uint16)
    pixels[:5] = clear = 2**bits - 1
    (tmp_path / "grey.png").write_bytes(png(packed_rows(pixels, bits), bits, 0, (clear,)))
    found = read_photograph(tmp_path / "grey.png")
    assert found.alpha is not None
    assert np.array_equal(found.alpha, np.where(pixels == clear, 0, 255))
    assert np.array_equal(found.rgb[..., 0], np.rint(pixels * (255 / (2**bits - 1))))


def test_a_transparent_colour_of_16_bits(tmp_path):
    """To the last bit."""
    pixels, clear = noise(3, dtype=np.uint16), (1000, 2000, 3000)
    pixels[:5], pixels[5:9] = clear, (1000, 2000, 3001)
    (tmp_path / "colour.png").write_bytes(png(deep_rows(pixels), 16, 2, clear))
    found = read_photograph(tmp_path / "colour.png")
    assert found.alpha is not None
    assert np.array_equal(found.alpha, np.where((pixels == clear).all(axis=2), 0, 255))


@pytest.mark.parametrize(
    ("pixels", "expected"),
    [
        (np.linspace(0, 65535, HEIGHT * WIDTH).astype(np.int32), 65535),
        (np.linspace(0, 255, HEIGHT * WIDTH).astype(np.int32), 255),
        (np.linspace(0, 1, HEIGHT * WIDTH).astype(np.float32), 1),
        (np.linspace(-0.5, 255, HEIGHT * WIDTH).astype(np.float32), 255),
        (np.linspace(0, 3e9, HEIGHT * WIDTH).astype(np.float32), 3e9),
    ],
)
def test_wide_grey_is_scaled_to_its_white(tmp_path, pixels, expected):
    pixels = pixels.reshape(HEIGHT, WIDTH)
    Image.fromarray(pixels).save(tmp_path / "wide.tif")
    found = read_photograph(tmp_path / "wide.tif")
    assert found.grey
    assert found.rgb.max() == 255
    assert np.abs(found.rgb[..., 0] - np.clip(pixels / expected, 0, 1) * 255).max() <= 0.501
    assert "white" in found.notes[0]


def test_integers_beyond_the_signed_ones(tmp_path):
    pixels = noise(dtype=np.uint32)
    pixels[0, 0] = 2**32 - 1
    tifffile.imwrite(tmp_path / "wide.tif", pixels)
    found = read_photograph(tmp_path / "wide.tif")
    assert np.array_equal(found.rgb[..., 0], np.rint(pixels * (255 / (2**32 - 1))))


def test_nan_is_black(tmp_path):
    pixels = np.full((HEIGHT, WIDTH), np.nan, np.float32)
    pixels[0] = 1
    Image.fromarray(pixels).save(tmp_path / "nan.tif")
    assert read_photograph(tmp_path / "nan.tif").rgb[1:].max() == 0


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


def _exif(written: bytes) -> Image.Exif:
    exif = Image.Exif()
    exif.load(written)
    return exif


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
