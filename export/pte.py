"""What a .pte really holds: its methods, what they leave outside of XNNPACK, and XNNPACK's operators and integers inside.

Read with ExecuTorch's own deserialization, and the delegate's payloads with the schema that the backend is installed with.
"""

import functools
import importlib.util
import re
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput
from export.metadata import Sizes

METADATA = "pocketsr_json"
"""The constant method that gives the metadata: a method's name must be an identifier."""
BACKEND = "XnnpackBackend"
FIRST = "forward"
DTYPES = {1: "int8", 5: "float16", 6: "float32"}  # of executorch.exir.schema.ScalarType


@dataclass(frozen=True)
class Weights:
    """What a convolution in the delegate multiplies with.

    Attributes:
        values: (out, k, k, in), int8 or float32.
        scale: float32, (out,), or (1,) where one serves all; None for real weights.
        given: (scale, zero point) of the int8 values that it takes; None for real ones.
    """

    values: NDArray[Any]
    scale: NDArray[np.float32] | None
    given: tuple[float, int] | None


@dataclass(frozen=True)
class PteMethod:
    """One method of a program: an image of one size, or of any up to it.

    Attributes:
        input, output: dtype and shape; shapes of a resizable method are the largest.
        resizable: whether it takes smaller images.
        delegates: calls of XNNPACK.
        inside: operators in them, by XNNPACK's name without its prefix.
        outside: kernels that ExecuTorch itself runs, by name.
        weights: of the convolutions in order.
        scales: (scale, zero point) of the int8 values that operators in the delegates give, with those of the input.
    """

    input: tuple[str, tuple[int, ...]]
    output: tuple[str, tuple[int, ...]]
    resizable: bool
    delegates: int
    inside: Counter[str]
    outside: Counter[str]
    weights: tuple[Weights, ...]
    scales: frozenset[tuple[float, int]]


def method_names(sizes: Sizes) -> dict[tuple[int, int] | None, str]:
    """Names of the methods that take images, by their (height, width); of 'any' there is one, by None."""
    if sizes == "any":
        return {None: FIRST}
    names = [FIRST, *(f"{FIRST}_{height}x{width}" for height, width in sizes[1:])]
    return {(height, width): name for (height, width), name in zip(sizes, names, strict=True)}


def read_pte(path: str | Path) -> dict[str, PteMethod]:
    """The methods of a .pte that take images, by name. Raises BadInput for another kind of file."""
    from executorch.exir._serialize._program import deserialize_pte_binary

    path = Path(path)
    try:
        file = deserialize_pte_binary(path.read_bytes())
        return {
            plan.name: _method(file, plan) for plan in file.program.execution_plan if plan.inputs and plan.delegates
        }
    except Exception as error:  # flatbuffers raises struct.error, IndexError, TypeError... on damaged content
        raise BadInput(f"expected a whole .pte, found another kind of file in {path}: check the path.") from error


def _method(file: Any, plan: Any) -> PteMethod:
    calls = [one.instr_args for chain in plan.chains for one in chain.instructions]
    kernels = [plan.operators[call.op_index] for call in calls if type(call).__name__ == "KernelCall"]
    delegates = [call.delegate_index for call in calls if type(call).__name__ == "DelegateCall"]
    foreign = Counter(plan.delegates[i].id for i in delegates if plan.delegates[i].id != BACKEND)
    given, made = (plan.values[values[0]].val for values in (plan.inputs, plan.outputs))
    graphs = [
        _graph(file.program.backend_delegate_data[plan.delegates[i].processed.index].data)
        for i in delegates
        if plan.delegates[i].id == BACKEND
    ]
    named = {key: file.named_data.buffers[entry.buffer_index] for key, entry in file.named_data.pte_data.items()}
    return PteMethod(
        input=(DTYPES.get(given.scalar_type, str(given.scalar_type)), tuple(given.sizes)),
        output=(DTYPES.get(made.scalar_type, str(made.scalar_type)), tuple(made.sizes)),
        resizable=bool(given.shape_dynamism),
        delegates=len(graphs),
        inside=Counter(_operator(node) for graph in graphs for node in graph.xnodes),
        outside=foreign + Counter(".".join(filter(None, (one.name, one.overload))) for one in kernels),
        weights=tuple(weights for graph in graphs for weights in _weights(graph, named)),
        scales=frozenset(scale for graph in graphs for scale in _scales(graph)),
    )


