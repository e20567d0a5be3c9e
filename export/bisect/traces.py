"""The value of every step of a student, as an exported file computes it.

A .tflite runs in LiteRT and an .onnx in ONNX Runtime with these values as further outputs, which leaves the kernels what
they are; an .mlpackage is evaluated operator by operator.
"""

from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.deploy import INPUT, Clip, DeployGraph
from compress.errors import BadInput
from export.chatter import silenced
from export.metadata import ENTRY, Metadata, read_tflite, tflite_model

OUTPUT = "sr"
Pixels = NDArray[np.uint8]
Real = NDArray[np.float64]


@dataclass(frozen=True)
class Value:
    """Of one step, (C, H, W).

    Attributes:
        numbers: int8 integers (those of a uint8 file minus 128) or real numbers.
        integers: which of the two.
        grid: scale and zero point of integers, as the file has them for int8; None where it tells none.
    """

    numbers: Real
    integers: bool = False
    grid: tuple[float, int] | None = None


@dataclass(frozen=True)
class Trace:
    """What a file says about itself, and its values by step; a step without a value of its own is left out."""

    metadata: Metadata
    values: Mapping[str, Value]


def trace(path: Path, graph: DeployGraph, pixels: Pixels) -> Trace:
    """Runs a file that pocketsr exported.

    Args:
        path: a .tflite, .onnx or .mlpackage.
        graph: of the student that it was exported from.
        pixels: (H, W, 3) LR image.

    Raises:
        BadInput: another kind of file, a damaged one, one without our metadata, or one that does not take that size.
    """
    kinds = {".tflite": _tflite, ".onnx": _onnx, ".mlpackage": _coreml}
    run = kinds.get(path.suffix.lower())
    if run is None:
        raise BadInput(f"expected a {', '.join(kinds)}, found {path}: name an exported file.")
    return run(path, graph, pixels)


def metadata_in(path: Path) -> Metadata:
    """What a file says about itself. Raises BadInput for a file of another program, and as `trace`."""
    if path.suffix.lower() == ".tflite":
        found = read_tflite(path)
    elif path.suffix.lower() == ".onnx":
        found = _parsed({entry.key: entry.value for entry in _onnx_model(path).metadata_props}, path)
    elif path.suffix.lower() == ".mlpackage":
        from export.mlpackage import read_spec

        found = _parsed(read_spec(path)[0].description.metadata.userDefined, path)
    else:
        raise BadInput(f"expected a .tflite, .onnx, .mlpackage, found {path}: name an exported file.")
    if found is None:
        raise BadInput(
            f"expected a file that pocketsr exported, found one without its metadata in {path}: export the student."
        )
    return found


def _parsed(properties: Mapping[str, str], path: Path) -> Metadata | None:
    return Metadata.from_json(properties[ENTRY], str(path)) if ENTRY in properties else None


def _tflite(path: Path, graph: DeployGraph, pixels: Pixels) -> Trace:
    from ai_edge_litert.interpreter import Interpreter

    from export.audit.tflite import with_outputs
    from export.lowering.names import step_tensors

    metadata, model = metadata_in(path), tflite_model(path)
    tensors = {step: tensor for step, tensor in step_tensors(model, graph).items() if step != INPUT}
    wanted = sorted(set(tensors.values()))
    try:
        with silenced():
            interpreter = Interpreter(model_content=with_outputs(model, wanted), num_threads=1)
            given = interpreter.get_input_details()[0]
            interpreter.resize_tensor_input(given["index"], [1, *pixels.shape])
            interpreter.allocate_tensors()
            interpreter.set_tensor(given["index"], _image(pixels, given)[None])
            interpreter.invoke()
    except (ValueError, RuntimeError) as error:
        raise _refused(path, error) from error
    details = {detail["index"]: detail for detail in interpreter.get_output_details()}
    values = {}
    for step, tensor in tensors.items():
        numbers = interpreter.get_tensor(tensor)[0].transpose(2, 0, 1)
        values[step] = _value(numbers, details[tensor]["quantization"])
    return Trace(metadata, values)


def _image(pixels: Pixels, given: dict[str, Any]) -> NDArray[np.generic]:
    real = pixels.astype(np.float32) / 255
    if np.issubdtype(given["dtype"], np.floating):
        return real.astype(given["dtype"])
    (scale, zero), limits = given["quantization"], np.iinfo(given["dtype"])
    return np.clip(np.rint(real / scale) + zero, limits.min, limits.max).astype(given["dtype"])


