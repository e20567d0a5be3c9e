"""Metrics against scikit-image, against published figures, and at their edges."""

import builtins
import math

import numpy as np
import pytest
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from compress import metrics
from compress.data.benchmarks import open_benchmark
from compress.errors import BadInput


@pytest.fixture
def pair():
    random = np.random.default_rng(7)
    hr = random.integers(0, 256, (40, 53, 3), dtype=np.uint8)
    noise = random.integers(-40, 40, hr.shape)
    return np.clip(hr + noise, 0, 255).astype(np.uint8), hr


@pytest.mark.parametrize("border", [0, 2, 4])
def test_psnr_and_ssim_equal_scikit_image(pair, border):
    sr, hr = (image[border : 40 - border, border : 53 - border] for image in pair)
    x, y = (np.asarray(rgb2ycbcr(image))[..., 0] for image in (sr, hr))
    wanted = structural_similarity(x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
    assert metrics.psnr(pair[0], pair[1], border) == pytest.approx(
        peak_signal_noise_ratio(y, x, data_range=255), abs=1e-6
    )
    assert metrics.ssim(pair[0], pair[1], border) == pytest.approx(wanted, abs=1e-6)


def test_luma_is_limited_range_and_not_rounded():
    pixels = np.array([[[0, 0, 0], [255, 255, 255], [1, 0, 0]]], np.uint8)
    assert metrics.luma(pixels)[0] == pytest.approx([16, 235, 16 + 65.481 / 255], abs=1e-12)


def test_identical_images_are_infinite_and_stay_out_of_the_mean(pair):
    hr = pair[1]
    assert metrics.psnr(hr, hr, 2) == math.inf
    assert metrics.ssim(hr, hr, 2) == pytest.approx(1)
    assert metrics.mean([math.inf, 30.0, 32.0]) == 31
    assert metrics.mean([math.inf]) == math.inf
    assert math.isnan(metrics.mean([]))


def test_too_small_or_unequal_images(pair):
    sr, hr = pair
    assert math.isnan(metrics.ssim(sr[:14], hr[:14], 2))
    with pytest.raises(ValueError, match="one size"):
        metrics.psnr(sr, hr[1:], 0)
    with pytest.raises(ValueError, match="border"):
        metrics.psnr(sr[:8], hr[:8], 4)


def test_lpips_tells_images_apart(shared_data, pair, monkeypatch):
    if not (shared_data / "torch_home").is_dir():
        pytest.skip("shared/data/torch_home is not here")
    monkeypatch.setenv("TORCH_HOME", str(shared_data / "torch_home"))
    metrics.lpips_metric.cache_clear()
    distance = metrics.lpips_metric("squeeze")
    _, lr, hr = next(iter(open_benchmark("Set5", 2, shared_data / "eval")))
    blurred = lr.repeat(2, axis=0).repeat(2, axis=1)
    assert distance(hr, hr) == 0
    assert 0.01 < distance(blurred, hr) < distance(np.full_like(hr, 128), hr)
    assert metrics.lpips_metric("squeeze") is distance
    assert math.isnan(distance(hr[:31], hr[:31]))
    assert distance(hr[:32, :32], hr[:32, :32]) == 0


def test_lpips_without_its_package(monkeypatch):
    _fail_to_import(monkeypatch, "lpips", ModuleNotFoundError("No module named 'lpips'", name="lpips"))
    with pytest.raises(BadInput, match="found no lpips: pip install lpips"):
        metrics.lpips_metric("vgg")


def test_lpips_with_a_torchvision_that_does_not_fit(monkeypatch):
    _fail_to_import(monkeypatch, "lpips", RuntimeError("operator torchvision::nms does not exist"))
    with pytest.raises(BadInput, match=r"torchvision built for this torch.*nms does not exist"):
        metrics.lpips_metric("vgg")


def test_lpips_without_weights_says_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth").write_bytes(b"not weights")
    with pytest.raises(BadInput, match=rf"put vgg16-397923af.pth into {tmp_path}/hub/checkpoints"):
        metrics.lpips_metric("vgg")


def _fail_to_import(monkeypatch, name, error):
    real = builtins.__import__

    def fail(wanted, *details, **more):
        if wanted == name:
            raise error
        return real(wanted, *details, **more)

    monkeypatch.setattr(builtins, "__import__", fail)
    metrics.lpips_metric.cache_clear()
