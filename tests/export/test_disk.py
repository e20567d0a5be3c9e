"""Disks that are full or read-only: one sentence, exit code 2, and nothing half-written."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.export.conftest import left


def _fill(disk: Path, leave: int) -> None:
    """A file that leaves so many KiB."""
    free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize // 1024
    (disk / "others").write_bytes(b"x" * 1024 * (free - leave))


@pytest.mark.parametrize("kind", ["tflite", "onnx", "coreml"])
def test_a_full_disk(saved, command, small_disk, kind):
    _fill(small_disk, leave=8 if kind == "tflite" else 4)  # the converter's log, and no more
    suffix = {"tflite": ".tflite", "onnx": ".onnx", "coreml": ".mlpackage"}[kind]
    done = command(f"export.{kind}", saved, "--out", small_disk / f"s{suffix}")
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "full disk" in done.stderr or "No space left" in done.stderr
    assert left(small_disk) <= {"others", "s.log"}
    assert left(saved.parent) == {"student.pt", "disk"}


@pytest.mark.parametrize("kind", ["tflite", "onnx", "coreml"])
def test_a_read_only_disk(saved, command, small_disk, kind):
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    suffix = {"tflite": ".tflite", "onnx": ".onnx", "coreml": ".mlpackage"}[kind]
    done = command(f"export.{kind}", saved, "--out", small_disk / f"s{suffix}")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert "expected a path that can be written" in done.stderr
    assert not os.listdir(small_disk)


def test_a_full_disk_and_a_whole_folder(saved, command, small_disk):
    _fill(small_disk, leave=60)
    done = command("export", saved, "--out", small_disk / "all", "--formats", "onnx", "coreml")
    assert done.returncode == 2, done.stderr
    assert len([line for line in done.stderr.splitlines() if line.startswith("error:")]) == 1
    assert "full disk" in done.stderr or "No space left" in done.stderr
    assert left(small_disk) <= {"others", "all.log"}
