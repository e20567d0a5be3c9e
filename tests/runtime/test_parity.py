"""The gate lets good files pass and stops every planted fault, with the figure and the limit that it missed."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from PIL import Image

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.benchmarks import Benchmark, open_benchmark
from compress.errors import BadInput
from compress.evaluate import evaluate, torch_upscaler
from compress.models import build
from export.metadata import ENTRY
from export.tflite import export_tflite
from runtime.parity.__main__ import main
from runtime.parity.gate import check
from runtime.parity.junit import to_junit
from runtime.parity.limits import Limits
from runtime.parity.results import FileParity
from runtime.parity.verdict import HEADINGS, table_rows
from tests.runtime.conftest import SCALE, edited, tiny_student


@pytest.fixture(scope="module")
def benchmark_set() -> Benchmark:
    whole = open_benchmark("skimage", SCALE)
    return Benchmark("one photograph", SCALE, whole.pairs[:1])


@pytest.fixture
def judge(tiny, benchmark_set):
    """Checks one file against the tiny int8 student, which judges float files too."""

    def run(path: Path, student: Path | None = None, limits: Limits | None = None) -> FileParity:
        report = check(load_student(student or tiny.int8_pt), [path], [benchmark_set], limits, runs=1)
        return report.files[0]

    return run


def test_good_files_pass(tiny, benchmark_set):
    report = check(load_student(tiny.int8_pt), [tiny.float_tflite, tiny.int8_tflite], [benchmark_set], runs=3)
    assert report.passed
    float_file, int8_file = report.files
    assert float_file.agreement.psnr > 100
    assert float_file.agreement.within == 1
    assert int8_file.agreement.max_lsb <= 1
    assert int8_file.agreement.identical > 0.999
    assert int8_file.agreement.distribution[0] == int8_file.agreement.identical
    for file in report.files:
        assert sum(file.agreement.distribution) == pytest.approx(1)
    assert abs(float_file.loss) < 0.001
    assert int8_file.file_bytes == tiny.int8_tflite.stat().st_size
    if sys.platform == "linux":
        assert 0 < int8_file.peak_bytes < float_file.peak_bytes < report.pytorch_peak_bytes
    assert 0 < int8_file.latency.median <= int8_file.latency.p90
    assert report.pytorch.lr_size == int8_file.latency.lr_size
    assert "PASS" in int8_file.verdict()
    assert {len(row) for row in table_rows(report)} == {len(HEADINGS)}


def test_float_student_judges_its_float_file(tiny, judge):
    assert judge(tiny.float_tflite, tiny.float_pt).passed


def test_loss_is_that_of_the_evaluation(tiny, judge, benchmark_set):
    """Both figures come from the one protocol; the int8 file loses against the float student, not the int8 one."""
    floating, integer = (
        evaluate(torch_upscaler(load_student(path).reference()), benchmark_set)["psnr"]
        for path in (tiny.float_pt, tiny.int8_pt)
    )
    (found,) = judge(tiny.int8_tflite).sets
    assert found.student == pytest.approx(floating, abs=1e-9)
    assert found.file == pytest.approx(integer, abs=1e-3)
    assert found.loss == pytest.approx(floating - integer, abs=1e-3)
    assert floating != integer


def test_loss_above_its_limit_fails(tiny, judge):
    found = judge(tiny.int8_tflite, limits=Limits(loss=-5.0))
    assert any("limit -5 dB" in failure for failure in found.failures)


def _tail(model):
    """The last convolution."""
    code = schema.BuiltinOperator.CONV_2D
    return [op for op in model.subgraphs[0].operators if model.operatorCodes[op.opcodeIndex].builtinCode == code][-1]


def _weights(model):
    return model.subgraphs[0].tensors[_tail(model).inputs[1]]


def _float_weight_off(model):
    buffer = model.buffers[_weights(model).buffer]
    buffer.data = (np.frombuffer(bytes(buffer.data), np.float32) * 1.1).view(np.uint8)


def _int8_weight_off(model):
    quantization = _weights(model).quantization
    quantization.scale = np.asarray(quantization.scale) * 1.1


def _zero_point_off(model):
    """Of the tail's output. Its reader has the same wrong zero point, so that only what is clipped shows."""
    quantization = model.subgraphs[0].tensors[_tail(model).outputs[0]].quantization
    quantization.zeroPoint = np.asarray(quantization.zeroPoint) + 110


def test_float_weight_off_by_a_tenth_fails(tiny, judge, tmp_path):
    found = judge(edited(tiny.float_tflite, tmp_path / "f.tflite", _float_weight_off))
    assert not found.passed
    assert found.failures[0].startswith("wrong weights: ")
    assert "PSNR against the reference" in found.failures[1]
    assert "limit 110 dB" in found.failures[1]


