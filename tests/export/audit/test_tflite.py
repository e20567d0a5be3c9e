"""The audit tells what is in a .tflite, whatever its name or its flags say."""

import dataclasses

import pytest
import torch
from torch import nn

from compress.checkpoint import load_student
from compress.errors import BadInput
from export.audit import audit_file, audit_tflite
from export.audit.contents import Contents, Operator, Tensor
from export.audit.delegates import LISTS
from export.audit.findings import findings
from export.audit.graphs import partitions
from export.chatter import logged
from export.tflite import export_tflite


def test_our_files_are_without_fault(clean):
    assert audit_tflite(clean / "int8.tflite").faults("int8") == []
    assert audit_tflite(clean / "float32.tflite").faults("float32") == []


def test_sizes_are_those_of_the_weights(clean):
    small, large = audit_tflite(clean / "int8.tflite"), audit_tflite(clean / "float32.tflite")
    weights = 3 * 8 * 9 + 8 * 8 * 9 + 8 * 12 * 9
    biases = 8 + 8 + 12
    assert small.weight_bytes == weights + 4 * biases
    assert 4 * (weights + biases) <= large.weight_bytes <= 4 * (weights + biases) + 64
    assert small.file_bytes == (clean / "int8.tflite").stat().st_size


def test_a_float_file_is_no_int8_file(clean):
    found = audit_tflite(clean / "float32.tflite")
    assert not found.integer_only
    first, second, *_ = found.faults("int8")
    assert first.startswith(f"{sum(found.operators.values())} float operators, first ")
    assert second == "images of type FLOAT32 and FLOAT32 instead of INT8"


def test_an_int8_file_is_no_float_file(clean):
    assert audit_tflite(clean / "int8.tflite").faults("float32") == ["images of type INT8 and INT8 instead of FLOAT32"]


def test_plain_pixel_shuffle_shows_as_transposes_and_a_baked_in_size(naive):
    found = audit_tflite(naive)
    assert {"TRANSPOSE", "RESHAPE"} <= set(found.operators)
    assert "DEPTH_TO_SPACE" not in found.operators
    assert not found.resizable
    assert not found.integer_only
    assert found.faults("int8")


def test_a_float_island_between_integers_is_named(island):
    found = audit_tflite(island)
    kinds = {entry.partition(":")[0] for entry in found.float_operators}
    assert "EXP" in kinds
    assert "CONV_2D" not in kinds
    faults = found.faults("int8")
    assert faults[0].startswith(f"{len(found.float_operators)} float operators, first ")
    assert not found.integer_only


def test_partitions_and_ranks_that_delegates_refuse_are_faults(clean):
    audit = audit_tflite(clean / "int8.tflite")
    split = dataclasses.replace(audit, partitions=2, outside_layers=["CAST:x"], largest_rank=6)
    assert split.faults("int8") == ["2 XNNPACK partitions with CAST outside", "a tensor of rank 6"]


def test_the_island_is_one_group_of_connected_layers_and_ends_are_none(island, clean):
    (group,) = audit_tflite(island).islands
    assert {label.partition(":")[0] for label in group} >= {"DEQUANTIZE", "EXP", "QUANTIZE"}
    assert audit_tflite(clean / "int8.tflite").islands == []
    assert audit_tflite(clean / "float32.tflite").islands == [], "nothing to be an island in"
    (finding,) = [one for one in findings(audit_tflite(island)) if "float island" in one.found]
    assert finding.severity == "warning"
    assert f"{group[0].partition(':')[2]}" == finding.layer


@pytest.mark.parametrize("size", [(16, 16), (21, 40)])
def test_macs_are_those_of_the_student(clean, size):
    audit = audit_file(clean / "int8.tflite", size=size)
    assert audit.macs == load_student(clean / "int8.pt").deploy().macs(*size)
    assert audit.size == size


