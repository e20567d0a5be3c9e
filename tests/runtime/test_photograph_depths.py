"""Photographs of more and of fewer than 8 bits a channel, as files: what is read of them."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from compress.errors import BadInput
from runtime.upscale.photograph import read_photograph
from tests.runtime.photographs import HEIGHT, RNG, WIDTH, deep_rows, noise, packed_rows, png, tiff


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
