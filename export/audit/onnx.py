"""What is in an .onnx, and what ONNX Runtime's CPU provider makes of it."""

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import BadInput
from export.audit.contents import Contents, Operator, Size, Tensor, chosen_size
from export.chatter import silenced
from export.metadata import ENTRY, Metadata

WEIGHTS = {
    "Conv": 1, "FusedConv": 1, "ConvInteger": 1, "ConvTranspose": 1, "QLinearConv": 3, "Gemm": 1, "FusedGemm": 1,
    "MatMul": 1, "MatMulInteger": 1, "QLinearMatMul": 3,
}  # fmt: skip
COLOURS = (1, 3, 4)


def read_contents(path: Path, size: Size | None) -> Contents:
    """Reads a file. The shapes are what ONNX's shape inference gives for `size`; 'UNKNOWN' stands for a type that it
    does not tell.

    Raises:
        BadInput: not a readable .onnx, or a size that it does not take.
    """
    model = read_model(path)
    own, free = _own_size(model)
    chosen = chosen_size(own, size, takes_any=free, where=path)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    metadata = Metadata.from_json(properties[ENTRY], str(path)) if ENTRY in properties else None
    return _contents(_inferred(model, chosen), path, size=chosen, any_size=free, metadata=metadata)


def optimised(path: Path) -> Contents | str:
    """The graph that ONNX Runtime's CPU provider runs, without the changes of layout that depend on the machine; or in a
    word why it runs none.

    ONNX Runtime writes its graph after the optimisations of level 'extended', in which quantized operators have taken
    the place of what stands between DequantizeLinear and QuantizeLinear.
    """
    import onnx
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "optimised.onnx"
        options.optimized_model_filepath = str(file)
        try:
            with silenced():
                onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no common base
            return (str(error).splitlines() or [type(error).__name__])[0][:200]
        return _contents(_inferred(onnx.load(str(file)), None), path, size=None, any_size=True, metadata=None)


def read_model(path: Path) -> Any:
    """The parsed file. Raises BadInput for anything else."""
    try:
        import onnx
    except ModuleNotFoundError as error:
        raise BadInput("expected onnx to read an .onnx, found it missing: pip install onnx onnxruntime.") from error
    if not path.is_file():
        raise BadInput(f"expected an .onnx file, found nothing at {path}: check the path.")
    try:
        model = onnx.load(str(path))
        if not model.graph.node or not model.graph.output:
            raise ValueError("no graph in it")
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf's DecodeError, the checker's ValidationError, ValueError, OSError ...
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise BadInput(f"expected a whole .onnx, found something else in {path} ({line}): export it again.") from error
    return model


def _inferred(model: Any, size: Size | None) -> Any:
    """The model with the shapes of all values that can be told, for one image of that size."""
    import onnx

    made = onnx.ModelProto()
    made.CopyFrom(model)
    if size is not None:
        dims = _image(made).type.tensor_type.shape.dim
        nhwc = _is_nhwc(dims)
        for axis, value in zip((0, 1, 2) if nhwc else (0, 2, 3), (1, *size), strict=True):
            dims[axis].Clear()
            dims[axis].dim_value = value
        for known in (*made.graph.output, *made.graph.value_info):  # names that stand for another size
            for dim in known.type.tensor_type.shape.dim:
                if dim.HasField("dim_param"):
                    dim.Clear()
        if model.graph.value_info:
            del made.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(made, data_prop=True)
    except Exception:  # operators of other domains; shapes stay unknown
        return made


def _contents(model: Any, path: Path, **about: Any) -> Contents:
    import onnx

    graph = model.graph
    tensors = {i.name: _constant(i) for i in graph.initializer}
    tensors |= {i.values.name: _sparse(i) for i in graph.sparse_initializer}
    operators = []
    for node in graph.node:
        if node.op_type == "Constant":
            tensors |= _of_constant_node(node)
            continue
        names = tuple(name for name in node.input if name)
        position = WEIGHTS.get(node.op_type)
        operators.append(
            Operator(
                kind=node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}:{node.op_type}",
                name=next((name for name in node.output if name), node.name),
                inputs=names,
                outputs=tuple(name for name in node.output if name),
                weight=node.input[position] if position is not None and len(node.input) > position else None,
            )
        )
    inputs = [value for value in graph.input if value.name not in tensors]
    for value in (*inputs, *graph.output, *graph.value_info):
        tensors.setdefault(value.name, _described(value))
    for operator in operators:
        for name in operator.outputs:
            tensors.setdefault(name, Tensor(name=name, dtype=_guessed(operator, tensors), shape=None))
    quantized = _grids(operators, tensors)
    return Contents(
        format="onnx",
        file_bytes=path.stat().st_size + sum(file.stat().st_size for file in _outside(model, path, onnx)),
        operators=operators,
        tensors=tensors | quantized,
        inputs=tuple(value.name for value in inputs),
        outputs=tuple(value.name for value in graph.output),
        **about,
    )


