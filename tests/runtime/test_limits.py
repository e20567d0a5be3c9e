"""Limits: the order in which they go before each other, and a YAML file that is read strictly."""

import pytest

from compress.errors import BadInput
from runtime.parity.limits import BUILT_IN, Limits, Policy, limits_for, read_policy


@pytest.fixture
def read(tmp_path):
    def run(text: str) -> Policy:
        (tmp_path / "limits.yaml").write_text(text)
        return read_policy(tmp_path / "limits.yaml")

    return run


def test_built_in_limits_know_what_engines_and_precisions_cost():
    assert limits_for("tflite", "float32", "litert").float_psnr == BUILT_IN.every.float_psnr
    assert limits_for("tflite", "float16", "litert").float_psnr == 70
    assert limits_for("mlpackage", "float16", "coreml").float_psnr == 60
    assert limits_for("tflite", "int8", "litert").latency_ratio is None


def test_the_more_particular_goes_before_and_the_command_line_before_all(read):
    policy = read(
        "loss: 0.5\nsize_kb: 900\n"
        "formats: {tflite: {loss: 0.4, peak_mib: 64}}\n"
        "precisions: {int8: {loss: 0.3}}\n"
        "engines: {litert: {loss: 0.2}}\n"
    )
    assert limits_for("onnx", "float32", "onnxruntime", policy).loss == 0.5
    assert limits_for("tflite", "float32", "litert-builtin", policy).loss == 0.4
    assert limits_for("tflite", "int8", "litert-builtin", policy).loss == 0.3
    found = limits_for("tflite", "int8", "litert", policy)
    assert (found.loss, found.size_kb, found.peak_mib) == (0.2, 900, 64)
    assert limits_for("tflite", "int8", "litert", policy, Policy(every=Limits(loss=0.1))).loss == 0.1


def test_what_a_person_says_of_every_file_goes_before_what_is_built_in_for_some(read):
    assert limits_for("tflite", "float16", "litert", read("float_psnr: 90\n")).float_psnr == 90


def test_an_engine_may_be_named_with_its_argument(read):
    policy = read("engines: {coreml: {loss: 0.2}, 'coreml:one': {loss: 0.3}}\n")
    assert limits_for("mlpackage", "int8", "coreml", policy).loss == 0.2
    assert limits_for("mlpackage", "int8", "coreml:one", policy).loss == 0.3
    assert limits_for("mlpackage", "int8", "coreml:two", policy).loss == 0.2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lss: 0.1\n", "expected limits out of float_psnr, int8_lsb"),
        ("loss: -0.1\n", "expected a number of at least 0 for loss, found -0.1"),
        ("loss: much\n", "expected a number of at least 0 for loss, found 'much'"),
        ("loss: true\n", "expected a number of at least 0 for loss, found True"),
        ("loss: .nan\n", "expected a number of at least 0 for loss, found nan"),
        (f"float_psnr: 1{'0' * 400}\n", "expected a number of at least 0 for float_psnr, found 1000"),
        ("loss:\n", "expected a number of at least 0 for loss, found nothing"),
        ("int8_within: 99\n", "expected a share of at most 1 for int8_within, found 99"),
        ("formats: {tflight: {loss: 1}}\n", "expected formats out of tflite, onnx"),
        ("precisions: {int9: {loss: 1}}\n", "expected precisions out of float32"),
        ("engines: {lightrt: {loss: 1}}\n", "expected engines out of litert"),
        ("engines: {litert: {formats: {}}}\n", "expected limits out of float_psnr"),
        ("engines: {litert: 3}\n", "expected names with values (`name: value`) in litert in the engines of"),
        ("engines: [litert]\n", "expected names with values"),
        ("loss: 1\nloss: 2\n", "the key 'loss' is there twice"),
        ("- 1\n", "expected names with values"),
        ("", "expected names with values"),
        ("{", "does not parse"),
        ("1: 2\n", "expected names with values"),
    ],
)
def test_anything_else_is_a_sentence(read, text, words):
    with pytest.raises(BadInput) as refused:
        read(text)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_is_no_text_is_a_sentence(tmp_path):
    (tmp_path / "limits.yaml").write_bytes(b"\xff\xfe\x00loss")
    with pytest.raises(BadInput, match="does not parse"):
        read_policy(tmp_path / "limits.yaml")
    with pytest.raises(BadInput, match="found nothing at"):
        read_policy(tmp_path)
