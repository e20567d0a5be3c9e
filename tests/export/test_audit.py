"""The audit tells what is in a file, whatever its name or its flags say, and fails where the file is not what it should be."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ai_edge_litert.tools import flatbuffer_utils
from torch import nn

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.audit import audit_file, audit_tflite
from export.audit.contents import Contents, Operator, Tensor
from export.audit.delegates import LISTS
from export.audit.findings import findings
from export.audit.graphs import partitions
from export.audit.rules import broken_rules, parse_rules
from export.chatter import logged
from export.metadata import ENTRY, tflite_model
from export.tflite import export_tflite
from tests.conftest import Command


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """A folder with our own float32.tflite and int8.tflite of one student."""
    folder = tmp_path_factory.mktemp("audit")
    torch.manual_seed(0)
    network = build("anchor", {"scale": 2, "channels": 8, "blocks": 1})
    with torch.no_grad():
        for convolution in network.convolutions():  # different ones: equal constants share one buffer
            convolution.bias.uniform_(-0.1, 0.1)
    student = Student.of(network)
    quantized = quantize_student(student, calibration_crops(str(photographs), 2, count=16, side=24))
    for name, one in (("float32", student), ("int8", quantized)):
        save_student(one, folder / f"{name}.pt")
        export_tflite(load_student(folder / f"{name}.pt"), folder / f"{name}.tflite", name)
    return folder


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float .tflite as litert-torch makes it of plain torch code, PixelShuffle and all."""
    import litert_torch

    folder = tmp_path_factory.mktemp("naive")
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    with logged(folder / "naive.log", "naive"):
        litert_torch.convert(network, (torch.zeros(1, 3, 16, 16),)).export(str(folder / "naive.tflite"))
    return folder / "naive.tflite"


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory, clean: Path) -> Path:
    """A file with INT8 images and an operator that computes on floats in between: made with the integer convolutions of
    a student, and one multiplication that has no quantizers around it."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    from export.lowering.tflite import Q, TfliteGraph

    folder = tmp_path_factory.mktemp("island")
    student = load_student(clean / "int8.pt")

    class Island(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = TfliteGraph(student.deploy(), student.quantization)

        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            sr = torch.exp(self.graph(lr)) - 1
            pixels = (1 / 255, -128, -128, 127, torch.int8)
            return Q.dequantize_per_tensor(Q.quantize_per_tensor(sr, *pixels), *pixels)

    scheme = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    model = litert_torch.to_channel_last_io(Island().eval(), args=[0], outputs=[0]).eval()
    with logged(folder / "island.log", "island"):
        options = {"quant_config": QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(scheme))}
        litert_torch.convert(model, (torch.zeros(1, 16, 16, 3),), **options).export(str(folder / "island.tflite"))
    return folder / "island.tflite"


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


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: b"", "some other kind of file"),
        (lambda content: b"no model at all", "some other kind of file"),
        (lambda content: b"\x89PNG" + content[4:], "expected a"),
        (lambda content: content[:9], "expected a"),
        (lambda content: content[: len(content) // 3], "expected a"),
        (lambda content: content[: len(content) * 9 // 10], "expected a"),
        (lambda content: content[:8] + bytes(len(content) - 8), "expected a"),
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
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="found nothing at"):
        audit_tflite(tmp_path / "none.tflite")


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
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