@pytest.mark.parametrize("fault", [_int8_weight_off, _zero_point_off])
def test_int8_faults_fail(tiny, judge, tmp_path, fault):
    found = judge(edited(tiny.int8_tflite, tmp_path / "q.tflite", fault))
    assert not found.passed
    assert any("limit 2 LSB" in failure for failure in found.failures)
    assert found.verdict().startswith("q.tflite: FAIL")


def test_values_that_are_not_finite_fail(tiny, judge, tmp_path):
    def poison(model):
        buffer = model.buffers[_weights(model).buffer]
        values = np.frombuffer(bytes(buffer.data), np.float32).copy()
        values[5] = np.nan
        buffer.data = values.view(np.uint8)

    assert not judge(edited(tiny.float_tflite, tmp_path / "f.tflite", poison)).passed


def test_stale_file_fails(tiny, judge, tmp_path):
    """The student went on training: same architecture, other weights, old file."""
    save_student(tiny_student(seed=1), tmp_path / "newer.pt")
    found = judge(tiny.float_tflite, tmp_path / "newer.pt")
    assert not found.passed
    assert found.failures[0].startswith("stale: made from another student")


def test_same_weights_in_another_file_are_stale_too(tiny, judge, tmp_path):
    """The hash alone decides, so that provenance stays true."""
    plain = load_student(tiny.float_pt)
    save_student(Student(**{**vars(plain), "provenance": {"steps": 1}}), tmp_path / "other.pt")
    found = judge(tiny.float_tflite, tmp_path / "other.pt")
    assert [failure.partition(":")[0] for failure in found.failures] == ["stale"]


def _without_metadata(model):
    model.metadata = [entry for entry in model.metadata if entry.name != ENTRY.encode()]


def _with_another_range(model):
    (entry,) = [one for one in model.metadata if one.name == ENTRY.encode()]
    plain = json.loads(bytes(model.buffers[entry.buffer].data))
    model.buffers[entry.buffer].data = list(json.dumps(plain | {"value_range": [-1, 1]}).encode())


def test_foreign_files_fail_by_name_and_the_others_are_judged(tiny, benchmark_set, tmp_path):
    save_student(Student.of(build("anchor", {"scale": 3, "channels": 8, "blocks": 1})), tmp_path / "x3.pt")
    export_tflite(load_student(tmp_path / "x3.pt"), tmp_path / "x3.tflite", "float32")
    (tmp_path / "torn.tflite").write_bytes(tiny.int8_tflite.read_bytes()[:3000])
    foreign = {
        tmp_path / "x3.tflite": "expected a file of the student's scale x2, found x3",
        edited(tiny.int8_tflite, tmp_path / "bare.tflite", _without_metadata): "without its metadata",
        edited(
            tiny.float_tflite, tmp_path / "range.tflite", _with_another_range
        ): "expected the value range (0, 1), found",
        tmp_path / "torn.tflite": "torn.tflite",
    }
    paths = [tiny.float_tflite, *foreign, tiny.int8_tflite]
    report = check(load_student(tiny.int8_pt), paths, [benchmark_set], runs=1)
    assert not report.passed
    assert [file.path for file in report.files] == [tiny.float_tflite, tiny.int8_tflite]
    assert all(file.passed for file in report.files)
    assert [one.path for one in report.refused] == list(foreign)
    for one, words in zip(report.refused, foreign.values(), strict=True):
        assert words in one.reason
        assert one.verdict().startswith(f"{one.name}: FAIL  expected")
    rows = {row[0]: row for row in table_rows(report)}
    assert rows["x3.tflite"][:3] == ("x3.tflite", "litert", "FAIL")


def test_files_of_one_name_are_told_apart_by_their_paths(tiny, benchmark_set, tmp_path):
    """CI servers take cases of one name for one case, so that the last would hide the others."""
    other = tmp_path / tiny.int8_tflite.name
    edited(tiny.int8_tflite, other, _without_metadata)
    report = check(load_student(tiny.int8_pt), [other, tiny.int8_tflite, tiny.float_tflite], [benchmark_set], runs=1)
    first, second = (f"{path.parent.name}/{path.name}" for path in (tiny.int8_tflite, other))
    cases = [case.attrib["name"] for case in Xml.fromstring(to_junit(report)).iter("testcase")]
    assert cases == [f"{first} [litert]", f"{tiny.float_tflite.name} [litert]", f"{second} [litert]"]
    assert report.files[0].verdict().startswith(f"{first}: PASS")
    assert report.refused[0].verdict().startswith(f"{second}: FAIL")
    assert [row[0] for row in table_rows(report)[:3]] == [first, tiny.float_tflite.name, second]


