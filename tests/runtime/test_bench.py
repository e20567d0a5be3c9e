"""Timing of files: tables, thread counts, profiles, and which of two is faster."""

import json
import shutil

import numpy as np
import pytest

from runtime.bench.compare import compare
from runtime.bench.profile import PROFILERS
from runtime.latency import timings_in_turns

SIDE = "24"


def test_a_comparison_is_certain_only_where_the_runs_say_so():
    chance = np.random.default_rng(0)
    load = 1 + chance.exponential(1.0, 40)  # of the machine, which falls on both runs of a pair
    slow, fast = 2.0 * load * chance.normal(1, 0.02, 40), 1.0 * load * chance.normal(1, 0.02, 40)
    found = compare(slow, fast)
    assert found.ratio == pytest.approx(2.0, rel=0.02)
    assert found.low < found.ratio < found.high
    assert found.certain
    assert "b is 2.0" in found.sentence("a", "b")
    assert "b is 2.0" in compare(fast, slow).sentence("b", "a")
    same = compare(load * chance.normal(1, 0.1, 40), load * chance.normal(1, 0.1, 40))
    assert not same.certain
    assert "no difference" in same.sentence("a", "b")


def test_the_command_times_files_threads_and_operators(command, tiny, tmp_path):
    given = (
        "--engines",
        "litert",
        "litert-builtin",
        "--threads",
        "1",
        "2",
        "--runs",
        "3",
        "--height",
        SIDE,
        "--width",
        "40",
    )
    made = command(
        "runtime.bench", tiny.int8_tflite, tiny.float_onnx, *given, "--against", tiny.float_tflite,
        "--profile", "--json", tmp_path / "bench.json",
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    rows = found["measurements"]
    engines = ("litert", "litert-builtin", "onnxruntime", "litert", "litert-builtin")
    assert [(row["engine"], row["threads"]) for row in rows] == [(name, count) for name in engines for count in (1, 2)]
    assert all(
        len(row["runs_ms"]) == 3 and row["milliseconds"]["run"]["median"] > 0 and row["peak_bytes"] > 0 for row in rows
    )
    assert found["lr_size"] == [24, 40]
    # int8 on two engines and the .onnx on its own, against float on two, with as many threads
    assert len(found["comparisons"]) == 3 * 2 * 2
    assert set(found["profiles"]) == {"int8.tflite (litert)", "float.onnx (onnxruntime)", "float.tflite (litert)"}
    assert "times as fast as float.tflite" in made.stdout or "no difference" in made.stdout


def test_files_of_one_name_are_told_apart(command, tiny, tmp_path):
    files = [tmp_path / name / "x.tflite" for name in ("new", "old")]
    for path, source in zip(files, (tiny.int8_tflite, tiny.float_tflite), strict=True):
        path.parent.mkdir()
        shutil.copyfile(source, path)
    given = ("--runs", "3", "--height", SIDE, "--width", SIDE, "--profile", "--json", tmp_path / "bench.json")
    made = command("runtime.bench", files[0], "--against", files[1], *given)
    assert made.returncode == 0, made.stderr
    found = json.loads((tmp_path / "bench.json").read_text())
    assert set(found["profiles"]) == {"new/x.tflite (litert)", "old/x.tflite (litert)"}
    [pair] = found["comparisons"]
    assert (pair["first"], pair["second"]) == ("new/x.tflite (litert, 1 thread)", "old/x.tflite (litert, 1 thread)")
    alone = command("runtime.bench", files[0], "--against", files[0])
    assert alone.returncode == 2
    assert "expected --against to name another file" in alone.stderr


@pytest.mark.parametrize("engine", PROFILERS)
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_profile_names_the_operators_that_ran(tiny, engine, precision, photograph):
    path = tiny.file_for(engine, precision)
    operators = PROFILERS[engine](path, photograph, 1, 4)
    convolutions = [one for one in operators if "conv" in one.kind.lower()]
    # head, two blocks and tail; the integer reference in PyTorch unfolds its convolutions
    assert len(convolutions) >= 4 or (engine, precision) == ("pytorch", "int8")
    assert all(one.milliseconds >= 0 for one in operators)
    assert len({(one.name, one.kind) for one in operators}) == len(operators)


@pytest.mark.parametrize("engine", ["litert", "onnxruntime"])
def test_a_profile_sums_up_to_about_the_time_of_a_run(tiny, engine, photograph):
    from runtime.engines import open_model

    with open_model(tiny.file_for(engine, "float32")) as opened:
        whole = min(one[0].run for one in timings_in_turns([opened], photograph, runs=9)) * 1000
    profiles = (PROFILERS[engine](tiny.file_for(engine, "float32"), photograph, 1, 9) for _ in range(4))
    total = min(sum(one.milliseconds for one in operators) for operators in profiles)
    assert 0.2 * whole < total < 5 * whole  # the quickest of each, on a machine that others use meanwhile


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--json", "/proc/nothing/bench.json"), "expected a folder that takes new files, found /proc/nothing"),
        (("--height", "0"), "expected --height between 1 and 8192, found 0"),
        (("--runs", "0"), "expected --runs between 1 and 1000000, found 0"),
        (("--threads", "0"), "expected 1 to 1024 threads, found 0"),
        (("--engines", "onnxruntime"), "expected a .onnx among the files"),
        (("--engines", "litert-builtin", "--profile"), "expected an engine that tells the times of operators"),
    ],
)
def test_bad_options_are_one_sentence(command, tiny, options, sentence):
    made = command("runtime.bench", tiny.int8_tflite, *options)
    assert made.returncode == 2
    assert made.stderr.strip().splitlines()[-1].startswith(f"error: {sentence}")
