"""What is in an .mlpackage with an ML Program."""

from pathlib import Path
from typing import Any

import numpy as np

from export.audit.contents import Contents, Operator, Size, Tensor, chosen_size
from export.metadata import ENTRY, Metadata
from export.mlpackage import load_program, read_spec

WEIGHTS = {"conv": "weight", "conv_transpose": "weight", "linear": "weight", "matmul": "y"}
DTYPES = {"fp16": "FLOAT16", "fp32": "FLOAT32", "fp64": "FLOAT64", "str": "STRING"}
DATA = ("quantized_data", "data", "nonzero_data", "indices", "lut")  # of constexpr operators: what they unpack


def read_contents(path: Path, size: Size | None) -> Contents:
    """Reads a package. The shapes are what coremltools' type inference gives for `size`.

    Raises:
        BadInput: not a readable .mlpackage with an ML Program, or a size that it does not take.
    """
    spec, weights = read_spec(path)
    main = spec.mlProgram.functions["main"]
    image = spec.description.input[0].type
    own, free, sizes = _own_size(image)
    chosen = size if size in sizes else chosen_size(own, size, takes_any=free, where=path)
    if chosen is not None and main.inputs[0].type.tensorType.rank == 4:
        for axis, side in zip((2, 3), chosen, strict=True):
            main.inputs[0].type.tensorType.dimensions[axis].constant.size = side
    program = load_program(spec, weights, path).functions["main"]
    operators, tensors = [], {name: _tensor(var) for name, var in program.inputs.items()}
    for operation in program.operations:
        tensors |= {var.name: _tensor(var) for var in operation.outputs}
        if operation.op_type == "const":
            tensors |= {var.name: _constant(var) for var in operation.outputs}
            continue
        tensors |= _grid(operation, tensors)
        operators.append(_operator(operation))
    for operation in program.operations:
        if operation.op_type == "constexpr_sparse_to_dense":
            tensors |= {name: _as_sparse(tensors[name]) for name in _names(operation.inputs["nonzero_data"])}
    written = spec.description.metadata.userDefined.get(ENTRY)
    return Contents(
        format="coreml",
        file_bytes=sum(file.stat().st_size for file in path.rglob("*") if file.is_file()),
        operators=operators,
        tensors=tensors,
        inputs=tuple(program.inputs),
        outputs=tuple(var.name for var in program.outputs),
        size=chosen,
        any_size=free,
        pictures=image.WhichOneof("Type") == "imageType",
        metadata=Metadata.from_json(written, str(path)) if written else None,
        graphs=len(spec.mlProgram.functions),
    )


def _own_size(kind: Any) -> tuple[Size | None, bool, list[Size]]:
    """(its usual size, whether it takes a range of sizes, the sizes that it names)."""
    if kind.WhichOneof("Type") == "imageType":
        image = kind.imageType
        flexible = image.WhichOneof("SizeFlexibility")
        named = [(one.height, one.width) for one in image.enumeratedSizes.sizes]
        return (image.height, image.width), flexible == "imageSizeRange", named
    array = kind.multiArrayType
    flexible = array.WhichOneof("ShapeFlexibility")
    named = [tuple(one.shape)[2:4] for one in array.enumeratedShapes.shapes]
    shape = tuple(array.shape)
    return (shape[2], shape[3]) if len(shape) == 4 else None, flexible == "shapeRange", named


def _tensor(var: Any) -> Tensor:
    shape = tuple(int(side) if isinstance(side, (int, np.integer)) else -1 for side in var.shape)
    return Tensor(name=var.name, dtype=_dtype(var), shape=shape)


def _dtype(var: Any) -> str:
    from coremltools.converters.mil.mil import types

    name = types.builtin_to_string(var.dtype)
    return DTYPES.get(name, name.upper())


def _constant(var: Any) -> Tensor:
    values = np.asarray(var.val)
    numeric = values.dtype.kind in "fiub"
    dtype = _dtype(var)
    bits = 4 if dtype.endswith("INT4") else 8 * values.dtype.itemsize
    return Tensor(
        name=var.name,
        dtype=dtype,
        shape=tuple(values.shape),
        values=values.reshape(-1) if numeric else None,
        stored_bytes=-(-values.size * bits // 8) if numeric else 1,
    )


def _as_sparse(tensor: Tensor) -> Tensor:
    return Tensor(**{**vars(tensor), "sparse": True})


def _operator(operation: Any) -> Operator:
    given = {key: _names(value) for key, value in operation.inputs.items() if value is not None}
    weight = WEIGHTS.get(operation.op_type)
    return Operator(
        kind=operation.op_type,
        name=operation.outputs[0].name,
        inputs=tuple(name for names in given.values() for name in names),
        outputs=tuple(var.name for var in operation.outputs),
        weight=given[weight][0] if weight in given else None,
    )


def _names(value: Any) -> list[str]:
    return [one.name for one in value] if isinstance(value, (list, tuple)) else [value.name]


def _grid(operation: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The quantized value that an operator makes or unpacks, with its scales."""
    if operation.op_type == "quantize":
        name = operation.outputs[0].name
    elif operation.op_type in ("dequantize", "constexpr_affine_dequantize", "constexpr_blockwise_shift_scale"):
        key = {"dequantize": "input", "constexpr_affine_dequantize": "quantized_data"}.get(operation.op_type, "data")
        name = operation.inputs[key].name
    else:
        return {}
    scale, zero = operation.inputs["scale"].val, operation.inputs.get("zero_point") or operation.inputs.get("offset")
    if scale is None or name not in tensors:
        return {}
    scales = np.asarray(scale, np.float64).reshape(-1)
    zeros = np.zeros(1, int) if zero is None else np.asarray(zero.val).reshape(-1)
    grid = {"scales": tuple(map(float, scales)), "zero_points": tuple(map(int, zeros))}
    return {name: Tensor(**{**vars(tensors[name]), **grid})}