def _value(numbers: NDArray[np.generic], grid: tuple[float, int] | None) -> Value:
    if not np.issubdtype(numbers.dtype, np.integer):
        return Value(numbers.astype(np.float64))
    shift = 128 if numbers.dtype == np.uint8 else 0
    return Value(numbers.astype(np.float64) - shift, True, (float(grid[0]), int(grid[1]) - shift) if grid else None)


def _onnx_model(path: Path) -> Any:
    from export.audit.onnx import read_model

    return read_model(path)


def _onnx(path: Path, graph: DeployGraph, pixels: Pixels) -> Trace:
    import onnx
    import onnxruntime

    metadata, model = metadata_in(path), _onnx_model(path)
    made = {name: node for node in model.graph.node for name in node.output}
    names = {step: _onnx_name(step, graph, made) for step in graph.inputs}
    names = {step: name for step, name in names.items() if name in made}
    outputs = sorted(set(names.values()) - {OUTPUT})
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    integers = metadata.input.dtype == "uint8"
    image = pixels if integers else pixels.astype(np.float32) / 255
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        found = session.run([*outputs, OUTPUT], {INPUT: image.transpose(2, 0, 1)[None]})
    except Exception as error:  # ONNX Runtime's errors have no common base
        raise _refused(path, error) from error
    arrays = dict(zip([*outputs, OUTPUT], found, strict=True))
    constants = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    values = {}
    for step, name in names.items():
        node = made[name]
        quantized = node.op_type == "QuantizeLinear" and set(node.input[1:]) <= set(constants)
        grid = (constants[node.input[1]].item(), constants[node.input[2]].item()) if quantized else None
        values[step] = _value(arrays[name][0], grid)
    return Trace(metadata, values)


def _onnx_name(step: str, graph: DeployGraph, made: Container[str]) -> str:
    """The exporter's name of a step's value."""
    clipped = isinstance(graph.operators[graph.output], Clip) and graph.inputs[graph.output] == (step,)
    if step == graph.output or (clipped and step not in made):  # integers of scale 1/255 are clipped by themselves
        return OUTPUT
    return f"{OUTPUT}_before" if step == OUTPUT else step


def _coreml(path: Path, graph: DeployGraph, pixels: Pixels) -> Trace:
    from export.mil import read_program, values

    metadata = metadata_in(path)
    _, program = read_program(path)
    lr = np.ascontiguousarray(pixels.transpose(2, 0, 1)[None], np.float32)
    operations = {one.outputs[0].name: one for one in program.functions["main"].operations}
    found: dict[str, Value] = {}
    try:
        for name, value in values(program, lr):
            step, value = _coreml_value(name, operations[name], value, graph)
            if step is not None and (step not in found or value.integers):
                found[step] = value
    except RuntimeError as error:  # torch's, of shapes that do not fit
        raise _refused(path, error) from error
    return Trace(metadata, found)


def _coreml_value(name: str, operation: Any, value: Any, graph: DeployGraph) -> tuple[str | None, Value]:
    """The step whose value an operator computes, or None. coremltools renames the operators of zero points that are 0,
    but not the constants that they read."""
    numbers = value[0].numpy().astype(np.float64) if getattr(value, "ndim", 0) == 4 else np.zeros((1, 1, 1))
    if operation.op_type == "quantize":
        step = operation.inputs["scale"].name.partition("_int8_scale")[0]
        zero = operation.inputs.get("zero_point")
        shift = 128 if operation.inputs["output_dtype"].val == "uint8" else 0
        scale = float(operation.inputs["scale"].val)
        grid = (scale, (0 if zero is None else int(zero.val)) - shift)
        return step if step in graph.inputs else None, Value(numbers - shift, True, grid)
    for ending in ("_cast_fp16", "_real", "_to_fp16"):
        name = name.removesuffix(ending)
    last = operation.op_type in ("round", "cast") and name == OUTPUT  # pixels
    return name if name in graph.inputs and not last else None, Value(numbers)


def _refused(path: Path, error: Exception) -> BadInput:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
    return BadInput(f"expected a file that runs, found that its engine refuses {path} ({reason}): export it again.")
