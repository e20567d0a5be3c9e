"""The audit of .onnx and .mlpackage: the same questions, answered from what their engines run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compress.checkpoint import Student
from compress.errors import BadInput
from export.audit import audit_file
from export.audit.findings import findings
from export.audit.rules import broken_rules, parse_rules
from export.coreml import export_coreml
from export.metadata import Precision
from export.onnx import export_onnx
from tests.conftest import Command

NAME = "anchor_x2"
WEIGHTS = 3 * 8 * 9 + 8 * 8 * 9 + 8 * 12 * 9


@pytest.fixture(scope="module")
def file(float_student: Callable[[str], Student], int8_student: Callable[[str], Student], folder: Path) -> Callable:
    """A file of a format and precision; every one is written once."""

    def export(suffix: str, precision: Precision) -> Path:
        path = folder / f"audited_{precision}{suffix}"
        if not path.exists():
            student = int8_student(NAME) if precision.startswith("int8") else float_student(NAME)
            (export_onnx if suffix == ".onnx" else export_coreml)(student, path, precision)
        return path

    return export


def test_an_int8_onnx_keeps_nothing_in_float_in_onnx_runtime(file):
    audit = audit_file(file(".onnx", "int8"))
    assert (audit.float_operators, audit.islands, audit.partitions, audit.outside) == ([], [], 1, [])
    assert audit.operators["Conv"] == 3, "as the file has them, not as the engine calls them"
    assert (audit.input_type, audit.output_type, audit.resizable) == ("UINT8", "UINT8", True)
    assert audit.weights == WEIGHTS
    assert findings(audit) == []
    rules = "int8-only,one-partition,rank4,any-size,no-float-islands,metadata,per-channel,integer-images"
    assert broken_rules(audit, parse_rules(rules)) == {}


def test_a_float_onnx_is_no_int8_file(file):
    audit = audit_file(file(".onnx", "float32"))
    assert not audit.quantized
    assert audit.partitions == 1
    assert set(broken_rules(audit, parse_rules("int8-only,one-partition,metadata,integer-images"))) == {
        "int8-only",
        "integer-images",
    }


@pytest.mark.parametrize(("suffix", "precision"), [(".onnx", "float32"), (".onnx", "int8"), (".mlpackage", "int8")])
def test_macs_and_size_are_those_of_the_student(file, float_student, suffix, precision):
    graph = float_student(NAME).deploy()
    path = file(suffix, precision)
    assert audit_file(path).size == (64, 64)
    audit = audit_file(path, size=(21, 40))
    assert audit.macs == graph.macs(21, 40)
    files = [path] if path.is_file() else [one for one in path.rglob("*") if one.is_file()]
    assert audit.file_bytes == sum(one.stat().st_size for one in files)
    integers = precision == "int8"
    assert WEIGHTS * (1 if integers else 4) <= audit.weight_bytes <= WEIGHTS * (1 if integers else 4) + 2000


def test_an_int8_arena_is_a_quarter_of_the_float_one(file):
    small, large = (audit_file(file(".onnx", precision)).arena_bytes for precision in ("int8", "float32"))
    assert small * 4 == pytest.approx(large, rel=0.05)


def test_an_int8_package_is_integers_between_its_pictures(file):
    audit = audit_file(file(".mlpackage", "int8"))
    assert (audit.input_type, audit.output_type, audit.resizable) == ("UINT8", "UINT8", True)
    assert (audit.float_operators, audit.islands) == ([], [])
    assert (audit.partitions, audit.delegate) == (None, None)
    assert broken_rules(audit, parse_rules("int8-only,no-float-islands,rank4,any-size,metadata,per-channel")) == {}
    assert list(broken_rules(audit, parse_rules("one-partition"))) == ["one-partition"]
    with pytest.raises(BadInput, match="Core ML divides the work by itself"):
        audit_file(file(".mlpackage", "int8"), delegate="gpu")


def test_a_float_package_computes_on_floats(file):
    audit = audit_file(file(".mlpackage", "float16"))
    assert not audit.quantized
    assert {count.weights for count in audit.typed_operators if count.kind == "conv"} == {"FLOAT16"}
    assert broken_rules(audit, parse_rules("int8-only")) == {
        "int8-only": f"{len(audit.float_operators)} float operators, first {audit.float_operators[0]}"
    }


def _save(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], path: Path, *, out: list[object]) -> Path:
    """Image "x" (1, 3, 8, 8) to "y"."""
    kinds = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    made = [helper.make_tensor_value_info("y", TensorProto.FLOAT, out)]
    initializers = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "foreign", kinds, made, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), str(path))
    return path


def test_a_foreign_shuffle_of_rank_6_is_found_by_layer(tmp_path, command: Command):
    shapes = {"to_six": np.array([1, 3, 2, 2, 8, 8]), "to_four": np.array([1, 3, 16, 16])}
    nodes = [
        helper.make_node("Conv", ["x", "weight"], ["features"], kernel_shape=[1, 1]),
        helper.make_node("Reshape", ["features", "to_six"], ["six"]),
        helper.make_node("Transpose", ["six"], ["turned"], perm=[0, 1, 4, 2, 5, 3]),
        helper.make_node("Reshape", ["turned", "to_four"], ["y"]),
    ]
    weight = np.ones((12, 3, 1, 1), np.float32)
    path = _save(nodes, {"weight": weight, **shapes}, tmp_path / "foreign.onnx", out=[1, 3, 16, 16])
    audit = audit_file(path)
    assert (audit.metadata, audit.largest_rank, audit.macs, audit.resizable) == (None, 6, 12 * 3 * 64, False)
    assert [one.layer for one in findings(audit) if "rank 6" in one.found] == ["six", "turned"]
    nnapi = audit_file(path, delegate="nnapi")
    assert (nnapi.partitions, nnapi.outside) == (1, ["Reshape", "Reshape", "Transpose"])
    assert [label.partition(":")[2] for label in nnapi.outside_layers] == ["six", "turned", "y"]
    done = command("export.audit", path, "--require", "rank4,no-float-islands", "--json", tmp_path / "a.json")
    assert (done.returncode, done.stderr) == (1, "")
    assert json.loads((tmp_path / "a.json").read_text())["broken_rules"] == {"rank4": "a tensor of rank 6"}
    assert command("export.audit", path).returncode == 0


def test_a_float_operator_between_integers_of_an_onnx_is_an_island(file, tmp_path):
    """Exp in front of a quantizer: ONNX Runtime has no integer kernel for it."""
    model = onnx.load(str(file(".onnx", "int8")))
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    for node in model.graph.node:
        for i, name in enumerate(node.input):
            if name == conv.output[0]:
                node.input[i] = "exp"
    at = list(model.graph.node).index(conv) + 1
    model.graph.node.insert(at, helper.make_node("Exp", [conv.output[0]], ["exp"], name="exp"))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "island.onnx"))
    audit = audit_file(tmp_path / "island.onnx")
    (island,) = audit.islands
    assert "Exp:exp" in island
    assert (audit.partitions, "Exp" in audit.outside) == (2, True)
    assert {"no-float-islands", "int8-only", "one-partition"} == set(
        broken_rules(audit, parse_rules("no-float-islands,int8-only,one-partition,rank4"))
    )


def test_sparse_initializers_are_counted_with_the_zeros_that_they_leave_out(tmp_path):
    dense = np.zeros((4, 3, 3, 3), np.float32)
    dense.reshape(-1)[::4] = 0.5
    kept = np.flatnonzero(dense)
    values = numpy_helper.from_array(dense.reshape(-1)[kept], "weight")
    sparse = helper.make_sparse_tensor(values, numpy_helper.from_array(kept, "indices"), list(dense.shape))
    path = _save(
        [helper.make_node("Conv", ["x", "weight"], ["y"], kernel_shape=[3, 3], pads=[1] * 4)],
        {}, tmp_path / "sparse.onnx", out=[1, 4, 8, 8],
    )  # fmt: skip
    model = onnx.load(str(path), load_external_data=False)
    model.graph.sparse_initializer.append(sparse)
    onnx.save(model, str(path))
    audit = audit_file(path)
    assert (audit.weights, audit.zeros, audit.dense_zeros, audit.sparse_tensors) == (108, 81, 0, 1)
    assert audit.weight_bytes == len(kept) * (4 + 8)
    assert audit.macs == 108 * 64
    assert any("sparse weights, 75% zeros" in one.found for one in findings(audit))


def test_a_network_exported_by_torch_itself_is_audited(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PReLU(), nn.PixelShuffle(2)).eval()
    path = tmp_path / "torch.onnx"
    axes = {"input": {2: "height", 3: "width"}}
    torch.onnx.export(
        network, (torch.zeros(1, 3, 16, 16),), str(path), dynamo=False, opset_version=17, input_names=["input"],
        dynamic_axes=axes,
    )  # fmt: skip
    audit = audit_file(path, size=(10, 12))
    assert audit.operators == {"Conv": 1, "PRelu": 1, "DepthToSpace": 1}
    assert (audit.resizable, audit.macs, audit.metadata) == (True, 324 * 120, None)
    assert audit_file(path, delegate="nnapi").outside == []
    assert audit_file(path, delegate="xnnpack").outside == ["DepthToSpace", "PRelu"]


@pytest.mark.parametrize("suffix", [".onnx", ".mlpackage"])
def test_damaged_and_missing_files_are_one_sentence(file, tmp_path, suffix, command: Command):
    whole = file(suffix, "int8")
    cases = {"missing": None, "empty": b"", "text": b"no model at all"}
    for name, content in cases.items():
        path = tmp_path / f"{name}{suffix}"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(BadInput, match=r"^expected a") as caught:
            audit_file(path)
        assert "\n" not in str(caught.value)
    path = tmp_path / f"truncated{suffix}"
    if suffix == ".onnx":
        path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    else:
        shutil.copytree(whole, path)
        model = next(path.rglob("*.mlmodel"))
        model.write_bytes(model.read_bytes()[: model.stat().st_size // 2])
    done = command("export.audit", path)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
