"""LiteRT: its kinds of kernels, and files that contradict their metadata."""

import json
import subprocess
import sys

import numpy as np
import pytest

from compress.errors import BadInput
from export.metadata import ENTRY
from runtime.engines import open_model
from tests.runtime.conftest import SCALE, edited, opened


def test_litert_runs_in_one_xnnpack_partition(tiny):
    for precision in ("float32", "int8"):
        delegate = opened(tiny, "litert", precision).describe().delegate
        assert (delegate.name, delegate.partitions, dict(delegate.outside)) == ("XNNPACK", 1, {})
        assert delegate.operators["CONV_2D"] == 4


def test_builtin_kernels_run_without_a_delegate(tiny):
    delegate = opened(tiny, "litert-builtin", "int8").describe().delegate
    assert (delegate.name, delegate.partitions) == ("none", 0)
    assert dict(delegate.outside) == dict(delegate.operators)


def test_reference_kernels_run_float_files(tiny, photograph):
    plain, usual = (opened(tiny, name, "float32") for name in ("litert-reference", "litert"))
    assert (plain.describe().delegate.name, plain.describe().delegate.partitions) == ("none", 0)
    found, expected = plain.upscale(photograph).raw, usual.upscale(photograph).raw
    assert 0 < np.abs(found - expected).max() < 1e-5  # other kernels indeed


def test_an_operator_without_a_kernel_is_named(tiny, tmp_path):
    with pytest.raises(
        BadInput, match=r"found DEPTH_TO_SPACE of a kind that ai-edge-litert .* does not run in the int8 file"
    ):
        open_model(tiny.int8_tflite, engine="litert-reference")

    def widen(model):
        shuffle = next(one for one in model.subgraphs[0].operators if hasattr(one.builtinOptions, "blockSize"))
        shuffle.builtinOptions.blockSize = 5

    with pytest.raises(BadInput, match=r"found DEPTH_TO_SPACE of a kind .* in the float32 file"):
        open_model(edited(tiny.float_tflite, tmp_path / "wide.tflite", widen), engine="litert-builtin")


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


def test_litert_needs_neither_torch_nor_the_command_line_libraries(tiny):
    """On a device only numpy, Pillow and LiteRT are installed; `test_environments` does without the rest indeed."""
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
