"""`python -m runtime.memory`: a table for people, JSON for programs, and a budget that is checked."""

import json
import subprocess
import sys

import pytest

from runtime.memory import Memory, as_json, as_table, memory_of

linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


def run(*arguments) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.memory", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)


@linux
def test_several_files_and_sizes(tiny):
    done = run(tiny.int8_tflite, tiny.int8_onnx, "--size", "64", "96x48", "--runs", 1, "--json")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["engine"], row["height"], row["width"]) for row in rows] == [
        ("litert", 64, 64),
        ("litert", 96, 48),
        ("onnxruntime", 64, 64),
        ("onnxruntime", 96, 48),
    ]
    assert all(row["measured"] > 0 for row in rows)
    assert rows[0]["predicted"] == sum(rows[0]["terms"].values())
    assert abs(rows[0]["error"]) < 0.15


@linux
def test_a_budget_is_kept(tiny):
    done = run(tiny.int8_tflite, "--budget", "16MB", "--runs", 1)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "measured within the budget" in done.stdout


@linux
def test_what_is_only_evaluated_has_no_measurement(tiny):
    assert memory_of(tiny.int8_mlpackage, 32, 32, runs=1).measured is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--budget", "lots"], "expected a number of bytes"),
        (["--budget", "1MB"], "expected a budget of at least"),
        (["--budget", "9MB", "--size", "64"], "expected --budget or a size"),
        (["--size", "64", "--height", "64"], "expected --size or --height and --width"),
        (["--size", "64by64"], "expected a size such as"),
        (["--height", "0"], "expected a size of at least 1x1"),
        (["--threads", "0"], "expected 1 to 1024 threads"),
        (["--runs", "-1"], "expected 0 runs or more"),
        pytest.param(["--size", "200000"], "expected an inference that fits into", marks=linux),
    ],
)
def test_nonsense_is_one_sentence(tiny, options, sentence):
    done = run(tiny.int8_tflite, *options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"error: {sentence}")
    assert done.stderr.count("\n") == 1


def test_rows_say_what_is_unknown_and_what_is_too_much():
    unknown = Memory(file="a/b.onnx", engine="onnxruntime", height=4, width=6, terms=None, measured=2**20)
    over = Memory(file="c.tflite", engine="litert", height=8, width=8, terms={"x": 2**20}, measured=2**21, budget=10**6)
    lines = as_table([unknown, over]).splitlines()
    assert lines[1].split() == ["b.onnx", "onnxruntime", "4x6", "-", "1.0", "MiB", "-"]
    assert lines[2].split() == ["c.tflite", "litert", "8x8", "1.0", "MiB", "2.0", "MiB", "-50.0%"]
    assert "MORE than the budget" in lines[4]
    assert [row["over"] for row in json.loads(as_json([unknown, over]))] == [False, True]
