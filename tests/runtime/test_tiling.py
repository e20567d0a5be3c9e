"""Windows give the full frame: bit for bit for integers; what cannot be exact fades, and says so."""

import dataclasses
import itertools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.onnx import export_onnx
from export.tflite import export_tflite
from runtime import windows
from runtime.engines import open_model
from runtime.engines.base import Engine
from runtime.tiling import plan_for, strips, tile_count
from runtime.windows import automatic_tile, plan
from tests.runtime.conftest import CASES

SLIM = {"channels": 8, "blocks": 1}
STUDENTS = {
    "x2": ("anchor", {"scale": 2, **SLIM}),
    "x3": ("anchor", {"scale": 3, **SLIM}),
    # convolutions at two and at four times the resolution, too, whose reach is a fraction of an LR pixel
    "x4": (
        "srresnet",
        {"scale": 4, **SLIM, "head_kernel": 5, "tail_kernel": 5, "activation": "relu", "output": "linear"},
    ),
}
KINDS = [("x2", "int8"), ("x3", "int8"), ("x4", "int8"), ("x3", "float32"), ("x2", "onnx")]
WINDOW, ATTENTION = 16, 32
FIXED = {"scale": 2, "depths": (2,), "dim": 12, "heads": 3, "window": 4}
many = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
sides = st.integers(1, 70)


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Callable[[str, str], Engine]:
    """An engine by student and precision; 'onnx' is int8 in ONNX Runtime."""
    folder, found = tmp_path_factory.mktemp("tiling"), {}

    def make(name: str, precision: str) -> Engine:
        if (name, precision) not in found:
            torch.manual_seed(0)
            architecture, options = STUDENTS[name]
            network = build(architecture, options)
            with torch.no_grad():
                network.tail.weight *= 5  # so that the whole receptive field shows
                if architecture != "anchor":
                    network.tail.bias.fill_(0.5)
            path = folder / f"{name}_{precision}.pt"
            save_student(Student.of(network), path)
            student = load_student(path)
            if precision in ("int8", "onnx"):
                crops = calibration_crops("skimage", student.scale, count=16, side=24)
                save_student(quantize_student(student, crops, plain=True), path)
                student = load_student(path)
            file = path.with_suffix(".onnx" if precision == "onnx" else ".tflite")
            if precision == "onnx":
                export_onnx(student, file, "int8")
            else:
                export_tflite(student, file, precision)
            found[name, precision] = open_model(file)
        return found[name, precision]

    return make


@pytest.fixture(scope="module")
def attention(tmp_path_factory) -> tuple[Engine, Student]:
    """A SwinIR file of one size, and its student."""
    folder = tmp_path_factory.mktemp("swinir")
    torch.manual_seed(0)
    save_student(Student.of(build("swinir", FIXED)), folder / "student.pt")
    student = load_student(folder / "student.pt")
    export_tflite(student, folder / "student.tflite", "float32", sizes=[[ATTENTION, ATTENTION]])
    return open_model(folder / "student.tflite"), student


@pytest.fixture(scope="module")
def listed(opened, tmp_path_factory) -> Engine:
    """The int8 student of x2, for images of 20x32 and 16x16 pixels."""
    student = load_student(opened("x2", "int8").path.with_suffix(".pt"))
    path = tmp_path_factory.mktemp("listed") / "student.tflite"
    export_tflite(student, path, "int8", sizes=[[WINDOW, WINDOW], [20, 32]])
    return open_model(path)


def noise(height: int, width: int) -> NDArray[np.uint8]:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), np.uint8)


def tiled(engine: Engine, lr: NDArray[np.uint8], tile: int | None = None) -> NDArray[np.uint8]:
    return np.vstack(list(strips(engine, lr, tile=tile)))


@pytest.mark.parametrize(("name", "precision"), KINDS)
@given(height=sides, width=sides, room=st.one_of(st.integers(1, 60), st.integers(12, 60)))
@many
def test_the_full_frame_to_the_bit(opened, name, precision, height, width, room):
    engine, lr = opened(name, precision), noise(height, width)
    tile, counted, sizes = 2 * engine.metadata.receptive_radius + room, [], set()
    whole, inner = engine.upscale(lr).image, engine.prepare
    engine.prepare = lambda window: (sizes.add(window.shape), inner(window))
    try:
        pieces = list(strips(engine, lr, tile=tile, on_tile=lambda: counted.append(1)))
    finally:
        del engine.prepare
    apart = np.abs(np.vstack(pieces).astype(int) - whole)
    assert apart.max() <= (1 if precision == "float32" else 0)
    assert len(counted) == tile_count(engine, lr, tile=tile)
    assert len(sizes) == 1, "windows of one size, so that the engine allocates once"
    assert max(*sizes.pop()) <= max(tile, 3)
    assert all(piece.flags.owndata or piece.base.nbytes <= 2 * piece.nbytes for piece in pieces)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_every_engine(tiny, photograph, name, precision):
    engine = open_model(tiny.file_for(name, precision), engine=name)
    apart = np.abs(tiled(engine, photograph, 48).astype(int) - engine.upscale(photograph).image)
    assert apart.max() <= (0 if precision == "int8" else 1)


