"""Peak memory: repeatable, larger for larger images, and a sentence where it cannot be measured."""

import statistics
import sys
from pathlib import Path

import pytest

from compress.errors import BadInput
from runtime import peak
from runtime.peak import NotLinux, peak_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
SR_BYTES = 12  # of one LR pixel's x2 output, int8


def test_repeats(tiny):
    first, second = (
        statistics.median(peak_memory(tiny.int8_tflite, 128, 160) for _ in range(3)) for _ in range(2)
    )  # single runs differ by up to 240 KiB on a busy machine
    assert abs(first - second) <= 512 * 1024


def test_counts_the_image(tiny):
    small, large = (peak_memory(tiny.int8_tflite, side, side) for side in (64, 512))
    assert large - small > SR_BYTES * (512**2 - 64**2)
    assert small < 64 * 2**20, "python itself must not be counted"


def test_int8_takes_less_than_float(tiny):
    assert peak_memory(tiny.int8_tflite, 256, 256) < 0.8 * peak_memory(tiny.float_tflite, 256, 256)


def test_relative_paths_are_the_callers(tiny, monkeypatch):
    monkeypatch.chdir(tiny.int8_tflite.parent)
    assert peak_memory(tiny.int8_tflite.name, 32, 32) > 0


def test_a_link_has_the_suffix_of_its_name(tiny, tmp_path):
    (tmp_path / "blob").write_bytes(tiny.int8_tflite.read_bytes())
    (tmp_path / "model.tflite").symlink_to("blob")
    assert peak_memory(tmp_path / "model.tflite", 32, 32) > 0


def test_bad_files_keep_their_sentence(tmp_path):
    (tmp_path / "a.tflite").write_bytes(b"nonsense, nonsense")
    with pytest.raises(BadInput, match=r"^expected a .tflite file, found some other kind of file"):
        peak_memory(tmp_path / "a.tflite", 32, 32)


def test_bad_sizes_are_refused(tiny):
    with pytest.raises(BadInput, match="expected a size of at least 1x1"):
        peak_memory(tiny.int8_tflite, 0, 32)


def test_slow_inference_is_given_up(tiny):
    with pytest.raises(BadInput, match="takes longer"):
        peak_memory(tiny.int8_tflite, 64, 64, timeout=0.01)


def test_other_systems_are_told(tiny, monkeypatch):
    monkeypatch.setattr(peak, "CLEAR_REFS", Path("/nowhere/clear_refs"))
    with pytest.raises(NotLinux, match="expected Linux"):
        peak_memory(tiny.int8_tflite, 32, 32)


def test_sizes_beyond_memory_are_refused(tiny):
    with pytest.raises(BadInput, match="expected an image that fits into memory"):
        peak_memory(tiny.int8_tflite, 10**7, 10**7)