def test_int8_file_needs_its_int8_student(tiny, benchmark_set):
    report = check(load_student(tiny.float_pt), [tiny.int8_tflite, tiny.float_tflite], [benchmark_set], runs=1)
    assert "give the int8 student" in report.refused[0].reason
    assert report.files[0].passed


def test_unsaved_student_is_refused(tiny, benchmark_set):
    with pytest.raises(BadInput, match="that was saved"):
        check(tiny_student(), [tiny.float_tflite], [benchmark_set])


def _command(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "runtime.parity", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def folder(tmp_path) -> Path:
    """One small photograph to compare on."""
    (tmp_path / "photographs").mkdir()
    _, _, hr = next(iter(open_benchmark("skimage", SCALE)))
    Image.fromarray(hr[:160, :200]).save(tmp_path / "photographs" / "cat.png")
    return tmp_path / "photographs"


def test_command_passes_and_writes_json_and_junit(tiny, tmp_path, folder):
    out, junit = tmp_path / "out.json", tmp_path / "junit.xml"
    engines = ("--engines", "litert", "litert-builtin")
    files = (tiny.float_tflite, tiny.int8_tflite, tiny.int8_onnx)
    run = _command(
        tiny.int8_pt, *files, *engines, "--images", folder, "--json", out, "--junit", junit, "--lpips", "none", "--runs", 2
    )  # fmt: skip
    assert run.returncode == 0, run.stdout + run.stderr
    assert "int8.tflite: PASS  max 0 LSB, 100.00% identical" in run.stdout
    assert "int8.tflite on litert-builtin: PASS" in run.stdout
    assert "LPIPS: not computed: --lpips none" in run.stdout
    content = json.loads(out.read_text())
    assert content["passed"] is True
    assert content["student"] == load_student(tiny.int8_pt).file_hash
    assert [file["engine"] for file in content["files"]] == ["litert", "litert-builtin"] * 2 + ["onnxruntime"]
    int8 = content["files"][2]
    assert int8["agreement"]["max_lsb"] == 0
    assert int8["sets"][0]["images"] == 1
    assert int8["limits"]["int8_lsb"] == 2
    assert int8["latency"]["runs"] == 2
    suite = Xml.parse(junit).getroot()[0]
    assert suite.attrib["tests"] == "5"
    assert suite.attrib["failures"] == suite.attrib["errors"] == "0"


def test_command_fails_with_the_figure_and_the_limit(tiny, tmp_path, folder):
    path = edited(tiny.int8_tflite, tmp_path / "planted\x07.tflite", _int8_weight_off)
    bare = edited(tiny.int8_tflite, tmp_path / "bare.tflite", _without_metadata)
    out, junit = tmp_path / "out.json", tmp_path / "junit.xml"
    run = _command(tiny.int8_pt, path, bare, "--images", folder, "--json", out, "--junit", junit, "--runs", 1)
    assert run.returncode == 1, run.stderr
    assert "FAIL  wrong weights: " in run.stdout
    assert "; largest difference" in run.stdout
    assert "bare.tflite: FAIL  expected a .tflite that pocketsr exported" in run.stdout
    content = json.loads(out.read_text())
    assert content["passed"] is False
    assert content["refused"][0]["path"] == str(bare)
    planted, refused = Xml.parse(junit).getroot()[0].iter("testcase")
    assert planted.attrib["name"] == "planted?.tflite [litert]"
    assert "limit 2 LSB" in planted.find("failure").attrib["message"]
    assert "without its metadata" in refused.find("error").attrib["message"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--engines", "onnxruntime"), "expected a .onnx among the files for the engine onnxruntime, found none"),
        (("--engines", "lightrt"), "expected an engine out of"),
        (("--limits", "none.yaml"), "expected a YAML file of limits, found nothing at none.yaml"),
        (("--loss", "-1"), "expected a number of at least 0 for loss"),
        (("--lpips", "none", "--lpips_change", "0.1"), "name a backbone with --lpips"),
        (("--runs", "0"), "expected at least 1 run and 1 warm-up run, found 0 and 3"),
        (
            ("--json", "a.out", "--junit", "./a.out"),
            "expected a file of its own for each result, found a.out given twice",
        ),
        (("nothing.tflite",), "expected an exported file, found nothing at nothing.tflite"),
    ],
)
def test_wrong_arguments_are_a_sentence(tiny, folder, arguments, words, capsys):
    with pytest.raises(SystemExit) as left:
        command_line(main, [str(tiny.int8_pt), str(tiny.int8_tflite), *arguments, "--images", str(folder)])
    assert left.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
