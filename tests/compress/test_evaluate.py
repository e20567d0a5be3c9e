"""The protocol against published rows, and the command from student.pt to JSON."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional

from compress import cli, metrics
from compress.checkpoint import Student, save_student
from compress.data.benchmarks import Benchmark, open_benchmark
from compress.errors import BadInput
from compress.evaluate import bicubic_upscaler, evaluate, main, torch_upscaler
from compress.models import build
from tests.conftest import ROOT

PUBLISHED_BICUBIC = {
    ("Set5", 2): (33.66, 0.9299),
    ("Set5", 3): (30.39, 0.8682),
    ("Set5", 4): (28.42, 0.8104),
    ("Set14", 2): (30.24, 0.8688),
    ("Set14", 3): (27.55, 0.7742),
    ("Set14", 4): (26.00, 0.7027),
    ("BSD100", 4): (25.96, 0.6675),
}


def _run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "compress.evaluate", *options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def student(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("student") / "tiny.pt"
    save_student(Student.of(build("anchor", {"scale": 4, "channels": 8, "blocks": 1})), path)
    return path


@pytest.mark.parametrize(("name", "scale"), PUBLISHED_BICUBIC)
def test_bicubic_meets_the_published_rows(shared_data, name, scale):
    """The published rows resized the rounded Y alone, and took Set14's grey image as Y of full range, so ours (RGB
    files, Y not rounded) lie up to 0.0009 above in SSIM; with its grey image so taken, Set14 agrees to 0.0004."""
    benchmark = open_benchmark(name, scale, shared_data / "eval")
    row = evaluate(bicubic_upscaler(scale), benchmark)
    psnr, ssim = row["psnr"], row["ssim"]
    if name == "Set14":
        _, lr, hr = next(image for image in benchmark if image[0] == "bridge")
        inside = np.s_[scale:-scale, scale:-scale, 0]
        planes = (bicubic_upscaler(scale)(lr)[inside].astype(float), hr[inside].astype(float))
        bridge = next(one for one in row["per_image"] if one["name"] == "bridge")
        psnr += (metrics.plane_psnr(*planes) - bridge["psnr"]) / len(benchmark)
        ssim += (metrics.plane_ssim(*planes) - bridge["ssim"]) / len(benchmark)
    assert row["protocol"]["lr"] == "files"
    assert psnr == pytest.approx(PUBLISHED_BICUBIC[name, scale][0], abs=0.02)
    assert ssim == pytest.approx(PUBLISHED_BICUBIC[name, scale][1], abs=0.0005 if name == "Set14" else 0.001)


def _resized(plane, scale):
    """MATLAB's imresize in floating point, by another road than ours: torch, mirrored borders padded by hand."""
    pad = 12
    padded = torch.from_numpy(np.pad(plane, pad, mode="symmetric"))[None, None]
    size = [round(length * scale) for length in padded.shape[2:]]
    cut = round(pad * scale)
    out = functional.interpolate(padded, size=size, mode="bicubic", antialias=True)
    return out[0, 0, cut:-cut, cut:-cut].numpy()


@pytest.mark.parametrize(("name", "scale"), PUBLISHED_BICUBIC)
def test_bicubic_rows_the_way_they_were_published(shared_data, name, scale):
    """The published rows resize the rounded Y alone, without rounding its LR, and take a grey image as Y of full range.

    Set14's SSIM at x3 and x4 stays 0.0006 and 0.0008 below; `test_bicubic_meets_the_published_rows` meets these
    two rows from the published LR files.
    """
    psnr, ssim, inside = [], [], np.s_[scale:-scale, scale:-scale]
    for image, _, hr in open_benchmark(name, scale, shared_data / "eval"):
        grey = image == "bridge"  # the one file that is stored without colours
        y = hr[..., 0].astype(float) if grey else np.rint(metrics.luma(hr))
        up = np.clip(np.rint(_resized(_resized(y, 1 / scale), scale)), 0, 255)
        psnr.append(metrics.plane_psnr(up[inside], y[inside]))
        ssim.append(metrics.plane_ssim(up[inside], y[inside]))
    published = PUBLISHED_BICUBIC[name, scale]
    assert np.mean(psnr) == pytest.approx(published[0], abs=0.005 if name == "Set5" else 0.02)
    exact = 0.001 if name == "Set14" and scale > 2 else 0.0002
    assert np.mean(ssim) == pytest.approx(published[1], abs=exact)