@pytest.mark.parametrize("name", ["anchor_x3", "edsr", "prelu_linear"])
@pytest.mark.parametrize("size", [(16, 16), (21, 40)])
def test_the_arena_is_what_litert_allocates_for_its_reference_kernels(float_student, folder, name, size):
    """Its optimised built-in kernels take scratch tensors beside, XNNPACK keeps its own memory."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = folder / f"{name}_arena.tflite"
    if not path.exists():
        export_tflite(float_student(name), path, "float32", sizes=[[16, 16], [21, 40]])
    interpreter = Interpreter(str(path), num_threads=1, experimental_op_resolver_type=OpResolverType.BUILTIN_REF)
    interpreter.resize_tensor_input(0, [1, *size, 3])
    interpreter.allocate_tensors()
    contents = audit_file(path).contents
    computed = [d for d in interpreter.get_tensor_details() if not contents.tensors[d["name"]].constant]
    views = [interpreter.tensor(detail["index"])() for detail in computed]
    starts = [view.__array_interface__["data"][0] for view in views]
    allocated = max(start + view.nbytes for start, view in zip(starts, views, strict=True)) - min(starts)
    assert audit_file(path, size=size).arena_bytes == pytest.approx(allocated, rel=0.02)


def test_a_plain_pixel_shuffle_is_found(naive):
    found = findings(audit_file(naive))
    (finding,) = [one for one in found if "transposes" in one.found]
    assert finding.found == "4 transposes"
    assert finding.layer in audit_file(naive).contents.producers
    assert any(one.found == "takes images of 16x16 only" for one in found)
    with pytest.raises(BadInput, match="--size 16x16, the only one"):
        audit_file(naive, size=(32, 32))


def test_delegates_take_what_their_lists_say(clean, tmp_path):
    import litert_torch

    for delegate in ("gpu", "nnapi"):
        audit = audit_file(clean / "int8.tflite", delegate=delegate)
        assert (audit.delegate, audit.partitions, audit.outside) == (delegate, 1, [])

    class Clamped(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).clamp(0, 1) * 0.5

    path = tmp_path / "clamped.tflite"
    with logged(tmp_path / "clamped.log", "clamped"):
        litert_torch.convert(Clamped(nn.Conv2d(3, 3, 1)).eval(), (torch.zeros(1, 3, 8, 8),)).export(str(path))
    audit = audit_file(path, delegate="gpu")
    assert (audit.outside, audit.partitions) == (["RELU_0_TO_1"], 2)
    (finding,) = [one for one in findings(audit) if "RELU_0_TO_1" in one.found]
    assert finding.layer == audit.outside_layers[0].partition(":")[2]
    assert finding.fix == "clip as relu(x) - relu(x - 1)"
    with pytest.raises(BadInput, match="expected a delegate out of xnnpack, gpu, nnapi, found 'npu'"):
        audit_file(path, delegate="npu")


def test_lists_name_operators_that_exist():
    import onnx

    from export.audit.tflite import names_by_value

    known = {
        "tflite": set(names_by_value("BuiltinOperator").values()),
        "onnx": {schema.name for schema in onnx.defs.get_all_schemas()},
    }
    for (_, form), listed in LISTS.items():
        names = {name for name in listed.operators if ":" not in name}
        assert names <= known[form], names - known[form]


def test_a_cut_graph_has_as_many_partitions_as_tflite_would_make():
    def operator(name: str, *inputs: str) -> Operator:
        return Operator(kind=name[0], name=name, inputs=inputs, outputs=(name,))

    def pieces(*operators: Operator) -> tuple[int, list[str]]:
        names = {"lr", *(one.name for one in operators)}
        contents = Contents(
            format="tflite", file_bytes=0, operators=operators, inputs=("lr",), outputs=(operators[-1].name,), size=None,
            any_size=True, tensors={name: Tensor(name=name, dtype="INT8", shape=(1,)) for name in names},
        )  # fmt: skip
        count, left = partitions(contents, lambda one: one.kind == "A")
        return count, [one.name for one in left]

    assert pieces(operator("A1", "lr"), operator("A2", "A1")) == (1, [])
    assert pieces(operator("A1", "lr"), operator("B1", "A1"), operator("A2", "B1")) == (2, ["B1"])
    # the second branch does not wait for the first one
    assert pieces(operator("B1", "lr"), operator("A1", "lr"), operator("A2", "B1", "A1")) == (2, ["B1"])
    assert pieces(operator("A1", "lr"), operator("B1", "A1"), operator("A2", "lr"), operator("B2", "A2")) == (
        1,
        ["B1", "B2"],
    )
    assert pieces(operator("B1", "lr")) == (0, ["B1"])


def test_a_file_that_runs_with_xnnpack_alone_is_a_warning(int8_student, tmp_path):
    path = tmp_path / "tanh.tflite"
    student = int8_student("prelu_tanh")
    export_tflite(student, path, "int8")
    audit = audit_file(path, size=(21, 40))
    assert audit.macs == student.deploy().macs(21, 40), "shapes at another size, without the kernels' own planning"
    finding = next(one for one in findings(audit) if "runs with XNNPACK only" in one.found)
    assert audit.contents.producers[finding.layer].kind == "LOGISTIC"


def test_a_published_peer_is_audited(shared_data):
    path = shared_data / "weights" / "abpn_x3_ptq_uint8.tflite"
    if not path.exists():
        pytest.skip("no published .tflite in shared/data/weights")
    audit = audit_file(path)
    assert (audit.input_type, audit.output_type, audit.float_operators) == ("UINT8", "UINT8", [])
    assert audit.macs == 42_345 * 64 * 64, "seven convolutions, 1x1 as stored, so 64x64"
    assert "MINIMUM" in audit.outside