@pytest.mark.parametrize(("name", "precision"), [("x2", "int8"), ("x4", "int8"), ("x3", "float32")])
def test_an_overlap_one_pixel_smaller_would_show(opened, name, precision):
    engine, lr = opened(name, precision), noise(80, 90)
    whole, radius = engine.upscale(lr).image, engine.metadata.receptive_radius
    exact = engine.metadata
    assert np.array_equal(tiled(engine, lr, 24), whole)
    engine.metadata = dataclasses.replace(exact, receptive_radius=radius - 1)
    try:
        assert not np.array_equal(tiled(engine, lr, 24), whole)
    finally:
        engine.metadata = exact


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (700, 1), (2, 301), (129, 128), (128, 257)])
def test_automatic_tiles(opened, size):
    engine, lr = opened("x2", "int8"), noise(*size)
    found = list(strips(engine, lr))
    assert np.array_equal(np.vstack(found), engine.upscale(lr).image)
    assert len(found) == len(plan_for(engine, lr).rows)


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), tile=st.integers(21, 600))
def test_windows_are_few_and_within_the_image(opened, height, width, tile):
    metadata = dataclasses.replace(opened("x2", "int8").metadata, receptive_radius=10)
    found = plan(metadata, height, width, tile=tile)
    assert found.exact
    for length, spans in ((height, found.rows), (width, found.columns)):
        assert spans[0].start == spans[0].first == 0
        assert spans[-1].stop == spans[-1].last == length
        assert all(one.last == after.first for one, after in itertools.pairwise(spans))
        assert len(spans) == (1 if max(height, width) <= tile or length <= tile else -(-(length - 20) // (tile - 20)))


def test_every_file_with_a_largest_size_is_cut_to_it(opened):
    engine, lr = opened("x3", "int8"), noise(50, 61)
    whole, free = engine.upscale(lr).image, engine.metadata
    engine.metadata = dataclasses.replace(free, largest=24)
    try:
        assert np.array_equal(tiled(engine, lr), whole)
        assert max(plan_for(engine, lr, tile=100).window) <= 24
        engine.metadata = dataclasses.replace(free, largest=4)
        with pytest.raises(
            BadInput, match="found 4: use larger ones, or export the file again with a larger --largest"
        ):
            strips(engine, lr)
    finally:
        engine.metadata = free


def test_a_file_of_listed_sizes_runs_in_the_one_that_is_least_work(listed, opened):
    free = opened("x2", "int8")
    for size, window in (((20, 32), (20, 32)), ((16, 16), (16, 16)), ((57, 83), (20, 32)), ((17, 19), (16, 16))):
        lr = noise(*size)
        chosen = plan_for(listed, lr)
        assert chosen.window == window
        assert chosen.exact
        assert np.array_equal(tiled(listed, lr), free.upscale(lr).image)
    assert plan_for(listed, noise(57, 83), tile=31).window == (16, 16)
    with pytest.raises(BadInput, match=r"\(16x16, 32x20\), found 15: use larger ones"):
        strips(listed, noise(40, 40), tile=15)


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (40, 5), (15, 16)])
def test_an_image_smaller_than_the_files_size_is_filled_up_and_says_so(listed, opened, size):
    lr, radius = noise(*size), listed.metadata.receptive_radius
    found, whole = tiled(listed, lr), opened("x2", "int8").upscale(lr).image
    chosen = plan_for(listed, lr)
    assert "last row and column were repeated" in chosen.inexact
    assert not chosen.exact
    assert "fade" not in chosen.inexact
    assert found.shape == whole.shape
    right = [2 * (length - radius) if length < WINDOW else 2 * length for length in size]
    inside = tuple(slice(0, max(0, end)) for end in right)
    assert np.array_equal(found[inside], whole[inside])  # away from the filled side, nothing changed


