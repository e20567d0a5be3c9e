"""The contract of contract 6, for every engine; and files that must be refused."""

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compress.checkpoint import load_student
from compress.errors import BadInput
from export.executorch import VIEWS
from export.metadata import ENTRY
from runtime.engines import ENGINES, open_model
from runtime.engines.base import Engine, from_pixels, to_pixels, to_real
from tests.runtime.conftest import SCALE, Tiny, edited

CASES = [
    (name, precision) for name in ENGINES for precision in ("float32", "int8") if (name, precision) != ("ncnn", "int8")
]


def opened(tiny: Tiny, name: str, precision: str, threads: int = 1) -> Engine:
    return open_model(tiny.file_for(name, precision), engine=name, threads=threads)


@pytest.fixture(params=CASES, ids="-".join)
def engine(request, tiny) -> Engine:
    return opened(tiny, *request.param)


def test_result_is_an_image_of_scale_times_the_size(engine, photograph):
    result = engine.upscale(photograph)
    height, width, _ = photograph.shape
    assert result.image.shape == result.raw.shape == (SCALE * height, SCALE * width, 3)
    assert result.image.dtype == np.uint8
    assert result.raw.dtype == np.dtype(engine.metadata.output.dtype)
    assert np.array_equal(result.image, to_pixels(result.raw))


def test_computes_what_the_student_computes(engine, tiny, photograph):
    student, _ = tiny.of(engine.metadata.precision)
    result = open_model(student).upscale(photograph)
    found = engine.upscale(photograph).raw
    rounded = found.dtype != np.float32  # to pixels
    unit = 255 if rounded else 1
    expected = to_real(result.image if rounded else result.raw) * unit
    found = to_real(found) * unit
    # LiteRT's own kernels requantize in fixed point, Core ML's arithmetic is of real numbers; others do as the reference
    integer_limit = 4 if engine.describe().engine in ("litert-builtin", "coreml") else 1
    apart = np.abs(found - expected)
    assert apart.max() <= (integer_limit if rounded else 1e-5) + 1e-9
    if engine.describe().engine == "coreml":
        assert (apart <= 1).mean() > 0.999
    assert found.std() > 0.05 * np.abs(found).max()


def test_same_image_gives_the_same_values_after_another_size(engine, photograph):
    first = engine.upscale(photograph)
    engine.upscale(np.ascontiguousarray(photograph[:40, :33]))
    again = engine.upscale(photograph)
    assert np.array_equal(first.raw, again.raw)


def test_results_are_the_callers_own(engine, photograph):
    first = engine.upscale(photograph)
    kept = first.raw.copy()
    engine.upscale(255 - photograph)
    assert np.array_equal(first.raw, kept)


def test_takes_a_view_of_an_image(engine, photograph):
    view = photograph[::2, ::-1]
    assert np.array_equal(engine.upscale(view).raw, engine.upscale(np.ascontiguousarray(view)).raw)


def test_smallest_image(engine):
    assert engine.upscale(np.full((1, 1, 3), 200, np.uint8)).image.shape == (SCALE, SCALE, 3)


def test_time_is_split(engine, photograph):
    timing = engine.upscale(photograph).timing
    assert min(timing.prepare, timing.run, timing.read) > 0


def test_describes_itself(engine, tiny):
    description = engine.describe()
    student = load_student(tiny.of(engine.metadata.precision)[0])
    assert description.engine in ENGINES
    assert description.precision == student.precision
    assert description.metadata.student_sha256 == student.file_hash
    assert any(character.isdigit() for character in description.version)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((8, 8, 3), np.float32),
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((0, 8, 3), np.uint8),
    ],
    ids=["float", "grey", "alpha", "empty"],
)
def test_refuses_what_is_no_rgb_image(engine, image):
    with pytest.raises(BadInput, match="expected an RGB image"):
        engine.upscale(image)


@pytest.mark.parametrize(("name", "precision"), CASES)
def test_threads_do_not_change_integers(tiny, photograph, name, precision):
    one, two = (opened(tiny, name, precision, threads).upscale(photograph).raw for threads in (1, 2))
    difference = np.abs(one.astype(np.float64) - two.astype(np.float64)).max()
    assert difference <= (0 if precision == "int8" else 1e-5)


def test_any_two_engines_are_at_most_2_lsb_apart_in_int8(tiny, photograph):
    """Of one int8 student, as far as they compute with integers as the student does; see the test above."""
    exact = [name for name in ENGINES if name not in ("litert-builtin", "coreml")]
    names = [name for name, precision in CASES if precision == "int8" and name in exact]
    images = {name: opened(tiny, name, "int8").upscale(photograph).image.astype(int) for name in names}
    assert {"litert", "onnxruntime", "executorch", "pytorch"} <= set(images)
    for one, other in itertools.combinations(images, 2):
        assert np.abs(images[one] - images[other]).max() <= 2, (one, other)


