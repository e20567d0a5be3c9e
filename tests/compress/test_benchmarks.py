"""Benchmark sets: pairing, where LR comes from, refusals."""

import numpy as np
import pytest
from PIL import Image

from compress.data.benchmarks import data_root, find_benchmarks, open_benchmark
from compress.data.bicubic import imresize
from compress.errors import BadInput


def _write(path, height, width, mode="RGB", seed=0):
    shape = (height, width) if mode == "L" else (height, width, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return pixels


@pytest.mark.parametrize(
    ("hr", "lr_folder", "lr"),
    [
        ("baby.png", "LR_bicubic/X4", "babyx4.png"),
        ("img_001_SRF_4_HR.png", "LR_X4", "img_001_SRF_4_LR.png"),
        ("fox2.png", "LR_bicubic_X4", "fox2.png"),
        ("fox.png", "LR_X4", "fox_LRx4.png"),
    ],
)
def test_lr_files_are_paired_by_name(tmp_path, hr, lr_folder, lr):
    _write(tmp_path / "Own/HR" / hr, 40, 44, seed=1)
    pixels = _write(tmp_path / f"Own/{lr_folder}" / lr, 10, 11, seed=2)
    benchmark = open_benchmark("own", 4, tmp_path)
    assert (benchmark.name, benchmark.lr, len(benchmark)) == ("Own", "files", 1)
    ((_, small, _),) = benchmark
    assert np.array_equal(small, pixels)


def test_lr_is_made_from_hr_cut_to_a_multiple(tmp_path):
    pixels = _write(tmp_path / "Own" / "a.png", 41, 47)
    benchmark = open_benchmark("Own", 3, tmp_path)
    ((name, lr, hr),) = benchmark
    assert (name, benchmark.lr) == ("a", "imresize")
    assert np.array_equal(hr, pixels[:39, :45])
    assert np.array_equal(lr, imresize(pixels[:39, :45], 1 / 3))


def test_a_scale_without_lr_files_is_made_here(tmp_path):
    _write(tmp_path / "Own/HR/a.png", 40, 40)
    _write(tmp_path / "Own/LR_X4/a.png", 10, 10)
    assert open_benchmark("Own", 2, tmp_path).lr == "imresize"


def test_grey_becomes_rgb(tmp_path):
    pixels = _write(tmp_path / "Own" / "grey.png", 40, 40, mode="L")
    ((_, lr, hr),) = open_benchmark("Own", 2, tmp_path)
    assert lr.shape == (20, 20, 3)
    assert np.array_equal(hr, np.repeat(pixels[..., None], 3, axis=2))


def test_the_built_in_set_is_always_there(tmp_path):
    benchmark = open_benchmark("skimage", 4, tmp_path / "nothing")
    assert find_benchmarks(tmp_path / "nothing") == ["skimage"]
    name, lr, hr = next(iter(benchmark))
    assert name == benchmark.pairs[0].name
    assert hr.shape == (lr.shape[0] * 4, lr.shape[1] * 4, 3)


def test_root_comes_from_the_parameter_then_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("POCKETSR_DATA", str(tmp_path))
    assert data_root() == tmp_path
    assert data_root(tmp_path / "other") == tmp_path / "other"
    monkeypatch.delenv("POCKETSR_DATA")
    assert data_root().as_posix() == "data/eval"


def test_published_lr_files_equal_ours(shared_data):
    """The files were made by MATLAB; BSD100's are 8 bit as well."""
    for name, lr, hr in open_benchmark("Set5", 4, shared_data / "eval"):
        assert np.array_equal(lr, imresize(hr, 1 / 4)), name


def test_an_unknown_set_is_refused_with_those_there_are(tmp_path):
    _write(tmp_path / "Own" / "a.png", 40, 40)
    with pytest.raises(BadInput, match=rf"out of Own, skimage or a folder.*'Set6'.*looked for in {tmp_path}"):
        open_benchmark("Set6", 4, tmp_path)


def test_lr_of_another_size_is_refused(tmp_path):
    _write(tmp_path / "Own/HR/a.png", 40, 40)
    _write(tmp_path / "Own/LR_X4/a.png", 11, 10)
    with pytest.raises(BadInput, match=r"expected LR of 1/4 of the 40x40 .* found 10x11"):
        list(open_benchmark("Own", 4, tmp_path))


def test_a_missing_lr_file_is_refused(tmp_path):
    _write(tmp_path / "Own/HR/a.png", 40, 40)
    _write(tmp_path / "Own/HR/b.png", 40, 40)
    _write(tmp_path / "Own/LR_X4/a.png", 10, 10)
    with pytest.raises(BadInput, match=r"expected an LR file for b.png such as bx4.png"):
        open_benchmark("Own", 4, tmp_path)


def test_a_tiny_image_and_an_impossible_scale_are_refused(tmp_path):
    _write(tmp_path / "Own" / "a.png", 18, 40)
    with pytest.raises(BadInput, match="at least 19x19 pixels at x4, found 40x16"):
        list(open_benchmark("Own", 4, tmp_path))
    with pytest.raises(BadInput, match="scale of 2 or more, found 1"):
        open_benchmark("Own", 1, tmp_path)