@functools.cache
def _schema() -> Any:
    """Python's view of XNNPACK's graphs, made by the flatc and the schema that ExecuTorch brings."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import _get_schema_bytes
    from executorch.exir._serialize._flatbuffer import _run_flatc

    with tempfile.TemporaryDirectory() as folder:
        schema, made = Path(folder) / "schema.fbs", Path(folder) / "schema_generated.py"
        schema.write_bytes(_get_schema_bytes())
        _run_flatc(["--python", "--gen-object-api", "--gen-onefile", "-o", folder, str(schema)])
        spec = importlib.util.spec_from_file_location("xnnpack_schema", made)
        assert spec is not None
        assert spec.loader is not None
        module: Any = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    for union in (
        "XNodeUnion",
        "XValueUnion",
        "XNNQuantParams",
    ):  # flatc calls by this name, and defines XnodeUnionCreator
        defined = re.sub("(?<=^X)[A-Z]+", lambda capitals: capitals[0].lower(), union)
        setattr(module, f"{union}Creator", getattr(module, f"{defined}Creator"))
    return module


def _graph(payload: bytes) -> Any:
    """XNNPACK's graph (`XNNGraphT`)."""
    from executorch.backends.xnnpack.serialization.xnnpack_graph_serialize import XNNHeader

    header = XNNHeader.from_bytes(payload[: XNNHeader.EXPECTED_LENGTH])
    return _schema().XNNGraphT.InitFromPackedBuf(payload, header.flatbuffer_offset)


def _operator(node: Any) -> str:
    """Name of a node's operator."""
    kinds = vars(_schema().XNodeUnion)
    return next(name for name, number in kinds.items() if number == node.xnodeUnionType).removeprefix("XNN")


def _weights(graph: Any, named: dict[str, bytes]) -> list[Weights]:
    values = {tensor.idOut: (tensor, params) for tensor, params in _tensors(graph)}
    found = []
    for node in graph.xnodes:
        if not hasattr(node.xnodeUnion, "filterId"):
            continue
        tensor, params = values[node.xnodeUnion.filterId]
        _, given = values[node.xnodeUnion.input1Id]
        integer, scale = tensor.datatype in _integers(), None
        if hasattr(params, "numScales"):
            scale = np.frombuffer(_content(graph, params.scaleBufferIdx, named), np.float32)
        elif params:
            scale = np.array([params.scale], np.float32)
        half = tensor.datatype == _schema().XNNDatatype.xnn_datatype_fp16
        kind = np.int8 if integer else np.float16 if half else np.float32
        content = np.frombuffer(_content(graph, tensor.constantBufferIdx, named), kind)
        grid = (given.scale, given.zeroPoint) if given else None
        found.append(Weights(content.reshape(tensor.dims), scale, grid))
    return found


def _content(graph: Any, index: int, named: dict[str, bytes]) -> bytes:
    return named[graph.constantData[index].namedKey.decode()]


def _scales(graph: Any) -> set[tuple[float, int]]:
    return {
        (params.scale, params.zeroPoint)
        for tensor, params in _tensors(graph)
        if tensor.datatype == _schema().XNNDatatype.xnn_datatype_qint8 and not tensor.constantBufferIdx
    }


def _integers() -> tuple[int, ...]:
    kinds = _schema().XNNDatatype
    return kinds.xnn_datatype_qint8, kinds.xnn_datatype_qcint8


def _tensors(graph: Any) -> list[tuple[Any, Any]]:
    """(tensor, its quantization or None) of every value."""
    values = [value.xvalueUnion for value in graph.xvalues]
    return [(getattr(value, "tensorValue", value), getattr(value, "quantParams", None)) for value in values]