def _outside(model: Any, path: Path, onnx: Any) -> set[Path]:
    """Files beside the .onnx that hold weights of it."""
    entries = [entry for i in model.graph.initializer for entry in i.external_data if entry.key == "location"]
    return {file for entry in entries if (file := path.parent / entry.value).is_file()}


def _constant(initializer: Any) -> Tensor:
    from onnx import numpy_helper

    values = numpy_helper.to_array(initializer)
    dtype = _dtype(initializer.data_type)
    if dtype in ("BFLOAT16",) or values.dtype.kind not in "fiub":
        values = np.asarray(values).astype(np.float32)
    bits = 4 if dtype.endswith("INT4") else 8 * values.dtype.itemsize
    shape = tuple(initializer.dims)
    return Tensor(
        name=initializer.name,
        dtype=dtype,
        shape=shape,
        values=values.reshape(-1),
        stored_bytes=-(-math.prod(shape) * bits // 8),
    )


def _sparse(initializer: Any) -> Tensor:
    from onnx import numpy_helper

    values, indices = (numpy_helper.to_array(part) for part in (initializer.values, initializer.indices))
    return Tensor(
        name=initializer.values.name,
        dtype=_dtype(initializer.values.data_type),
        shape=tuple(initializer.dims),
        values=values.reshape(-1),
        stored_bytes=values.nbytes + indices.nbytes,
        sparse=True,
    )


def _of_constant_node(node: Any) -> dict[str, Tensor]:
    (name,) = node.output
    for attribute in node.attribute:
        if attribute.name == "value":
            attribute.t.name = name
            return {name: _constant(attribute.t)}
        if attribute.name == "sparse_value":
            attribute.sparse_tensor.values.name = name
            return {name: _sparse(attribute.sparse_tensor)}
    return {name: Tensor(name=name, dtype="UNKNOWN", shape=None, values=np.zeros(0))}


def _described(value: Any) -> Tensor:
    kind = value.type.tensor_type
    shape = None
    if kind.HasField("shape"):
        shape = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
    return Tensor(name=value.name, dtype=_dtype(kind.elem_type), shape=shape)


def _dtype(number: int) -> str:
    import onnx

    return onnx.TensorProto.DataType.Name(number).replace("FLOAT", "FLOAT32") if number == 1 else (
        onnx.TensorProto.DataType.Name(number).replace("DOUBLE", "FLOAT64")
    )  # fmt: skip


def _guessed(operator: Operator, tensors: Mapping[str, Tensor]) -> str:
    """Of an operator that shape inference does not know: ONNX Runtime's own take the type of their last zero point, or of
    their first input."""
    kind = operator.kind.partition(":")[2]
    if kind.startswith("QLinear"):
        zeros = [t for n in operator.inputs if (t := tensors.get(n)) is not None and t.dtype in ("INT8", "UINT8")]
        return zeros[-1].dtype if zeros else "UINT8"
    first = tensors.get(operator.inputs[0]) if kind and operator.inputs else None
    return first.dtype if first else "UNKNOWN"


def _grids(operators: list[Operator], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Quantized values and constants, with the scales that QuantizeLinear or DequantizeLinear gives them."""
    found = {}
    for operator in operators:
        if operator.kind not in ("QuantizeLinear", "DequantizeLinear") or len(operator.inputs) < 2:
            continue
        name = operator.outputs[0] if operator.kind == "QuantizeLinear" else operator.inputs[0]
        scale = tensors.get(operator.inputs[1])
        zero = tensors.get(operator.inputs[2]) if len(operator.inputs) > 2 else None
        given = tensors.get(name)
        if given is None or scale is None or scale.values is None:
            continue
        zeros = np.zeros(scale.values.size) if zero is None or zero.values is None else zero.values
        found[name] = Tensor(
            **{**vars(given), "scales": tuple(map(float, scale.values)), "zero_points": tuple(map(int, zeros))}
        )
    return found


def _image(model: Any) -> Any:
    constants = {i.name for i in model.graph.initializer}
    return next(value for value in model.graph.input if value.name not in constants)


def _own_size(model: Any) -> tuple[Size | None, bool]:
    """(height, width) of the image with -1 for what is free, and whether both are; None if the input is no image."""
    constants = {i.name for i in model.graph.initializer}
    if all(value.name in constants for value in model.graph.input):
        return None, False
    dims = _image(model).type.tensor_type.shape.dim
    if len(dims) != 4:
        return None, False
    sides = dims[1:3] if _is_nhwc(dims) else dims[2:4]
    height, width = (dim.dim_value if dim.HasField("dim_value") else -1 for dim in sides)
    return (height, width), height < 0 and width < 0


def _is_nhwc(dims: Any) -> bool:
    return dims[1].dim_value not in COLOURS and dims[3].dim_value in COLOURS
