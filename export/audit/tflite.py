"""What is in a .tflite, and what LiteRT makes of it: the pieces that XNNPACK takes, and whether the size can change."""

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput
from export.audit.contents import Contents, Operator, Size, Tensor, chosen_size
from export.chatter import silenced
from export.metadata import read_tflite, tflite_model

NUMPY = {
    "BOOL": np.bool_, "INT8": np.int8, "UINT8": np.uint8, "INT16": np.int16, "UINT16": np.uint16, "INT32": np.int32,
    "UINT32": np.uint32, "INT64": np.int64, "UINT64": np.uint64, "FLOAT16": np.float16, "FLOAT32": np.float32,
    "FLOAT64": np.float64,
}  # fmt: skip
WEIGHTS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "TRANSPOSE_CONV": 1, "FULLY_CONNECTED": 1, "BATCH_MATMUL": 1}
TRIED = (24, 37)  # a size that nobody bakes in
COLOURS = (1, 3, 4)


def read_contents(path: Path, size: Size | None) -> Contents:
    """Reads a file. The shapes are what LiteRT's own planning gives for `size`.

    Raises:
        BadInput: not a readable .tflite, one that LiteRT refuses, or a size that it does not take.
    """
    model = tflite_model(path)
    graph = model.subgraphs[0]
    resizable = is_resizable(path)
    own = _own_size(graph)
    chosen = chosen_size(own, size, takes_any=resizable, where=path)
    shapes, refusal = _shapes(path, model, chosen if chosen != own else None)
    names = _unique([_text(tensor.name) for tensor in graph.tensors])
    tensors, seen = [], set()
    for i, tensor in enumerate(graph.tensors):
        tensors.append(_tensor(model, tensor, names[i], shapes.get(i), shared=tensor.buffer in seen))
        seen.add(tensor.buffer)
    return Contents(
        format="tflite",
        file_bytes=path.stat().st_size,
        operators=[_operator(model, operator, names) for operator in graph.operators],
        tensors={tensor.name: tensor for tensor in tensors},
        inputs=tuple(names[i] for i in graph.inputs),
        outputs=tuple(names[i] for i in graph.outputs),
        size=chosen,
        any_size=resizable,
        metadata=read_tflite(path),
        graphs=len(model.subgraphs),
        kernels_refuse=refusal,
    )


def operator_name(model: Any, operator: Any) -> str:
    """The type of an operator of a parsed .tflite, such as CONV_2D; of a custom one with its own name."""
    code = model.operatorCodes[operator.opcodeIndex]
    kind = names_by_value("BuiltinOperator").get(max(code.builtinCode, code.deprecatedBuiltinCode), "UNKNOWN")
    return f"CUSTOM {_text(code.customCode)}" if kind == "CUSTOM" else kind


@functools.cache
def names_by_value(enumeration: str) -> dict[int, str]:
    """An enumeration of the TFLite schema, such as 'BuiltinOperator' or 'TensorType'."""
    from ai_edge_litert import schema_py_generated as schema

    return {value: name for name, value in vars(getattr(schema, enumeration)).items() if not name.startswith("_")}


def xnnpack_partitions(path: Path) -> tuple[int | None, list[str]]:
    """Pieces that LiteRT hands to XNNPACK, and the operators that it keeps, as "KIND:layer", found by walking back from
    the output. (None, []) where LiteRT itself cannot run the file because of a custom operator."""
    interpreter = _interpreter(path)
    if interpreter is None:
        return None, []
    names = _unique([_text(tensor.name) for tensor in tflite_model(path).subgraphs[0].tensors])
    nodes = interpreter._get_ops_details()
    producers: dict[int, dict[str, Any]] = {}
    for node in sorted(nodes, key=lambda node: node["op_name"] == "DELEGATE"):  # delegates win over what they replaced
        producers.update({int(i): node for i in node["outputs"]})
    waiting = [detail["index"] for detail in interpreter.get_output_details()]
    used: dict[int, dict[str, Any]] = {}
    while waiting:
        node = producers.get(int(waiting.pop()))
        if node is not None and node["index"] not in used:
            used[node["index"]] = node
            waiting += [int(i) for i in node["inputs"] if i >= 0]
    kept = [node for _, node in sorted(used.items()) if node["op_name"] != "DELEGATE"]
    return len(used) - len(kept), [f"{node['op_name']}:{names[int(node['outputs'][0])]}" for node in kept]


