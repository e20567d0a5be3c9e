"""Figures against limits, which engine runs which file, and the names of mistakes; LPIPS where its weights are."""

import math
from pathlib import Path

import numpy as np
import pytest

from compress.checkpoint import load_student
from compress.data.benchmarks import open_benchmark
from compress.errors import BadInput
from runtime.latency import Latency, Spread
from runtime.parity.agreement import Tally
from runtime.parity.diagnosis import diagnose
from runtime.parity.gate import check
from runtime.parity.judge import MEBIBYTE, costing, differing, losing
from runtime.parity.limits import Limits
from runtime.parity.results import SetLoss
from runtime.selection import choose, takes

ZOO = Path(__file__).resolve().parents[2] / "zoo"
TFLITE, PT = ZOO / "anchor_x4_int8.tflite", ZOO / "anchor_x4_int8.pt"


def latency(milliseconds: float) -> Latency:
    part = Spread(milliseconds, milliseconds)
    return Latency(part, part, part, runs=1, threads=1, lr_size=(8, 8))


def test_costs_are_held_against_pytorchs():
    def failures(limits: Limits, peak: int | None = 3 * MEBIBYTE, native: bool = True) -> list[str]:
        return list(costing(70_000, latency(5), peak, latency(4), 4 * MEBIBYTE, limits, native=native))

    assert failures(Limits()) == []
    assert failures(Limits(latency_ratio=1.3, peak_ratio=0.8, peak_mib=3, size_kb=70)) == []
    strict = Limits(latency_ratio=1.2, peak_ratio=0.7, peak_mib=2.5, size_kb=69)
    assert failures(strict) == [
        "size 70.0 kB, limit 69 kB",
        "latency 1.25 times PyTorch's, limit 1.2 times",
        "peak memory 3.0 MiB, limit 2.5 MiB",
        "peak memory 0.75 times PyTorch's, limit 0.7 times",
    ]
    assert len(failures(strict, native=False)) == 1, "time and memory of an evaluation say nothing"
    unmeasured = failures(Limits(peak_mib=64, peak_ratio=2), peak=None)
    assert unmeasured[0] == "peak memory could not be measured, limit 64 MiB"
    assert len(unmeasured) == 2


def test_lpips_is_limited_where_it_grows():
    one = SetLoss(name="Set5", images=5, student=30, file=30, student_lpips=0.2, file_lpips=0.25)
    assert list(losing((one,), Limits(lpips_change=0.06))) == []
    assert list(losing((one,), Limits(lpips_change=0.04))) == ["LPIPS on Set5 changes by +0.0500, limit 0.04"]
    unknown = SetLoss(name="Set5", images=5, student=30, file=30, student_lpips=math.nan, file_lpips=0.2)
    assert list(losing((unknown,), Limits(lpips_change=1)))


def test_a_difference_of_exactly_the_limit_passes():
    expected = np.arange(300, dtype=np.int64).reshape(10, 10, 3).astype(np.uint8)
    for found in (expected + np.uint8(2), (expected + np.uint8(2)).astype(np.float32) / np.float32(255)):
        tally = Tally()
        tally.add(found[:8], expected[:8])  # without those that wrap around
        agreement = tally.agreement()
        assert agreement.max_lsb == 2
        assert not [text for text in differing(agreement, "int8", Limits(int8_lsb=2)) if "LSB" in text]


def test_each_mistake_is_told_apart():
    base = np.random.default_rng(0).random((32, 32, 3)).cumsum(0).cumsum(1)
    picture = base / base.max()
    noise = np.random.default_rng(1).normal(0, 0.02, picture.shape)
    assert diagnose(picture, picture, 4) is None
    assert diagnose(picture + noise, picture, 4) is None
    assert "1 times the reference's plus 10 LSB" in (diagnose(picture + 10 / 255, picture, 4) or "")
    assert "shifted by 0 LR pixels to the right and -0.25 down" in (diagnose(np.roll(picture, -1, 0), picture, 4) or "")
    broken = picture.copy()
    broken[3, 4, 1] = np.nan
    assert (diagnose(broken, picture, 4) or "").startswith("1 values are not finite")


def test_a_file_runs_on_each_engine_that_takes_it_and_on_its_own_where_none_does():
    assert takes("litert-builtin", TFLITE)
    assert takes("phone:SERIAL", TFLITE)
    assert not takes("onnxruntime", TFLITE)
    chosen = [(one.path, one.engine) for one in choose([TFLITE, PT], ["litert-builtin", "litert", "litert"])]
    assert chosen == [(TFLITE, "litert-builtin"), (TFLITE, "litert"), (PT, "pytorch")]
    with pytest.raises(BadInput, match=r"expected a \.onnx among the files for the engine onnxruntime"):
        choose([TFLITE], ["litert", "onnxruntime"])
    with pytest.raises(BadInput, match="expected files to judge, found none"):
        choose([])
    with pytest.raises(BadInput, match=r"expected a path in UTF-8, found .*udcff"):
        choose([Path("\udcff.tflite")])


def test_lpips_is_counted_against_the_float_student(photographs, shared_data, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(shared_data / "torch_home"))
    benchmark = open_benchmark(str(photographs), 4)
    report = check(load_student(PT), [TFLITE], [benchmark], lpips="squeeze", runs=1, memory=False)
    (one,) = report.files[0].sets
    assert 0 < one.student_lpips < 0.6
    assert 0 < abs(report.files[0].lpips_change) < 0.02
    assert report.protocol["lpips"] == "lpips v0.1, squeeze, whole images"