def _set_of(tmp_path: Path, **images: np.ndarray) -> Benchmark:
    for name, pixels in images.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return open_benchmark(str(tmp_path), 2)


def test_a_row_is_the_mean_of_its_images(tmp_path):
    flat = np.full((40, 40, 3), 100, np.uint8)
    noisy = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    row = evaluate(bicubic_upscaler(2), _set_of(tmp_path, flat=flat, noisy=noisy))
    assert [one["name"] for one in row["per_image"]] == ["flat", "noisy"]
    assert row["per_image"][0]["psnr"] == math.inf
    assert (row["images"], row["identical"], row["scale"], row["lpips"]) == (2, 1, 2, None)
    assert row["psnr"] == row["per_image"][1]["psnr"]
    assert row["ssim"] == pytest.approx((1 + row["per_image"][1]["ssim"]) / 2)


def test_an_upscaler_of_another_scale_is_refused(tmp_path):
    benchmark = _set_of(tmp_path, a=np.zeros((40, 40, 3), np.uint8))
    with pytest.raises(BadInput, match=r"shape \(40, 40, 3\) for a of .* found uint8 of shape \(60, 60, 3\)"):
        evaluate(bicubic_upscaler(3), benchmark)


def test_torch_upscaler_rounds_and_clips():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.cat([x[:, :1] * 0 + 1.2, x[:, 1:2] * 0 - 0.1, x[:, 2:] * 0 + 100.6 / 255], dim=1)

    out = torch_upscaler(Fixed())(np.full((3, 5, 3), 50, np.uint8))
    assert out.shape == (3, 5, 3)
    assert out.dtype == np.uint8
    assert out[0, 0].tolist() == [255, 0, 101]


def test_torch_upscaler_passes_pixels_unchanged():
    lr = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    assert np.array_equal(torch_upscaler(nn.Identity())(lr), lr)


def test_evaluating_needs_no_torch():
    code = "import sys, compress.evaluate, compress.metrics; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False, timeout=300).returncode == 0


def test_the_command_from_student_to_json(student, tmp_path):
    out, images = tmp_path / "result.json", tmp_path / "sr"
    done = _run(str(student), "--bicubic", "--out", str(out), "--save", str(images))
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [row["model"] for row in rows] == ["tiny", "bicubic"]
    assert f"{rows[0]['psnr']:.2f}" in done.stdout
    assert rows[0]["protocol"]["lr"] == "imresize"
    assert rows[0]["psnr"] == pytest.approx(np.mean([one["psnr"] for one in rows[0]["per_image"]]))
    saved = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    assert "tiny/skimage_x4/chelsea.png" in saved
    assert len(saved) == 2 * rows[0]["images"]


def test_figures_that_are_not_finite_are_null_in_json(tmp_path):
    _set_of(tmp_path, flat=np.full((40, 40, 3), 100, np.uint8))
    out = tmp_path / "out.json"
    main(None, sets=[str(tmp_path)], scale=2, bicubic=True, out=out)
    (row,) = json.loads(out.read_text())
    assert row["psnr"] is None
    assert row["identical"] == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "expected a student.pt, or --bicubic with --scale"),
        (["--bicubic"], "expected a student.pt, or --bicubic with --scale"),
        (["none.pt"], "found no file at none.pt"),
        (["STUDENT", "--scale", "2"], "expected --scale 4"),
        (["STUDENT", "--sets", "Set6"], "found 'Set6'"),
        (["STUDENT", "--lpips", "resnet"], "expected one of alex, squeeze, vgg, none for --lpips, found 'resnet'"),
        (["STUDENT", "--scale", "big"], "expected a whole number for --scale, found 'big'"),
        (["STUDENT", "--nope"], "--nope"),
        (["STUDENT", "--sets"], "--sets"),
    ],
)
def test_refusals_are_one_line(options, said, student, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.command_line(main, [str(student) if option == "STUDENT" else option for option in options])
    error = capsys.readouterr().err.strip()
    assert stop.value.code == 2
    assert said in error
    assert error.startswith("error: ")
    assert "\n" not in error
    assert "Traceback" not in error


def test_help_is_the_docstring(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.command_line(main, ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert stop.value.code == 0
    assert "python -m compress.evaluate" in text
    assert "judge MATLAB's bicubic as well" in text
