"""python -m export.audit: rules decide the exit code, and nonsense is one sentence."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT, Command

RULES_OF_INT8 = "int8-only,no-float-islands,integer-images,one-partition,delegate,rank4,any-size,per-channel,metadata"


@pytest.mark.parametrize(
    ("name", "rules", "code", "says"),
    [
        ("int8", RULES_OF_INT8, 0, "all 9 rules hold"),
        ("float32", "one-partition,rank4,any-size", 0, "all 3 rules hold"),
        ("float32", "int8-only", 1, "BROKEN int8-only: "),
        ("float32", "rank4,integer-images", 1, "BROKEN integer-images: images of type FLOAT32"),
        ("int8", "max-bytes=100", 1, "BROKEN max-bytes=100: "),
        ("int8", "max-macs=300000,max-arena=9999999", 1, "BROKEN max-macs=300000: 6,782,976 MACs"),
    ],
)
def test_required_rules_decide_the_exit_code(clean, command: Command, name, rules, code, says):
    done = command("export.audit", clean / f"{name}.tflite", "--require", rules)
    assert (done.returncode, done.stderr) == (code, "")
    assert says in done.stdout


def test_a_foreign_file_passes_without_rules_and_fails_with_them(island, naive, command: Command, tmp_path):
    done = command("export.audit", island, "--json", tmp_path / "audit.json")
    assert (done.returncode, done.stderr) == (0, "")
    written = json.loads((tmp_path / "audit.json").read_text())
    assert written["metadata"] is None
    assert any("float island" in one["found"] and one["why"] and one["fix"] for one in written["findings"])
    done = command(
        "export.audit", naive, "--require", "int8-only,one-partition,rank4,any-size,no-float-islands,metadata"
    )
    assert done.returncode == 1
    broken = {line.split()[1].rstrip(":") for line in done.stdout.splitlines() if line.startswith("BROKEN")}
    assert broken == {"int8-only", "any-size", "metadata"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--require", "int8"), "expected rules out of int8-only, "),
        (("--require", "max-bytes"), "expected max-bytes=N with a whole number N"),
        (("--require", "rank4=4"), "expected rank4 without a number"),
        (("--size", "64"), "expected a size like 64x64, found '64'"),
        (("--delegate", "npu"), "expected a delegate out of"),
    ],
)
def test_options_that_are_wrong_are_one_sentence(clean, command: Command, arguments, says):
    done = command("export.audit", clean / "int8.tflite", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
    assert says in done.stderr


def test_what_is_no_model_is_one_sentence(tmp_path, command: Command):
    for name in ("a.tflite", "a.txt"):
        (tmp_path / name).write_text("no model")
        done = command("export.audit", tmp_path / name)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr


def test_a_tflite_is_audited_without_torch_and_without_the_libraries_of_other_formats(clean):
    code = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'onnxruntime', 'coremltools', 'litert_torch'): sys.modules[name] = None\n"
        "from export.audit.__main__ import main\n"
        "sys.argv = ['audit', sys.argv[1], '--require', 'int8-only']\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(clean / "int8.tflite")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
