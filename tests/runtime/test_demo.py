"""The main job from end to end, shortened: what a newcomer's first command does."""

import re
import subprocess
import sys

from compress.checkpoint import load_student
from export.audit import audit_tflite


def test_demo_makes_files_that_pass_and_a_self_contained_report(tmp_path):
    command = [sys.executable, "-m", "runtime.demo", "--steps", "6", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "report.html") in done.stdout
    for column in ("precision", "size", "operators", "delegate", "to reference", "loss", "median", "peak memory"):
        assert column in done.stdout
    page = (tmp_path / "report.html").read_text()
    assert page.count("PASS") >= 2
    assert not re.findall(r'(?:src|href)="(?!data:|#)', page), "the report refers to something outside itself"
    assert audit_tflite(tmp_path / "int8.tflite").integer_only
    assert load_student(tmp_path / "student_int8.pt").provenance["steps"] == 6


def test_demo_refuses_an_unusable_recipe_in_one_line(tmp_path):
    command = [sys.executable, "-m", "runtime.demo", "--recipe", str(tmp_path / "none.yaml"), "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: expected a recipe")
