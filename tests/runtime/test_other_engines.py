"""ONNX Runtime, ExecuTorch and ncnn: what is special about them, and files of theirs that must be refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from compress.errors import BadInput
from export.executorch import VIEWS
from runtime.engines import open_model
from tests.runtime.conftest import opened


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
