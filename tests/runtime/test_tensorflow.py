"""TensorFlow's interpreter: the same integers as LiteRT's, from a process that may die, hang or be missing."""

import gc
import importlib.util
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from compress.errors import BadInput, Unavailable
from runtime.engines import open_model, remote, tensorflow
from runtime.peak import peak_memory
from tests.conftest import ROOT
from tests.runtime.conftest import opened

pytestmark = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="TensorFlow is not installed")
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_computes_what_litert_computes_with_xnnpack(tiny, photograph):
    for precision in ("float32", "int8"):
        with opened(tiny, "tensorflow", precision) as engine, opened(tiny, "litert", precision) as litert:
            assert np.array_equal(engine.upscale(photograph).raw, litert.upscale(photograph).raw)
            found, expected = engine.describe(), litert.describe()
            assert found.delegate == expected.delegate
            assert (found.delegate.partitions, found.metadata) == (1, expected.metadata)


def test_neither_package_is_imported_beside_the_other(tiny):
    opened(tiny, "tensorflow", "int8").close()
    assert "tensorflow" not in sys.modules


def test_the_way_to_the_process_is_not_timed(tiny, monkeypatch):
    delay, late = 1000.0, 0.0  # seconds of a clock that each message puts forward, however busy this machine is

    def slow(*arguments):
        nonlocal late
        late += delay
        return receive(*arguments)

    receive = remote.receive
    with opened(tiny, "tensorflow", "int8") as engine:
        monkeypatch.setattr(remote, "receive", slow)
        monkeypatch.setattr(remote, "time", SimpleNamespace(perf_counter=lambda: time.perf_counter() + late))
        timing = engine.upscale(np.zeros((16, 16, 3), np.uint8)).timing
    assert late > 3 * delay
    assert 0 < timing.prepare < delay
    assert 0 < timing.run < delay
    assert 0 < timing.read < delay


def test_a_file_that_is_refused_leaves_others_alone(tiny, tmp_path, photograph):
    with opened(tiny, "tensorflow", "int8") as engine:
        expected = engine.upscale(photograph).raw
        content = bytearray(tiny.int8_tflite.read_bytes())
        (tmp_path / "cut.tflite").write_bytes(content[:-64])
        with pytest.raises(BadInput, match=r"expected .* found .*cut\.tflite"):
            open_model(tmp_path / "cut.tflite", engine="tensorflow")
        assert np.array_equal(engine.upscale(photograph).raw, expected)


def test_a_process_that_hangs_or_dies_is_a_sentence_and_replaced(tiny, photograph, monkeypatch):
    with opened(tiny, "tensorflow", "int8") as engine:
        stopped = tensorflow.preload()
        monkeypatch.setattr(remote, "TIMEOUT", 0.5)
        os.kill(stopped.pid, signal.SIGSTOP)
        with pytest.raises(BadInput, match=r"int8\.tflite within 0\.5 s, found that TensorFlow takes longer"):
            engine.upscale(photograph)
        assert not stopped.alive
    monkeypatch.undo()
    with opened(tiny, "tensorflow", "int8") as engine:
        os.kill(tensorflow.preload().pid, signal.SIGKILL)
        for _ in range(2):
            with pytest.raises(BadInput, match="found TensorFlow's process killed by signal 9: open the file again"):
                engine.upscale(photograph)
    gc.collect()  # what was half sent is not heard of again: pytest warns of exceptions that nobody catches


@on_linux
def test_the_process_ends_with_ours_even_if_that_is_killed(tiny):
    program = """
import os, signal
from runtime.engines import tensorflow
print(tensorflow.preload().pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == -signal.SIGKILL
    process = Path("/proc") / run.stdout.strip()
    deadline = time.monotonic() + 20
    while process.exists() and "State:\tZ" not in (process / "status").read_text() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not process.exists() or "State:\tZ" in (process / "status").read_text()


@on_linux
def test_peak_memory_is_that_of_both_processes(tiny):
    opened(tiny, "tensorflow", "int8").close()
    found, litert = (peak_memory(tiny.int8_tflite, 512, 512, engine=name) for name in ("tensorflow", "litert"))
    assert 0.7 * litert < found < 1.6 * litert


def test_a_broken_installation_is_a_sentence(tmp_path, monkeypatch):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise RuntimeError('compiled for\\nanother numpy')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tensorflow, "_child", None)
    with pytest.raises(Unavailable, match=r"cannot be imported .*compiled for another numpy"):
        tensorflow.preload()
