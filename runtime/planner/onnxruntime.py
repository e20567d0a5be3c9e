"""What ONNX Runtime's CPU provider adds to the memory of a process for one image: its own graph, run through its arena.

ONNX Runtime itself is asked for the graph that it runs after its optimisations, for these change with the processor; the
arena is simulated on it (`runtime.planner.bfc`), operator by operator, with the buffers of quantized convolutions as in
onnxruntime/core/providers/cpu/quantization/qlinear_conv.cc, as of 2025. Needs the onnx package.
"""

import importlib
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import BadInput
from export.chatter import silenced
from export.metadata import ENTRY, Metadata
from runtime.planner.bfc import Arena, Chunk
from runtime.planner.plan import NoPrediction, Plan, check_size

PROGRAM = 10_200_000
"""Bytes of ONNX Runtime's code that runs and of its own objects."""
COPIES_OF_WEIGHTS = 3  # the parsed file, the tensors, and those in the order in which kernels read them
ITEMS = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 10: 2}  # bytes of an element, by ONNX's type
IN_PLACE = {"Add", "Clip", "LeakyRelu", "Max", "Min", "Mul", "Relu", "Sigmoid", "Sub"}
POINTER, SUM = 8, 4
SYMMETRIC_CHANNELS, SYMMETRIC_OUTPUTS = 4, 16  # multiples of the one, and at least the other, need no sums and columns


@dataclass(frozen=True)
class Maps:
    """Feature maps or an image: channels, height and width over the LR image's, and bytes of an element."""

    channels: int
    factor: int
    item: int


