"""python -m export.tflite: what it writes beside the student, and what it refuses."""

import dataclasses
import os
from pathlib import Path

import pytest
from ai_edge_litert.interpreter import Interpreter

from compress.checkpoint import load_student
from compress.errors import BadInput
from export.metadata import read_tflite
from export.tflite import export_tflite
from tests.export.conftest import left, refused


def test_the_command_writes_beside_the_student_and_keeps_the_converter_out_of_the_terminal(saved, command):
    done = command("export.tflite", saved)
    assert done.returncode == 0, done.stderr
    target = saved.with_name("student_float32.tflite")
    assert left(saved.parent) == {"student.pt", target.name, "student_float32.log"}
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"wrote {target}: float32, ")
    assert len(lines) == 3
    assert done.stderr == ""
    given = Interpreter(str(target)).get_input_details()[0]
    assert given["shape"].tolist() == [1, 64, 64, 3]


def test_the_command_calibrates_and_keeps_the_int8_student(saved, photographs, command):
    done = command("export.tflite", saved, "--precision", "int8", "--size", "20x36", "--calibration", photographs)
    assert done.returncode == 0, done.stderr
    quantized, target = saved.with_name("student_int8.pt"), saved.with_name("student_int8.tflite")
    assert left(saved.parent) == {"student.pt", quantized.name, target.name, "student_int8.log"}
    assert Interpreter(str(target)).get_input_details()[0]["shape"].tolist() == [1, 20, 36, 3]
    student = load_student(quantized)
    assert student.precision == "int8"
    assert read_tflite(target).student_sha256 == student.file_hash
    assert student.provenance["float_student_sha256"] == load_student(saved).file_hash


def test_what_cannot_be_exported_is_refused_and_nothing_is_written(saved, photographs):
    from export.tflite import main

    folder = saved.parent
    refused(main, folder, "add --calibration FOLDER", saved, precision="int8")
    refused(main, folder, "expected a size like 64x64, found '64'", saved, size="64")
    refused(main, folder, "expected a size like 64x64", saved, size="-4x64")
    refused(main, folder, "positive LR size, found 0x64", saved, size="0x64")
    refused(main, folder, "end in .tflite", saved, out=folder / "student.onnx")
    refused(main, folder, "no file at", folder / "none.pt")
    refused(main, folder, "expected a folder that takes new files, found /proc", saved, out=Path("/proc/s.tflite"))
    refused(main, folder, "expected a folder of images", saved, precision="int8", calibration=str(folder / "none"))
    refused(main, folder, "only int8 files take integers", saved, images="uint8")
    existing = folder / "student_float32.tflite"
    existing.write_bytes(b"mine")
    refused(main, folder, "or --force to replace it", saved)
    assert existing.read_bytes() == b"mine"


def test_a_refusal_on_the_command_line_is_one_line_and_exit_code_2(saved, command):
    done = command("export.tflite", saved, "--precision", "int8")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    done = command("export.tflite", saved, "--precision", "int4")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert left(saved.parent) == {"student.pt"}


def test_a_float_student_is_no_int8_file_and_an_unsaved_one_is_no_file(float_student, int8_student, tmp_path):
    with pytest.raises(BadInput, match="expected an int8 student, found a float one"):
        export_tflite(float_student("anchor_x2"), tmp_path / "a.tflite", "int8")
    unsaved = dataclasses.replace(float_student("anchor_x2"), file_hash=None)
    with pytest.raises(BadInput, match="student that was saved"):
        export_tflite(unsaved, tmp_path / "a.tflite", "float32")
    assert left(tmp_path) == set()


def test_a_converter_that_fails_is_reported_with_its_log_and_leaves_no_file(saved, monkeypatch, capfd):
    import litert_torch

    def fail(*_: object, **__: object) -> None:
        os.write(1, b"a very long story of the converter\n")  # as native code prints
        raise RuntimeError("no lowering for aten.magic\nand more")

    monkeypatch.setattr(litert_torch, "convert", fail)
    target, log = saved.with_name("s.tflite"), saved.with_name("s.log")
    with pytest.raises(BadInput) as caught:
        export_tflite(load_student(saved), target, "float32")
    assert str(log) in str(caught.value)
    assert "no lowering for aten.magic" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "a very long story" in log.read_text()
    assert "Traceback" in log.read_text()
    assert left(saved.parent) == {"student.pt", "s.log"}
    assert capfd.readouterr().out == ""
