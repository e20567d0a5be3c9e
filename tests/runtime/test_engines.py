"""Engines beside each other, and what they share."""

import contextlib
import itertools
import re
import sys

import numpy as np
import pytest

from compress.errors import BadInput, Unavailable
from export.metadata import Image as ImageSpec
from runtime.engines import open_model
from runtime.engines.base import from_pixels, to_pixels
from tests.runtime.conftest import CASES


def test_any_two_engines_are_at_most_2_lsb_apart_in_int8(tiny, photograph):
    """Of one int8 student, as far as they compute with integers as the student does, and are here."""
    images = {}
    for name in {name for name, precision in CASES if precision == "int8"} - {"litert-builtin", "coreml"}:
        with contextlib.suppress(Unavailable), open_model(tiny.file_for(name, "int8"), engine=name) as engine:
            images[name] = engine.upscale(photograph).image.astype(int)
    assert {"litert", "onnxruntime", "pytorch"} <= set(images)
    for one, other in itertools.combinations(images, 2):
        assert np.abs(images[one] - images[other]).max() <= 2, (one, other)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "float32"])
def test_pixels_survive_the_way_in_and_out(dtype):
    pixels = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)
    given = from_pixels(pixels, ImageSpec(dtype))
    assert given.dtype == np.dtype(dtype)
    assert np.array_equal(to_pixels(given), pixels)


def test_float_output_is_clipped_and_rounded_half_to_even():
    values = np.array([[[-0.5, 0.5 / 255, 1.5 / 255], [2.0, np.nan, 0.25]]], np.float32)
    assert to_pixels(values).tolist() == [[[0, 0, 2], [255, 0, 64]]]


def test_refuses_unknown_engines(tiny):
    with pytest.raises(BadInput, match="expected an engine out of litert"):
        open_model(tiny.int8_tflite, engine="tensorrt")


@pytest.mark.parametrize(
    ("engine", "modules", "package"),
    [
        ("litert", ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"), "ai-edge-litert"),
        ("tensorflow", ("tensorflow",), "'pocketsr[tensorflow]'"),
        ("onnxruntime", ("onnxruntime",), "onnxruntime"),
        ("coreml", ("coremltools",), "coremltools"),
        ("executorch", ("executorch.runtime",), "'pocketsr[executorch]'"),
        ("ncnn", ("ncnn",), "'pocketsr[ncnn]'"),
        ("pytorch", ("torch",), "'pocketsr[compress]'"),
    ],
)
def test_a_missing_engine_names_what_to_install(tiny, monkeypatch, engine, modules, package):
    for module in modules:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(Unavailable, match=rf"pip install {re.escape(package)}"):
        open_model(tiny.file_for(engine, "float32"), engine=engine)