def is_resizable(path: Path) -> bool:
    """Whether LiteRT runs it on an image of another size, and the output follows."""
    interpreter = _interpreter(path)
    if interpreter is None:
        return False
    given = interpreter.get_input_details()[0]
    before, axes = given["shape"], _image_axes(given["shape"])
    if axes is None:
        return False
    shape = before.copy()
    shape[list(axes)] = TRIED
    try:
        with silenced():
            interpreter.resize_tensor_input(given["index"], shape)
            interpreter.allocate_tensors()
            interpreter.set_tensor(given["index"], np.zeros(shape, given["dtype"]))
            interpreter.invoke()
        after = interpreter.get_output_details()[0]["shape"]
    except (RuntimeError, ValueError, IndexError):  # damaged files have no output, for one
        return False
    made = _image_axes(after)
    if made is None:
        return False
    (height, width), (h, w) = (after[list(made)], TRIED)
    return bool(height % h == 0 and height // h == width / w)


def _interpreter(path: Path, *, delegate: bool = True, content: bytes | None = None) -> Any:
    """With its tensors allocated; None for a file with custom operators that LiteRT does not have.

    Args:
        path: of the file.
        delegate: whether XNNPACK may take operators.
        content: to run in place of the file's.

    Raises:
        BadInput: it refuses the file for any other reason.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.AUTO if delegate else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        with silenced():
            source = {"model_path": str(path)} if content is None else {"model_content": content}
            interpreter = Interpreter(**source, num_threads=1, experimental_op_resolver_type=resolver)
            interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        model = tflite_model(path)
        unknown = any(words in str(error).lower() for words in ("custom op", "select tensorflow op"))
        if unknown and any(code.customCode for code in model.operatorCodes):
            return None
        reason = (str(error).splitlines() or ["no reason given"])[0]
        raise BadInput(
            f"expected a .tflite that LiteRT runs, found that it refuses {path} ({reason}): export it again."
        ) from error
    return interpreter


def with_outputs(model: Any, tensors: Sequence[int]) -> bytes:
    """The file with these tensors as its outputs, in that order. What computes them, XNNPACK included, stays the same."""
    from ai_edge_litert.tools import flatbuffer_utils

    graph = model.subgraphs[0]
    outputs, signatures = graph.outputs, model.signatureDefs
    graph.outputs, model.signatureDefs = np.array(tensors, np.int32), None
    try:
        return bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    finally:
        graph.outputs, model.signatureDefs = outputs, signatures


def _shapes(path: Path, model: Any, size: Size | None) -> tuple[dict[int, tuple[int, ...]], str | None]:
    """By index of the tensor, for the size that the file has or for another; and why LiteRT's built-in kernels refuse the
    file, if they do."""
    graph = model.subgraphs[0]
    shapes = {i: tuple(map(int, t.shape)) for i, t in enumerate(graph.tensors) if t.shape is not None}
    refusal = None
    try:
        interpreter = _interpreter(path, delegate=False)
    except BadInput as error:
        refusal = str(error.__cause__).splitlines()[0]
        made = sorted({int(i) for operator in graph.operators for i in operator.outputs})
        interpreter = _interpreter(path, content=with_outputs(model, made))
    if interpreter is None:
        return shapes, refusal
    given = interpreter.get_input_details()[0]
    if size is not None:
        axes = _image_axes(given["shape"])
        assert axes is not None, "a size was chosen"
        shape = given["shape"].copy()
        shape[list(axes)] = size
        with silenced():
            interpreter.resize_tensor_input(given["index"], shape)
            interpreter.allocate_tensors()
    if refusal:  # a delegate tells the sizes of its results only when it has run
        interpreter.invoke()
    count = len(graph.tensors)  # what follows are the interpreter's own scratch tensors
    details = [detail for detail in interpreter.get_tensor_details() if detail["index"] < count]
    return {**shapes, **{detail["index"]: tuple(map(int, detail["shape"])) for detail in details}}, refusal


def _own_size(graph: Any) -> Size | None:
    shape = graph.tensors[graph.inputs[0]].shape
    axes = None if shape is None else _image_axes(shape)
    return None if axes is None else (int(shape[axes[0]]), int(shape[axes[1]]))


def _image_axes(shape: Sequence[int] | NDArray[Any]) -> tuple[int, int] | None:
    """Where an image's height and width are: NHWC if the last axis can be colours, NCHW if the second can."""
    if len(shape) != 4:
        return None
    return (1, 2) if shape[3] in COLOURS else (2, 3) if shape[1] in COLOURS else None


def _tensor(model: Any, tensor: Any, name: str, shape: tuple[int, ...] | None, *, shared: bool) -> Tensor:
    data = model.buffers[tensor.buffer].data if 0 < tensor.buffer < len(model.buffers) else None
    dtype, values = names_by_value("TensorType").get(tensor.type, "UNKNOWN"), None
    if data is not None and dtype in NUMPY:
        values = np.frombuffer(bytes(data), NUMPY[dtype])
    elif data is not None and dtype == "INT4":
        pairs = np.frombuffer(bytes(data), np.uint8)
        values = np.stack([pairs & 15, pairs >> 4], axis=1).reshape(-1)
    scheme = tensor.quantization
    scales = () if scheme is None or scheme.scale is None else tuple(map(float, scheme.scale))
    zeros = () if scheme is None or scheme.zeroPoint is None else tuple(map(int, scheme.zeroPoint))
    return Tensor(
        name=name,
        dtype=dtype,
        shape=shape,
        values=values,
        stored_bytes=0 if data is None or shared else len(data),
        sparse=tensor.sparsity is not None,
        scales=scales,
        zero_points=zeros,
    )


def _operator(model: Any, operator: Any, names: Sequence[str]) -> Operator:
    kind = operator_name(model, operator)
    position = WEIGHTS.get(kind)
    return Operator(
        kind=kind,
        name=names[operator.outputs[0]] if len(operator.outputs) else kind,
        inputs=tuple(names[i] for i in operator.inputs if i >= 0),
        outputs=tuple(names[i] for i in operator.outputs),
        weight=None if position is None else names[operator.inputs[position]],
    )


def _unique(names: Sequence[str]) -> list[str]:
    """The same names, with #2 and so on after those that come again; a nameless tensor is called after its number."""
    seen: Counter[str] = Counter()
    made = []
    for index, name in enumerate(names):
        name = name or f"tensor_{index}"
        seen[name] += 1
        made.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return made


def _text(name: Any) -> str:
    return name.decode(errors="replace") if isinstance(name, bytes) else str(name or "")
