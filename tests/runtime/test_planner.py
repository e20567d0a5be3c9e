"""Predicted peak memory: close to what is measured, growing with the image, and a tile that keeps to its budget."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import build
from export.metadata import ENTRY, read_tflite
from export.tflite import export_tflite
from runtime.memory import memory_of
from runtime.peak import peak_memory
from runtime.planner import NoPrediction, largest_tile, least_budget, plan, predict
from runtime.planner.greedy import Life, place, touched
from tests.runtime.conftest import edited

BOUND, ONNX_BOUND = 0.15, 0.25
ZOO = Path(__file__).parents[2] / "zoo"
linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
RESIDUAL = {"scale": 2, "channels": 16, "blocks": 1, "head_kernel": 5, "tail_kernel": 5}


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """A network with sums, PReLU and convolutions at two sizes."""
    folder = tmp_path_factory.mktemp("residual")
    torch.manual_seed(0)
    save_student(Student.of(build("srresnet", RESIDUAL)), folder / "s.pt")
    export_tflite(load_student(folder / "s.pt"), folder / "s.tflite", "float32")
    return folder / "s.tflite"


def _saying(source, target, **changes) -> Path:
    """A copy whose metadata says something else."""
    plain = json.loads(read_tflite(source).to_json()) | changes

    def change(model):
        [entry] = [one for one in model.metadata if one.name == ENTRY.encode()]
        model.buffers[entry.buffer].data = np.frombuffer(json.dumps(plain).encode(), np.uint8)

    return edited(source, target, change)


def _error(file, height, width) -> float:
    error = memory_of(file, height, width).error
    assert error is not None
    return error


@linux
@pytest.mark.parametrize("name", ["float", "int8"])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (200, 320)])
def test_close_to_what_is_measured(tiny, name, height, width):
    file = tiny.of(name)[1]
    assert abs(_error(file, height, width)) < BOUND


@linux
@pytest.mark.parametrize("name", ["float_onnx", "int8_onnx"])
def test_near_for_onnx_runtime(tiny, name):
    file = getattr(tiny, name)
    assert abs(_error(file, 256, 256)) < ONNX_BOUND


@linux
def test_close_for_a_residual_network(residual):
    assert abs(_error(residual, 160, 160)) < BOUND


@linux
@pytest.mark.parametrize("budget", [12_000_000, 40_000_000])
def test_the_largest_tile_keeps_to_its_budget(tiny, residual, budget):
    for file in (tiny.float_tflite, tiny.int8_tflite, residual, tiny.float_onnx)[: 3 if budget < 16_000_000 else 4]:
        side = largest_tile(file, budget)
        assert side % 8 == 0
        assert peak_memory(file, side, side) <= budget < 1.4 * predict(file, side + 8, side + 8)


def test_larger_images_and_budgets_take_more(tiny):
    for file in (tiny.float_tflite, tiny.int8_tflite):
        sizes = [predict(file, 8 * step, 8 * step) for step in range(2, 60)]
        assert sizes == sorted(sizes)
        tiles = [largest_tile(file, budget * 10**6) for budget in range(8, 200, 16)]
        assert tiles == sorted(tiles)


def test_terms_are_what_the_file_holds(tiny):
    terms = plan(tiny.int8_tflite, 128, 128).terms
    assert terms["pointers"] == 4 * 9 * 8 * 128 * 128  # four 3x3 convolutions, one pointer a pixel of the kernel
    assert terms["arena"] == (3 + 12) * 128 * 128  # image and result, int8, x2
    assert terms["reading"] == 2 * 12 * 128 * 128
    assert predict(tiny.int8_tflite, 128, 128) == sum(terms.values())


def test_too_small_a_budget_is_told_the_least(tiny):
    with pytest.raises(BadInput, match=r"^expected a budget of at least [\d,]+ bytes") as refused:
        largest_tile(tiny.int8_tflite, 1000)
    least = least_budget(tiny.int8_tflite)
    assert f"{least:,} bytes" in str(refused.value)
    assert largest_tile(tiny.int8_tflite, least) == 16
    with pytest.raises(BadInput, match="expected a budget"):
        largest_tile(tiny.int8_tflite, least - 1)


def test_the_least_budget_is_for_a_tile_that_photographs_can_be_cut_into():
    file = ZOO / "anchor_x4_int8.tflite"  # whose radius is 10
    assert largest_tile(file, least_budget(file)) == 24 > 2 * 10
    with pytest.raises(BadInput, match="which a tile of 24x24 pixels"):
        largest_tile(file, least_budget(file) - 1)


def test_files_that_end_below_the_smallest_tile_have_none(tiny, tmp_path):
    file = _saying(tiny.int8_tflite, tmp_path / "small.tflite", largest=8)
    assert predict(file, 8, 8) > 0
    with pytest.raises(
        BadInput, match=r"^expected a file that takes tiles of 16x16 pixels, found one that ends at 8x8"
    ):
        largest_tile(file, 10**9)


def test_only_files_of_any_size_end_at_the_most_that_is_asked_for(tiny, tmp_path):
    assert largest_tile(tiny.int8_tflite, 10**9, most=64) == 64 < largest_tile(tiny.int8_tflite, 10**9)
    file = _saying(tiny.int8_tflite, tmp_path / "fixed.tflite", sizes=[[96, 96]])
    assert largest_tile(file, 10**9, most=64) == 96


def test_other_kinds_of_files_are_to_be_measured(tiny):
    for file in (tiny.float_pt, tiny.float_pte, tiny.float_param):
        with pytest.raises(NoPrediction, match="measure it with"):
            predict(file, 64, 64)
    with pytest.raises(NoPrediction, match="no prediction for Core ML, give a tile size"):
        predict(tiny.float_mlpackage, 64, 64)
    with pytest.raises(BadInput, match="expected a model file"):
        predict("photo.jpg", 64, 64)


def test_sizes_and_threads_that_make_no_sense(tiny):
    for height, width in ((0, 64), (64, -1)):
        with pytest.raises(BadInput, match="expected a size of at least 1x1"):
            predict(tiny.int8_tflite, height, width)
    with pytest.raises(BadInput, match="expected 1 to 1024 threads"):
        predict(tiny.int8_tflite, 64, 64, threads=0)


def test_damaged_files_are_refused(tiny, tmp_path):
    whole = tiny.int8_tflite.read_bytes()
    rng = np.random.default_rng(0)
    for number in range(150):
        content = bytearray(whole[: rng.integers(1, len(whole))] if number % 3 == 0 else whole)
        for position in rng.integers(0, len(content), 20):
            content[position] = rng.integers(0, 256)
        (tmp_path / "broken.tflite").write_bytes(content)
        with contextlib.suppress(BadInput):  # any other error fails
            assert predict(tmp_path / "broken.tflite", 64, 64) > 0


def test_graphs_that_run_in_circles_are_refused(tiny, tmp_path):
    def circle(model):
        first, second = model.subgraphs[0].operators[:2]
        first.inputs = np.array([second.outputs[0], *first.inputs[1:]], np.int32)

    with pytest.raises(BadInput, match=r"^expected a whole \.tflite[^\n]*$"):
        predict(edited(tiny.int8_tflite, tmp_path / "circle.tflite", circle), 64, 64)


def test_huge_shapes_are_refused_or_counted_quickly(tiny, tmp_path):
    def huge(model):
        for tensor in model.subgraphs[0].tensors:
            if len(tensor.shape) == 4:
                tensor.shape = np.array([1, 2**30, 2**30, 2**30], np.int32)

    file = edited(tiny.int8_tflite, tmp_path / "huge.tflite", huge)
    with pytest.raises(BadInput):
        largest_tile(file, 10**9)


def test_values_share_memory_only_when_they_never_meet():
    lives = {"a": Life(10, 0, 1), "b": Life(8, 1, 2), "c": Life(10, 2, 3), "d": Life(2, 0, 3)}
    spans = place(lives)
    for one in lives:
        for other in lives:
            if one != other and lives[one].meets(lives[other]):
                assert spans[one][1] <= spans[other][0] or spans[other][1] <= spans[one][0]
    assert max(end for _, end in spans.values()) == touched(spans.values()) == 20
