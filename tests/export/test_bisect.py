"""Bisection names the very layer that a fault was planted in, in every format, and finds nothing in whole files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from ai_edge_litert.tools import flatbuffer_utils
from onnx import numpy_helper
from PIL import Image

from compress.checkpoint import Student, save_student
from compress.deploy import Clip, Conv
from compress.errors import BadInput
from export.bisect.__main__ import main, photograph
from export.bisect.compare import Comparison, compare
from export.bisect.traces import trace
from export.coreml import export_coreml
from export.lowering.names import step_tensors
from export.metadata import Precision, tflite_model
from export.onnx import export_onnx
from export.tflite import export_tflite
from tests.conftest import Command
from tests.export.conftest import STUDENTS

Exported = Callable[[str, Precision, str], tuple[Student, Path]]
WRITERS: dict[str, Callable[..., Any]] = {".tflite": export_tflite, ".onnx": export_onnx, ".mlpackage": export_coreml}


@pytest.fixture(scope="module")
def exported(float_student: Callable[[str], Student], int8_student: Callable[[str], Student], folder: Path) -> Exported:
    def export(name: str, precision: Precision, suffix: str) -> tuple[Student, Path]:
        student = int8_student(name) if precision == "int8" else float_student(name)
        path = folder / f"{name}_{precision}_bisected{suffix}"
        if not path.exists():
            WRITERS[suffix](student, path, precision)
        return student, path

    return export


def _bisected(student: Student, path: Path) -> Comparison:
    pixels = photograph(None, "any")
    return compare(student, trace(path, student.deploy(), pixels), pixels)


FLOAT_CASES = [(name, "float32") for name in ("anchor_x4", "edsr", "prelu_linear", "prelu_tanh")]


@pytest.mark.parametrize(("name", "precision"), [*((name, "int8") for name in STUDENTS), *FLOAT_CASES])
def test_every_step_of_a_whole_tflite_is_found_and_right(exported, name, precision):
    student, path = exported(name, precision, ".tflite")
    found = _bisected(student, path)
    assert found.missing == ()
    assert found.culprit is None, found.culprit
    assert [layer.name for layer in found.layers] == list(student.deploy().inputs)


@pytest.mark.parametrize("name", list(STUDENTS))
def test_tensors_of_a_tflite_are_called_after_the_steps(exported, name):
    student, path = exported(name, "int8", ".tflite")
    model = tflite_model(path)
    names = [tensor.name.decode() for tensor in model.subgraphs[0].tensors]
    graph = student.deploy()
    own = {step for step, operator, _ in graph.steps() if not isinstance(operator, Clip)} - {"sr", graph.output}
    own -= (
        set(graph.inputs[graph.output]) if isinstance(graph.operators[graph.output], Clip) else set()
    )  # is "sr" itself
    assert set(names) >= own | {"lr", "sr"}
    assert set(names) >= {f"{step}/1" for step, operator, _ in graph.steps() if isinstance(operator, Conv)}
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("suffix", [".onnx", ".mlpackage"])
@pytest.mark.parametrize(
    ("name", "precision"), [("anchor_x4", "int8"), ("prelu_linear", "int8"), ("anchor_x4", "float16")]
)
def test_whole_files_of_other_formats_are_right(exported, name, precision, suffix):
    student, path = exported(name, precision, suffix)
    found = _bisected(student, path)
    assert found.culprit is None, found.culprit
    clips = {step for step, operator, _ in student.deploy().steps() if isinstance(operator, Clip)}
    assert set(found.missing) <= clips
    assert len(found.layers) > 4


def _larger(weights: np.ndarray, student: Student, step: str) -> np.ndarray:
    """(out, in, k, k) with one weight multiplied by 1.1: between the liveliest channels, for in a dead one it changes
    nothing; of those that stay int8, the largest."""
    x = torch.tensor(photograph(None, "any")).permute(2, 0, 1)[None].float() / 255
    values = dict(student.deploy().values(x))
    out = int(values[step].std(dim=(0, 2, 3)).argmax())
    given = int(values[student.deploy().inputs[step][0]].mean(dim=(0, 2, 3)).argmax())
    changed = weights.copy()
    kernel = changed[out, given]
    fits = np.abs(kernel) <= (115 if weights.dtype == np.int8 else np.inf)
    at = np.unravel_index(np.argmax(np.abs(kernel.astype(np.float64)) * fits), kernel.shape)
    kernel[at] = np.rint(kernel[at] * 1.1) if weights.dtype == np.int8 else kernel[at] * np.float32(1.1)
    assert (changed != weights).sum() == 1
    return changed


def _plant_in_tflite(path: Path, target: Path, change: Callable[..., None], student: Student, step: str) -> Path:
    """`change` gets the model, the operator that computes the step, the student and the step."""
    model = tflite_model(path)
    tensor = step_tensors(model, student.deploy())[step]
    change(model, next(o for o in model.subgraphs[0].operators if tensor in o.outputs), student, step)
    target.write_bytes(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    return target


def _weight_of_tflite(model: Any, operator: Any, student: Student, step: str) -> None:
    tensor = model.subgraphs[0].tensors[operator.inputs[1]]
    buffer = model.buffers[tensor.buffer]
    kind = np.float32 if tensor.type == 0 else np.int8
    weights = np.frombuffer(bytes(buffer.data), kind).reshape(tensor.shape).transpose(0, 3, 1, 2)
    buffer.data = list(_larger(weights, student, step).transpose(0, 2, 3, 1).tobytes())


def _zero_of_tflite(model: Any, operator: Any, student: Student, step: str) -> None:
    model.subgraphs[0].tensors[operator.outputs[0]].quantization.zeroPoint = [-113]


@pytest.mark.parametrize("position", [0, 1, -1])
@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", ["anchor_x4", "edsr", "prelu_linear"])
def test_one_weight_ten_per_cent_too_large_is_found_in_its_layer_of_a_tflite(
    exported, tmp_path, name, precision, position
):
    student, path = exported(name, precision, ".tflite")
    step = [step for step, operator, _ in student.deploy().steps() if isinstance(operator, Conv)][position]
    faulty = _plant_in_tflite(path, tmp_path / "faulty.tflite", _weight_of_tflite, student, step)
    culprit = _bisected(student, faulty).culprit
    assert culprit is not None
    assert culprit.name == step


def test_a_wrong_zero_point_is_found_in_its_layer_of_a_tflite(exported, tmp_path):
    student, path = exported("relu_linear", "int8", ".tflite")
    step = [step for step, operator, _ in student.deploy().steps() if isinstance(operator, Conv)][1]
    faulty = _plant_in_tflite(path, tmp_path / "faulty.tflite", _zero_of_tflite, student, step)
    culprit = _bisected(student, faulty).culprit
    assert culprit is not None
    assert culprit.name == step
    assert "zero point -113 instead of " in culprit.grid


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_faults_of_an_onnx_are_found_in_their_layer(exported, tmp_path, precision):
    student, path = exported("anchor_x4", precision, ".onnx")
    step = [step for step, operator, _ in student.deploy().steps() if isinstance(operator, Conv)][1]
    model = onnx.load(str(path))
    constant = next(one for one in model.graph.initializer if one.name in (f"{step}_weight", f"{step}_weight_int8"))
    constant.CopyFrom(numpy_helper.from_array(_larger(numpy_helper.to_array(constant), student, step), constant.name))
    onnx.save(model, str(tmp_path / "faulty.onnx"))
    assert _bisected(student, tmp_path / "faulty.onnx").culprit.name == step


def test_a_zero_point_that_one_reader_gets_wrong_is_found_at_that_reader(exported, tmp_path):
    student, path = exported("edsr", "int8", ".onnx")
    model = onnx.load(str(path))
    sums = [step for step, inputs in student.deploy().inputs.items() if len(inputs) == 2]
    reader = next(n for n in model.graph.node if n.op_type == "DequantizeLinear" and n.name.endswith(f"_for_{sums[0]}"))
    zero = next(one for one in model.graph.initializer if one.name == reader.input[2])
    wrong = numpy_helper.to_array(zero).astype(int) + 4
    model.graph.initializer.append(numpy_helper.from_array(wrong.astype(np.uint8), "wrong"))
    reader.input[2] = "wrong"
    onnx.save(model, str(tmp_path / "faulty.onnx"))
    assert _bisected(student, tmp_path / "faulty.onnx").culprit.name == sums[0]


def test_a_fault_of_a_package_is_found_in_its_layer(exported, tmp_path):
    student, path = exported("anchor_x4", "int8", ".mlpackage")
    step = [step for step, operator, _ in student.deploy().steps() if isinstance(operator, Conv)][1]
    weight = student.quantization.layers[step].weight.numpy()
    faulty = tmp_path / "faulty.mlpackage"
    shutil.copytree(path, faulty)
    blob = next(faulty.rglob("weight.bin"))
    content = blob.read_bytes()
    assert content.count(weight.tobytes()) == 1
    blob.write_bytes(content.replace(weight.tobytes(), _larger(weight, student, step).tobytes()))
    assert _bisected(student, faulty).culprit.name == step


def test_the_command_prints_the_culprit_and_writes_plot_and_json(exported, folder, tmp_path, command: Command):
    student, path = exported("edsr", "float32", ".tflite")
    step = [step for step, operator, _ in student.deploy().steps() if isinstance(operator, Conv)][1]
    faulty = _plant_in_tflite(path, tmp_path / "faulty.tflite", _weight_of_tflite, student, step)
    done = command("export.bisect", folder / "edsr.pt", faulty, "--json", tmp_path / "b.json")
    assert (done.returncode, done.stderr) == (1, "")
    assert f"first layer that leaves the reference: {step} (Conv), error " in done.stdout
    written = json.loads((tmp_path / "b.json").read_text())
    assert written["culprit"] == step
    assert [layer["name"] for layer in written["layers"]] == list(student.deploy().inputs)
    with Image.open(tmp_path / "bisect.png") as picture:
        assert picture.format == "PNG"
        assert len(set(picture.convert("RGB").getdata())) > 3
    done = command("export.bisect", folder / "edsr.pt", path, "--out", tmp_path / "whole.png")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no layer leaves the reference" in done.stdout


def test_a_photograph_is_cut_to_what_the_file_takes(photographs):
    assert photograph(photographs / "astronaut.png", "any").shape == (96, 96, 3)
    assert photograph(photographs / "astronaut.png", [[20, 31]]).shape == (20, 31, 3)
    with pytest.raises(BadInput, match="at least 200x200 for this file, found 128x128"):
        photograph(photographs / "astronaut.png", [[200, 200]])
    with pytest.raises(BadInput, match="expected a photograph for --image"):
        photograph(Path(__file__), "any")


def test_what_cannot_be_bisected_is_refused(exported, folder, tmp_path):
    from tests.export.conftest import refused

    student, path = exported("anchor_x4", "int8", ".onnx")
    save_student(student, tmp_path / "int8.pt")
    refused(main, tmp_path, "found a float one", folder / "anchor_x4.pt", path)
    refused(main, tmp_path, "name an exported file", tmp_path / "int8.pt", tmp_path / "int8.pt")
    refused(main, tmp_path, "tolerance of 0 or more", tmp_path / "int8.pt", path, tolerance=-1.0)
    (tmp_path / "a.tflite").write_text("no model")
    refused(main, tmp_path, "some other kind of file", tmp_path / "int8.pt", tmp_path / "a.tflite")
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    refused(main, tmp_path, "without its metadata", tmp_path / "int8.pt", tmp_path / "foreign.onnx")
