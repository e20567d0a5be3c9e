"""What the commands say of a masked student: sizes of both forms and measured speed, and what they refuse."""

import json
import sys

import numpy as np
import pytest
import torch

from compress.checkpoint import Student, load_student, save_student
from compress.models import build
from export.__main__ import main as export_main
from export.coreml import main as coreml_main
from export.onnx import export_onnx
from export.onnx import main as onnx_main
from export.sparse.masked import density
from export.sparse.speed import NONE, NOT_RUN, said, speed_up
from tests.export.conftest import left, refused


@pytest.fixture
def masked(masked_student, folder, tmp_path):
    """A masked int8 student.pt in a folder of its own."""
    masked_student("2:4", "int8")
    path = tmp_path / "student_int8.pt"
    path.write_bytes((folder / "masked_2_4_int8.pt").read_bytes())
    return path


def test_density_counts_what_is_not_zero_in_the_file(masked_student):
    student = masked_student("2:4", "float32")
    weights = [step.weight for step in student.deploy().operators.values() if hasattr(step, "weight")]
    assert density(student, "float32") == pytest.approx(
        float((torch.cat([w.flatten() for w in weights]) != 0).float().mean())
    )
    assert density(masked_student("2:4", "int8"), "int8") <= density(student, "float32")


def test_speed_is_named_where_it_stands_out_of_the_noise_only():
    spread = np.linspace(-0.2, 0.2, 31)
    assert said(list(1.05 + spread)) == NONE, "half of the runs say otherwise"
    assert said(list(1.02 + spread / 1000)) == NONE, "within 3 %"
    assert said(list(1.5 + spread)) == "1.50x"
    assert said(list(0.8 + spread / 10)) == "0.80x"
    assert said([1.2, 1.3, 1.2, 0.9, 1.4]) == NONE, "five pairs say little"


def test_speed_is_measured_on_the_files(tmp_path):
    files = []
    for channels in (64, 8):
        torch.manual_seed(0)
        save_student(Student.of(build("anchor", {"scale": 2, "channels": channels, "blocks": 2})), tmp_path / "s.pt")
        files.append(export_onnx(load_student(tmp_path / "s.pt"), tmp_path / f"{channels}.onnx", "float32").path)
    assert float(speed_up(*files).removesuffix("x")) > 1.5
    assert float(speed_up(*files[::-1]).removesuffix("x")) < 0.7
    if sys.platform != "darwin":
        assert speed_up(tmp_path / "a.mlpackage", tmp_path / "b.mlpackage") == NOT_RUN


@pytest.mark.parametrize("option", [[], ["--sparse"]])
def test_the_command_prints_both_forms(masked, command, option):
    done = command("export.onnx", masked, *option)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (row,) = (line for line in done.stdout.splitlines() if line.startswith("│ student_int8.onnx"))
    _, share, dense, sparse, *_ = (cell.strip() for cell in row.strip("│").split("│"))
    assert 50 < float(share.rstrip("%")) < 70
    assert float(sparse) > float(dense)
    size = masked.with_suffix(".onnx").stat().st_size / 1000
    assert size == pytest.approx(float(sparse if option else dense), abs=0.06)
    assert "student_int8.onnx: larger when sparse" in done.stdout
    assert left(masked.parent) <= {"student_int8.pt", "student_int8.onnx", "student_int8.log"}


def test_one_folder_of_all_carries_the_figures_in_its_manifest(masked, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # not installed: the .tflite is written all the same
    export_main(masked, formats=["tflite", "onnx"], precisions=["int8"])
    manifest = json.loads((masked.parent / "student_int8_export" / "manifest.json").read_text())
    tflite, onnx = manifest["files"]
    assert (tflite["sparse"], onnx["sparse"]) == (False, False)
    assert (tflite["sparsity"]["dense"], onnx["sparsity"]["dense"]) == (tflite["bytes"], onnx["bytes"])
    assert tflite["sparsity"]["sparse"] is None
    assert "pip install 'pocketsr[tensorflow]'" in tflite["sparsity"]["note"]
    assert onnx["sparsity"]["sparse"] > onnx["bytes"]
    assert onnx["sparsity"]["pattern"] == "2:4"
    printed = capsys.readouterr().out
    assert "student_int8.tflite: expected TensorFlow to write a sparse .tflite" in printed
    assert "kB of each file" in printed
    export_main(masked, formats=["onnx"], precisions=["int8"], sparse=True, force=True)
    (row,) = json.loads((masked.parent / "student_int8_export" / "manifest.json").read_text())["files"]
    assert row["sparse"]
    assert row["bytes"] == row["sparsity"]["sparse"]


def test_a_student_without_masks_is_refused_before_any_work(saved, masked, photographs, command, monkeypatch):
    for main in (onnx_main, coreml_main, export_main):
        refused(main, saved.parent, "expected a student with masks", saved, sparse=True, calibration=str(photographs))
    done = command("export.onnx", saved, "--sparse")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    refused(coreml_main, masked.parent, "give --target iOS18", masked, sparse=True, target="iOS17")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    refused(export_main, masked.parent, r"pocketsr\[tensorflow\]", masked, sparse=True)