def test_litert_runs_in_one_xnnpack_partition(tiny):
    for precision in ("float32", "int8"):
        delegate = opened(tiny, "litert", precision).describe().delegate
        assert (delegate.name, delegate.partitions, dict(delegate.outside)) == ("XNNPACK", 1, {})
        assert delegate.operators["CONV_2D"] == 4


def test_builtin_kernels_run_without_a_delegate(tiny):
    delegate = opened(tiny, "litert-builtin", "int8").describe().delegate
    assert (delegate.name, delegate.partitions) == ("none", 0)
    assert dict(delegate.outside) == dict(delegate.operators)


def test_pixels_survive_the_way_in_and_out(tiny):
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    for name, precision in CASES:
        assert np.array_equal(to_pixels(from_pixels(pixels, opened(tiny, name, precision).metadata.input)), pixels)


def test_float_output_is_clipped_and_rounded_half_to_even():
    values = np.array([[[-0.5, 0.5 / 255, 1.5 / 255], [2.0, np.nan, 0.25]]], np.float32)
    assert to_pixels(values).tolist() == [[[0, 0, 2], [255, 0, 64]]]


def _metadata_of(model):
    return next(model.buffers[entry.buffer] for entry in model.metadata if entry.name == ENTRY.encode())


def _say(**changes):
    """Changes what the metadata says."""

    def change(model):
        buffer = _metadata_of(model)
        content = json.loads(bytes(buffer.data))
        for key, value in changes.items():
            part, _, field = key.rpartition("__")
            (content[part] if part else content)[field] = value
        buffer.data = list(json.dumps(content).encode())

    return change


def _forget(model):
    model.metadata = [entry for entry in model.metadata if entry.name != ENTRY.encode()]


def _shift_zero_point(model):
    model.subgraphs[0].tensors[model.subgraphs[0].inputs[0]].quantization.zeroPoint = np.array([-127])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (_forget, "found one without its metadata"),
        (_shift_zero_point, "zero point -128, as the metadata says, found 0.00392157 and -127"),
        (_say(scale=4), "expected an output of 4 times the input"),
        (_say(precision="float32"), "expected float32 or uint8 RGB pixels at the input"),
        (_say(input__scale=1 / 127), "expected input pixels with scale 1/255"),
        (_say(output__zero_point=0), "expected output pixels with scale 1/255"),
        (_say(input__layout="NCHW"), "the layout NHWC"),
        (_say(input__color="BGR"), "BGR"),
        (_say(value_range=[-1, 1]), "expected the value range"),
        (_say(version=99), "update pocketsr"),
    ],
)
def test_refuses_a_file_that_contradicts_its_metadata(tiny, tmp_path, change, sentence):
    path = edited(tiny.int8_tflite, tmp_path / "planted.tflite", change)
    with pytest.raises(BadInput, match=sentence):
        open_model(path)


def test_refuses_int8_claims_of_a_float_file(tiny, tmp_path):
    pixel = {"dtype": "int8", "layout": "NHWC", "color": "RGB", "scale": 1 / 255, "zero_point": -128}
    change = _say(precision="int8", input=pixel, output=pixel)
    with pytest.raises(BadInput, match="expected an input of int8, as the metadata says, found float32"):
        open_model(edited(tiny.float_tflite, tmp_path / "planted.tflite", change))


def test_fixed_sizes_are_kept(tiny, tmp_path, photograph):
    engine = open_model(edited(tiny.int8_tflite, tmp_path / "fixed.tflite", _say(sizes=[[64, 48]])))
    assert engine.upscale(photograph[:64, :48]).image.shape == (SCALE * 64, SCALE * 48, 3)
    with pytest.raises(BadInput, match="expected an image of 48x64 pixels, found 130x97"):
        engine.upscale(photograph)


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("a.tflite", b"nonsense, nonsense", "found some other kind of file"),
        ("a.onnx", b"nonsense", "found one that it refuses"),
        ("a.pte", b"nonsense, nonsense", "found some other kind of file"),
        ("b.pte", b"\0\0\0\0ET12" + bytes(64), "found one that it refuses"),
        ("a.param", b"7767517", "keep the .param, .bin and .json together"),
        ("missing.pte", None, "found nothing"),
        ("missing.param", None, "expected a .param file, found nothing"),
        ("missing.onnx", None, "found nothing"),
        ("a.mlmodel", b"", "expected a model file"),
        ("missing.tflite", None, "found nothing"),
    ],
)
def test_refuses_other_files(tmp_path, name, content, sentence):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=sentence):
        open_model(path)


