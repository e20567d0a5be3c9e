"""What the zoo ships: files that belong to their students and pass the gate."""

from pathlib import Path

import pytest

from compress.checkpoint import load_student
from compress.data.benchmarks import open_benchmark
from export.audit import audit_tflite
from runtime.parity.gate import check

ZOO = Path(__file__).resolve().parents[2] / "zoo"


def test_the_files_of_the_zoo_pass_the_gate_against_their_student():
    student = load_student(ZOO / "anchor_x4_int8.pt")
    paths = [ZOO / "anchor_x4_float32.tflite", ZOO / "anchor_x4_int8.tflite"]
    report = check(student, paths, [open_benchmark("skimage", student.scale)], runs=1)
    assert [file.failures for file in report.files] == [(), ()]
    assert report.files[1].agreement.max_lsb <= 1  # 0 on x86-64


def test_the_int8_file_of_the_zoo_is_integer_and_resizable():
    audit = audit_tflite(ZOO / "anchor_x4_int8.tflite")
    assert audit.faults("int8") == []
    assert audit.resizable


@pytest.mark.parametrize("name", ["anchor_x4", "anchor_x4_int8"])
def test_a_card_states_what_its_student_holds(name):
    student, text = load_student(ZOO / f"{name}.pt"), (ZOO / f"{name}.md").read_text()
    assert student.deploy().parameters_count() <= 60_000
    assert f"{student.deploy().parameters_count():,}" in text
    assert {row["set"] for row in student.metrics} == {"Set5", "Set14", "BSD100"}
    for row in student.metrics:
        assert f"| {row['set']} x4 | {row['images']} | {row['psnr']:.3f} | {row['ssim']:.4f} |" in text


def test_the_recorded_psnr_of_the_zoo_is_what_it_reaches_on_set5(shared_data):
    from compress.evaluate import evaluate, torch_upscaler

    for name in ("anchor_x4", "anchor_x4_int8"):
        student = load_student(ZOO / f"{name}.pt")
        measured = evaluate(torch_upscaler(student.reference()), open_benchmark("Set5", 4, shared_data / "eval"))
        recorded = next(row for row in student.metrics if row["set"] == "Set5")
        assert measured["psnr"] == pytest.approx(recorded["psnr"], abs=1e-3)