class OnnxPlanner:
    """Predicts for one file. Raises BadInput; see `runtime.planner.plan`.

    Attributes:
        metadata: of the file.
        reserve: fraction of a budget to be left for the error of the prediction.
    """

    reserve = 0.25

    def __init__(self, path: Path, threads: int):
        self._path = path
        self._model = _optimised(path)
        written = {entry.key: entry.value for entry in self._model.metadata_props}.get(ENTRY)
        if written is None:
            raise BadInput(
                f"expected an .onnx that pocketsr exported, found one without its metadata in {path}: export the student "
                "with `python -m export.onnx`."
            )
        self.metadata = Metadata.from_json(written, str(path))
        self._constants = {one.name: one for one in self._model.graph.initializer}
        self._nodes = [
            node for node in self._model.graph.node if any(name and name not in self._constants for name in node.input)
        ]
        try:
            self._maps = self._shapes()
            self._arena(1)
        except (KeyError, IndexError, ValueError, TypeError, ZeroDivisionError) as error:
            raise NoPrediction(
                f"expected an .onnx of the operators that pocketsr writes, found others in {path} ({type(error).__name__}: "
                f"{error}): measure it with `python -m runtime.memory`."
            ) from error

    def __call__(self, height: int, width: int) -> Plan:
        """For an LR image of that size. Raises BadInput for one that the file does not take."""
        check_size(self.metadata, height, width, self._path)
        area = height * width
        result = self._maps[self._model.graph.output[0].name]
        image = self._maps[self._model.graph.input[0].name]
        pixels = result.channels * result.factor**2 * area
        return Plan(
            "onnxruntime",
            {
                "program": PROGRAM,
                "weights": COPIES_OF_WEIGHTS * self._path.stat().st_size,
                "arena": self._arena(area),
                "image": image.channels * image.item * area,
                "reading": 2 * result.item * pixels + pixels,  # the result of the run, a copy of it, and uint8 pixels
            },
        )

    def _arena(self, area: int) -> int:
        """Bytes of the arena that are written."""
        arena, held, readers = Arena(), dict[str, Chunk](), dict[str, int]()
        for node in self._nodes:
            for name in set(node.input) & self._maps.keys():
                readers[name] = readers.get(name, 0) + 1
        for name in (one.name for one in self._model.graph.output):
            readers[name] = readers.get(name, 0) + 1
        for node in self._nodes:
            made = node.output[0]
            taken = next((name for name in self._replaced(node) if name in held and readers[name] == 1), None)
            if taken is None:
                held[made] = arena.take(self._size(made, area))
            else:
                held[made] = held.pop(taken)
            for chunk in [arena.take(size) for size in self._scratch(node, area)]:
                arena.give(chunk)
            for name in set(node.input) & readers.keys():
                readers[name] -= 1
                if not readers[name] and name in held:
                    arena.give(held.pop(name))
        return arena.written

    def _replaced(self, node: Any) -> Iterable[str]:
        """Inputs whose place its result may take."""
        made = self._maps[node.output[0]]
        if node.op_type in IN_PLACE:
            return [name for name in node.input if self._maps.get(name) == made]
        return list(node.input[3:4]) if node.op_type == "Conv" and node.domain else []  # a sum that was joined to it

    def _scratch(self, node: Any, area: int) -> list[int]:
        """Bytes of the buffers that it holds while it runs."""
        if node.op_type != "QLinearConv":
            return []
        outputs, inputs, high, wide = self._constants[node.input[3]].dims
        given, made = self._maps[node.input[0]], self._maps[node.output[0]]
        pixels = made.factor**2 * area
        if inputs % SYMMETRIC_CHANNELS == outputs % SYMMETRIC_CHANNELS == 0 and outputs >= SYMMETRIC_OUTPUTS:
            return [POINTER * high * wide * pixels]
        columns = [] if high == wide == 1 else [high * wide * inputs * given.item * pixels]
        return [SUM * outputs * pixels, *columns]

    def _size(self, name: str, area: int) -> int:
        maps = self._maps[name]
        return maps.channels * maps.factor**2 * maps.item * area

    def _shapes(self) -> dict[str, Maps]:
        """Of every computed value."""
        graph = self._model.graph
        types = {one.name: one.type.tensor_type.elem_type for one in (*graph.value_info, *graph.input, *graph.output)}
        fixed = {
            node.output[0]: node.input[0] for node in graph.node if node not in self._nodes
        }  # weights made of constants
        given = graph.input[0]
        found = {given.name: Maps(3, 1, ITEMS[types[given.name]])}
        for node in self._nodes:
            inputs = [found[name] for name in node.input if name in found]
            if not inputs:
                continue
            options = {one.name: one.i for one in node.attribute}
            first, made = inputs[0], node.output[0]
            channels, factor, item = first.channels, first.factor, first.item
            if node.op_type in ("Conv", "FusedConv", "QLinearConv"):
                weights = node.input[3 if node.op_type == "QLinearConv" else 1]
                channels = self._constants[fixed.get(weights, weights)].dims[0]
            elif node.op_type == "DepthToSpace":
                channels, factor = channels // options["blocksize"] ** 2, factor * options["blocksize"]
            elif node.op_type == "ReorderOutput":
                channels = options["channels"]
            elif node.op_type in ("Concat", "QLinearConcat"):
                channels = sum(one.channels for one in inputs)
            elif node.op_type in ("QuantizeLinear", "DequantizeLinear", "Cast"):
                item = ITEMS[types[made]] if made in types else 4
            found[made] = Maps(channels, factor, item)
        return found


def _optimised(path: Path) -> Any:
    """The parsed graph that ONNX Runtime runs on this processor.

    Raises:
        BadInput: no such file, or ONNX Runtime refuses it.
        NoPrediction: the onnx package or ONNX Runtime is missing.
    """
    if not path.is_file():
        raise BadInput(f"expected an .onnx file, found nothing at {path}: check the path.")
    try:
        onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise NoPrediction(
            f"expected onnx and onnxruntime to predict the memory of an .onnx, found {error.name} missing: install both, or "
            "measure it with `python -m runtime.memory`."
        ) from error
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory() as folder:
        options.optimized_model_filepath = str(Path(folder) / "optimised.onnx")
        try:
            with silenced():
                runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
            return onnx.load(options.optimized_model_filepath)
        except Exception as error:  # its errors have no base class of their own
            line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
            raise BadInput(
                f"expected an .onnx that ONNX Runtime can run, found one that it refuses in {path} ({line}): export it again."
            ) from error