def _onnx_edited(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(str(source))
    change(model)
    target.write_bytes(model.SerializeToString())
    return target


def _say_in_onnx(**changes: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        content = json.loads(model.metadata_props[0].value)
        for key, value in changes.items():
            part, _, field = key.rpartition("__")
            (content[part] if part else content)[field] = value
        model.metadata_props[0].value = json.dumps(content)

    return change


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda model: model.ClearField("metadata_props"), "found one without its metadata"),
        (_say_in_onnx(input__layout="NHWC"), "the layout NCHW"),
        (_say_in_onnx(input__dtype="int8", input__zero_point=-128), "expected an input of int8, as the metadata says, found"),
        (_say_in_onnx(output__zero_point=-128), "expected output pixels with scale 1/255 and zero point 0"),
        (lambda model: model.graph.node[0].input.__setitem__(0, "nothing"), "found one that it refuses"),
    ],
)  # fmt: skip
def test_refuses_an_onnx_that_contradicts_its_metadata(tiny, tmp_path, change, sentence):
    path = _onnx_edited(tiny.int8_onnx, tmp_path / "planted.onnx", change)
    with pytest.raises(BadInput, match=sentence):
        open_model(path)


def test_executorch_runs_on_xnnpack_but_for_views_of_any_size(tiny):
    for precision in ("float32", "int8"):
        delegate = opened(tiny, "executorch", precision).describe().delegate
        assert (delegate.name, delegate.partitions) == ("XNNPACK", 2)
        assert delegate.operators["Conv2d"] == 5  # the fifth repeats the channels of the LR image
        assert set(delegate.outside) <= VIEWS


def test_executorch_engines_of_other_threads_live_beside_each_other(tiny, photograph):
    one, two = (opened(tiny, "executorch", "int8", threads) for threads in (1, 2))
    expected = opened(tiny, "pytorch", "int8").upscale(photograph).image
    for engine in (one, two, one, two):
        assert np.array_equal(engine.upscale(photograph).image, expected)


def test_executorch_refuses_what_is_larger_than_the_file_was_made_for(tiny):
    with pytest.raises(BadInput, match="at most 256x256 pixels, found 300x16"):
        opened(tiny, "executorch", "int8").upscale(np.zeros((16, 300, 3), np.uint8))


def _copied(param: Path, folder: Path) -> Path:
    for suffix in (".param", ".bin", ".json"):
        shutil.copyfile(param.with_suffix(suffix), folder / f"copy{suffix}")
    return folder / "copy.param"


@pytest.mark.parametrize("suffix", [".param", ".bin"])
def test_ncnn_refuses_a_file_that_its_metadata_does_not_know(tiny, tmp_path, suffix):
    param = _copied(tiny.float_param, tmp_path)
    assert open_model(param).metadata.precision == "float32"
    with param.with_suffix(suffix).open("ab") as file:
        file.write(b"\n")
    with pytest.raises(BadInput, match=f"found another in .*copy{suffix}: export it again"):
        open_model(param)
    param.with_suffix(suffix).unlink()
    with pytest.raises(BadInput, match=r"keep the \.param, \.bin and \.json together"):
        open_model(param)


@pytest.mark.parametrize(("engine", "module"), [("executorch", "executorch.runtime"), ("ncnn", "ncnn")])
def test_a_missing_engine_names_what_to_install(tiny, monkeypatch, engine, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BadInput, match=rf"pip install 'pocketsr\[{engine}\]'"):
        opened(tiny, engine, "float32")


def test_refuses_unknown_engines_and_no_threads(tiny):
    with pytest.raises(BadInput, match="expected an engine out of litert"):
        open_model(tiny.int8_tflite, engine="tensorrt")
    with pytest.raises(BadInput, match="expected 1 thread or more"):
        open_model(tiny.int8_tflite, threads=0)


def test_missing_litert_is_a_sentence(tiny):
    program = f"""
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name in ("ai_edge_litert", "tflite_runtime"):
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Block())
from compress.errors import run_command
from runtime.engines import open_model
run_command(lambda: open_model({str(tiny.int8_tflite)!r}) and None)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 2, run.stderr
    assert "pip install ai-edge-litert" in run.stderr


def test_litert_needs_neither_torch_nor_the_command_line_libraries(tiny):
    """On a phone only numpy, Pillow and LiteRT are installed."""
    program = f"""
import sys
blocked = ("torch", "rich", "jsonargparse", "skimage", "yaml", "docstring_parser", "matplotlib", "jinja2")
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"blocked: {{name}}", name=name)
sys.meta_path.insert(0, Block())
import numpy as np
import runtime.upscale, runtime.memory, runtime.latency
from runtime.engines import open_model
print(open_model({str(tiny.int8_tflite)!r}).upscale(np.zeros((4, 4, 3), np.uint8)).image.shape)
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=120)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == f"({4 * SCALE}, {4 * SCALE}, 3)"
