"""A .tflite that is not what it should be: changed after it was written, cut short, or something else."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ai_edge_litert.tools import flatbuffer_utils

from compress.errors import BadInput
from export.audit import audit_file, audit_tflite
from export.audit.findings import findings
from export.audit.rules import broken_rules, parse_rules
from export.metadata import ENTRY, tflite_model
from export.tflite import export_tflite
from tests.conftest import ROOT


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: b"", "some other kind of file"),
        (lambda content: b"no model at all", "some other kind of file"),
        (lambda content: b"\x89PNG" + content[4:], "expected a whole .tflite, found a damaged one"),
        (lambda content: content[:9], "expected a whole .tflite, found a damaged one"),
        (lambda content: content[: len(content) // 3], "expected a whole .tflite, found a damaged one"),
        (lambda content: content[: len(content) * 9 // 10], "expected a whole .tflite, found a damaged one"),
        (lambda content: content[:8] + bytes(len(content) - 8), "expected a whole .tflite, found a damaged one"),
    ],
    ids=["empty", "text", "wrong start", "header", "third", "nine tenths", "zeros"],
)
def test_other_and_damaged_files_are_refused_in_one_sentence(clean, tmp_path, damage, says):
    """In a process of its own, which a crash of the interpreter would end."""
    path = tmp_path / "file.tflite"
    path.write_bytes(damage((clean / "int8.tflite").read_bytes()))
    code = (
        "import sys; from export.audit import audit_tflite; from compress.errors import BadInput\n"
        "try: audit_tflite(sys.argv[1])\n"
        "except BadInput as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="found nothing at"):
        audit_tflite(tmp_path / "none.tflite")


def _altered(source: Path, target: Path, change: Callable[[Any], None]) -> Path:
    """The file with its parsed form changed."""
    model = tflite_model(source)
    change(model)
    target.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    return target


def _metadata_says(field: str, value: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        buffer = model.buffers[next(entry.buffer for entry in model.metadata if entry.name == ENTRY.encode())]
        buffer.data = list(json.dumps({**json.loads(bytes(buffer.data)), field: value}).encode())

    return change


@pytest.mark.parametrize(
    ("name", "change", "layer", "says"),
    [
        ("float32", _metadata_says("precision", "int8"), "head", "FLOAT32 weights, where its metadata says int8"),
        ("int8", _metadata_says("scale", 3), "file", "2x2 times as large, where its metadata says x3"),
        ("int8", _metadata_says("input", {"dtype": "float32"}), "lr", "INT8, where its metadata says float32"),
    ],
    ids=["precision", "scale", "input"],
)
def test_a_file_that_is_not_what_its_metadata_says_is_a_fault(clean, tmp_path, command, name, change, layer, says):
    path = _altered(clean / f"{name}.tflite", tmp_path / "liar.tflite", change)
    faults = [one for one in findings(audit_file(path)) if one.severity == "fault"]
    assert any(says in one.found for one in faults)
    assert any(one.layer.startswith(layer) for one in faults)
    assert command("export.audit", path).returncode == 1


def test_a_wrong_image_scale_is_found(int8_student, tmp_path):
    export_tflite(int8_student("relu_linear"), tmp_path / "right.tflite", "int8")

    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        graph.tensors[graph.inputs[0]].quantization.scale = [1 / 250]

    path = _altered(tmp_path / "right.tflite", tmp_path / "scale.tflite", change)
    found = {(one.severity, one.layer) for one in findings(audit_file(path))}
    assert {("fault", "lr"), ("warning", "lr")} <= found


def test_weights_with_one_scale_for_all_channels_are_found_by_layer(clean, tmp_path):
    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        for scheme in (graph.tensors[i].quantization for i in graph.operators[1].inputs[1:]):
            scheme.scale, scheme.zeroPoint = scheme.scale[:1], scheme.zeroPoint[:1]

    path = _altered(clean / "int8.tflite", tmp_path / "tensor.tflite", change)
    layer = audit_file(path).contents.operators[1].name
    (finding,) = [one for one in findings(audit_file(path)) if "one scale for all channels" in one.found]
    assert finding.layer == layer
    assert broken_rules(audit_file(path), parse_rules("per-channel,any-size")) == {
        "per-channel": f"1 layers with one scale for all channels, first {layer}"
    }


def test_zeros_that_are_stored_are_counted(clean, tmp_path):
    def change(model: Any) -> None:
        graph = model.subgraphs[0]
        buffer = model.buffers[graph.tensors[graph.operators[1].inputs[1]].buffer]
        buffer.data = [0 if i % 2 else int(value) for i, value in enumerate(buffer.data)]

    path = _altered(clean / "int8.tflite", tmp_path / "zeros.tflite", change)
    before, after = audit_file(clean / "int8.tflite"), audit_file(path)
    assert after.weights == 3 * 8 * 9 + 8 * 8 * 9 + 8 * 12 * 9
    assert before.zeros + 8 * 8 * 9 // 2 * 0.9 < after.zeros == after.dense_zeros
    (finding,) = [one for one in findings(after) if "zeros, stored like the others" in one.found]
    assert finding.layer == after.contents.operators[1].name


def test_a_custom_operator_is_named_where_litert_does_not_run_it(clean, tmp_path):
    def change(model: Any) -> None:
        code = model.operatorCodes[model.subgraphs[0].operators[0].opcodeIndex]
        code.builtinCode, code.deprecatedBuiltinCode, code.customCode = 32, 32, b"FlexConv2D"
        for operator in model.subgraphs[0].operators:
            operator.builtinOptions, operator.builtinOptionsType = None, 0

    path = _altered(clean / "float32.tflite", tmp_path / "custom.tflite", change)
    audit = audit_file(path)
    assert audit.operators["CUSTOM FlexConv2D"] == 3
    assert audit.partitions is None
    faults = [one for one in findings(audit) if "its runtime does not run it" in one.found]
    assert [one.layer for one in faults] == [audit.contents.operators[0].name]
