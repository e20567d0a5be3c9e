"""On a device: real environments that hold numpy, Pillow and one interpreter, and nothing else of ours."""

import json
import platform
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from runtime.engines import BY_SUFFIX, open_model
from tests.environments import environment, pinned, run_in
from tests.runtime.conftest import SCALE

on_linux = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() != "x86_64" or sys.version_info[:2] != (3, 11),
    reason="tflite-runtime 2.14.0 is tried as its wheel for Python 3.11 on Linux, x86-64",
)
OUTPUTS = """
import sys
import numpy as np
from runtime.engines import open_model
assert not {"torch", "flatbuffers"} & set(sys.modules)
lr, made = np.load(sys.argv[1]), sys.argv[2]
for path in sys.argv[3:]:
    for threads in (1, 2, 4):
        engine = open_model(path, threads=threads)
        np.save(f"{made}/{engine.metadata.precision}_{threads}.npy", engine.upscale(lr).raw)
    description = engine.describe()
    print(description.version, description.delegate.partitions)
"""
MISSING = """
import sys
from compress.errors import Unavailable
from runtime.engines import open_model
for name in sys.argv[2:]:
    try:
        open_model(sys.argv[1], engine=name)
    except Unavailable as error:
        print(name, error)
"""


@pytest.fixture(scope="module")
def litert() -> Path:
    return environment("litert", *pinned("ai-edge-litert", "numpy", "pillow"))


@pytest.fixture(scope="module")
def tflite_runtime() -> Path:
    return environment("tflite_runtime", "tflite-runtime==2.14.0", "numpy==1.26.4", *pinned("pillow"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory, photograph) -> Path:
    path = tmp_path_factory.mktemp("picture") / "lr.png"
    Image.fromarray(photograph).save(path)
    return path


def _upscaled(python: Path, picture: Path, model: Path, out: Path) -> np.ndarray:
    run = run_in(python, "-m", "runtime.upscale", picture, "--model", model, "--out", out)
    assert run.returncode == 0, run.stderr
    with Image.open(out) as image:
        return np.asarray(image)


def _peak(python: Path, model: Path) -> int:
    run = run_in(python, "-m", "runtime.memory", model, "--height", "128", "--width", "160", "--runs", "1", "--json")
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)[0]["measured"]


def test_numpy_pillow_and_litert_are_enough(tiny, photograph, picture, tmp_path, litert):
    assert "No module named 'torch'" in run_in(litert, "-c", "import torch").stderr
    for model in (tiny.float_tflite, tiny.int8_tflite):
        found = _upscaled(litert, picture, model, tmp_path / "sr.png")
        assert np.array_equal(found, open_model(model).upscale(photograph).image)
    assert _peak(litert, tiny.int8_tflite) > 3 * SCALE**2 * 128 * 160


def test_all_other_engines_say_what_they_need(tiny, litert):
    others = [*(name for name in BY_SUFFIX.values() if name != "litert"), "tensorflow"]
    run = run_in(litert, "-c", MISSING, tiny.float_tflite, *others)
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    assert [line.split()[0] for line in lines] == others
    assert all("found it missing" in line for line in lines)


@on_linux
def test_tflite_runtime_is_taken_where_litert_is_missing(tiny, photograph, picture, tmp_path, tflite_runtime):
    lr = tmp_path / "lr.npy"
    np.save(lr, photograph)
    run = run_in(tflite_runtime, "-c", OUTPUTS, lr, tmp_path, tiny.float_tflite, tiny.int8_tflite)
    assert run.returncode == 0, run.stderr
    assert run.stdout.splitlines() == ["tflite-runtime 2.14.0 1", "tflite-runtime 2.14.0 0"]
    real, integers = (np.load(tmp_path / f"{precision}_1.npy") for precision in ("float32", "int8"))
    assert np.abs(real - open_model(tiny.float_tflite).upscale(photograph).raw).max() < 1e-5
    # its wheels leave int8 to kernels of their own: those that LiteRT has, too, to the last bit
    assert np.array_equal(integers, open_model(tiny.int8_tflite, engine="litert-builtin").upscale(photograph).raw)
    for threads in (2, 4):
        assert np.array_equal(np.load(tmp_path / f"int8_{threads}.npy"), integers)
    image = _upscaled(tflite_runtime, picture, tiny.int8_tflite, tmp_path / "sr.png")
    assert np.array_equal(image, integers.view(np.uint8) ^ 0x80)
    assert _peak(tflite_runtime, tiny.int8_tflite) > 3 * SCALE**2 * 128 * 160


@on_linux
def test_tflite_runtime_beside_a_new_numpy_is_a_sentence(tiny, tmp_path, litert, tflite_runtime):
    packages = litert.parents[1] / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    for name in ("numpy", "numpy.libs"):
        (tmp_path / name).symlink_to(packages / name)
    program = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{MISSING}"
    run = run_in(tflite_runtime, "-c", program, tiny.int8_tflite, "litert")
    assert run.returncode == 0, run.stderr
    assert re.match(r"litert expected numpy below 2 for tflite-runtime 2\.14\.0, found 2\.", run.stdout), run.stdout