def test_attention_fades_without_a_seam(attention, monkeypatch):
    engine, student = attention
    y, x = np.mgrid[:80, :84]
    lr = np.stack([2 * x + y, 2 * y + x, 120 + 90 * np.sin(x / 9) * np.cos(y / 7)], -1).astype(np.uint8)
    lr = np.rint(0.7 * lr + 0.3 * noise(80, 84)).astype(np.uint8)
    with torch.inference_mode():
        real = torch.from_numpy(lr).permute(2, 0, 1)[None] / 255
        whole = student.network().eval()(real)[0].permute(1, 2, 0).numpy().clip(0, 1) * 255

    def steps() -> list[float]:
        """How much of what differs from the full frame comes at the columns where a window begins."""
        off = tiled(engine, lr) - whole
        firsts = [2 * column.first for column in plan_for(engine, lr).columns[1:]]
        return [float(np.abs(off[:, first] - off[:, first - 1]).mean()) for first in firsts]

    assert "swinir may depend on its whole tile, so tiles fade" in plan_for(engine, lr).inexact
    faded = steps()
    assert np.abs(tiled(engine, lr) - whole).mean() < 1
    monkeypatch.setattr(windows, "MARGIN", 0)
    monkeypatch.setattr(windows, "RAMP", 0)
    assert max(faded) < min(steps()) / 8


@given(height=sides, width=sides)
@settings(many, max_examples=15)
def test_attention_takes_every_size(attention, height, width):
    engine, _ = attention
    lr = np.full((height, width, 3), 77, np.uint8)
    found = tiled(engine, lr)
    assert found.shape == (2 * height, 2 * width, 3)
    if min(height, width) >= ATTENTION:  # a flat image stays nearly flat wherever windows meet
        flat = engine.upscale(lr[:ATTENTION, :ATTENTION]).image[8:-8, 8:-8].astype(int)
        assert np.abs(found[8:-8, 8:-8].astype(int) - flat.mean(axis=(0, 1))).max() <= np.ptp(flat) + 3


def test_scales_that_follow_the_tile_are_named(opened, tmp_path):
    export_tflite(
        load_student(opened("x2", "int8").path.with_suffix(".pt")), tmp_path / "student.tflite", "int8-dynamic"
    )
    engine, lr = open_model(tmp_path / "student.tflite"), noise(50, 40)
    chosen = plan_for(engine, lr, tile=24)
    assert "int8-dynamic" in chosen.inexact
    assert plan_for(engine, lr).exact, "one window is the full frame"
    apart = tiled(engine, lr, 24).astype(int) - engine.upscale(lr).image
    assert 0 < np.abs(apart).mean() < 3


@pytest.mark.parametrize("tile", [0, -3, 1, 4])
def test_tiles_that_hold_nothing_are_refused_at_once(opened, tile):
    engine = opened("x2", "int8")
    with pytest.raises(BadInput, match=rf"^expected tiles of .*, found {tile}: use larger ones\.$"):
        strips(engine, noise(20, 20), tile=tile)


def test_refuses_what_is_no_image(opened):
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(BadInput, match=r"^expected an (RGB )?image"):
            strips(opened("x2", "int8"), wrong)


def test_the_automatic_tile_grows_with_the_radius(opened):
    metadata = opened("x2", "int8").metadata
    found = [automatic_tile(dataclasses.replace(metadata, receptive_radius=r)) for r in (None, 0, 3, 10, 16, 60)]
    assert found == [128, 128, 128, 240, 384, 512]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_height(opened):
    script = (
        "import sys, numpy as np\n"
        "from runtime.engines import open_model\nfrom runtime.peak import peak_raised_by\n"
        "from runtime.tiling import strips\n"
        "engine, lr = open_model(sys.argv[1]), np.zeros((int(sys.argv[2]), 300, 3), np.uint8)\n"
        "lr += 1\n"
        "print(peak_raised_by(lambda: [strip.sum() for strip in strips(engine, lr, tile=100)]))\n"
    )
    peaks = [
        int(
            subprocess.check_output([sys.executable, "-c", script, opened("x4", "int8").path, str(height)], cwd=_root())
        )
        for height in (1000, 8000)
    ]
    result = 8000 * 300 * 3 * 16
    assert peaks[1] - peaks[0] < result / 50
    assert peaks[1] < result / 2  # most of which is the network's on one window


def _root() -> Path:
    return Path(__file__).resolve().parents[2]
