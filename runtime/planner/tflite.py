"""A .tflite read for the planner: its operators, and the shapes that its values have for an image of a given size."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.errors import BadInput
from export.metadata import Metadata, read_tflite, tflite_model
from runtime.planner.graph import Graph, Step, Value, rounded

ITEMS = {"FLOAT32": 4, "FLOAT16": 2, "INT32": 4, "UINT8": 1, "INT64": 8, "BOOL": 1, "INT16": 2, "INT8": 1, "UINT32": 4}


class TfliteNetwork:
    """The network of a .tflite of ours, for images of any size that it takes.

    Attributes:
        metadata: of the file.
        own: (height, width) of the image that its shapes are written for.

    Raises:
        BadInput: no readable .tflite, or not of ours.
    """

    def __init__(self, path: Path):
        model = tflite_model(path)
        metadata = read_tflite(path)
        if metadata is None:
            raise BadInput(
                f"expected a .tflite that pocketsr exported, found one without its metadata in {path}: export the "
                "student with `python -m export.tflite`."
            )
        self.metadata: Metadata = metadata
        with whole(path):
            self._read(model)

    def graph(self, height: int, width: int) -> Graph:
        """The network for one image of that size."""
        values = {name: self._sized(name, height, width) for name in self._values}
        return Graph(self._steps, values, self._image, self._result)

    def _read(self, model: Any) -> None:
        graph = model.subgraphs[0]
        kinds, types = _names("BuiltinOperator"), _names("TensorType")
        self._values: dict[str, Value] = {}
        for number, tensor in enumerate(graph.tensors):
            dtype = types[tensor.type]
            shape = () if tensor.shape is None else tuple(int(side) for side in tensor.shape)
            data = model.buffers[tensor.buffer].data
            fixed = data is not None and len(data) > 0
            if dtype not in ITEMS or any(side < 1 for side in shape):
                raise ValueError(f"a tensor of {dtype} and shape {shape}")
            self._values[str(number)] = Value(dtype.lower(), shape, ITEMS[dtype], fixed)
        steps: list[Step] = []
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            kind = kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs = tuple(str(int(i)) for i in operator.inputs if i >= 0)
            outputs = tuple(str(int(i)) for i in operator.outputs)
            step = Step(kind, inputs, outputs)
            if all(self._values[name].fixed for name in inputs):  # float16 weights that become float32
                for name in outputs:
                    made = self._values[name]
                    self._values[name] = Value(made.dtype, made.shape, made.itemsize, fixed=True)
            steps.append(step)
        self._steps = tuple(steps)
        self._image, self._result = str(int(graph.inputs[0])), str(int(graph.outputs[0]))
        shape = self._values[self._image].shape
        if len(shape) != 4:
            raise ValueError(f"an image of shape {shape}")
        self.own = shape[1], shape[2]

    def _sized(self, name: str, height: int, width: int) -> Value:
        """The value for another image: its height and width grow as the image's do."""
        value = self._values[name]
        if value.fixed or len(value.shape) != 4 or (height, width) == self.own:
            return value
        sides = [
            side if side == 1 else max(1, rounded(side * new, old) // old)
            for side, new, old in zip(value.shape[1:3], (height, width), self.own, strict=True)
        ]
        return Value(value.dtype, (value.shape[0], *sides, value.shape[3]), value.itemsize, value.fixed)


@contextlib.contextmanager
def whole(path: Path) -> Iterator[None]:
    """What a file that contradicts itself leads to, as a sentence."""
    try:
        yield
    except (IndexError, KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        raise BadInput(
            f"expected a whole .tflite, found a damaged one in {path} ({type(error).__name__}: {error}): export it again."
        ) from error


@functools.cache
def _names(enumeration: str) -> dict[int, str]:
    """An enumeration of the TFLite schema by value."""
    from ai_edge_litert import schema_py_generated as schema

    found = vars(getattr(schema, enumeration)).items()
    return {value: name for name, value in found if not name.startswith("_")}
