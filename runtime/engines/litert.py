"""LiteRT (formerly TensorFlow Lite): runs .tflite files, through XNNPACK or through its own kernels alone."""

import contextlib
import importlib
import importlib.metadata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from compress.errors import BadInput
from export.chatter import silenced
from export.metadata import Image as ImageSpec
from export.metadata import Metadata, read_tflite
from runtime.engines.base import (
    ZERO_POINTS,
    Delegate,
    Description,
    Engine,
    Image,
    Raw,
    check_dtype,
    check_metadata,
    first_line,
    from_pixels,
    is_pixel_scale,
)

PACKAGES = ("ai_edge_litert", "tflite_runtime")  # the second is the first's predecessor, on old device images
DELEGATE = "DELEGATE"


class LitertEngine(Engine):
    """A .tflite in the LiteRT interpreter.

    Args:
        path: of the file.
        threads: of the interpreter.
        delegate: run on XNNPACK; False is LiteRT's own kernels alone (its 'reference' set lacks int8 DEPTH_TO_SPACE).

    Raises:
        BadInput: see `runtime.engines.open_model`.
    """

    def __init__(self, path: str | Path, threads: int = 1, *, delegate: bool = True):
        path = Path(path)
        metadata = read_tflite(path)
        if metadata is None:
            raise BadInput(
                f"expected a .tflite that pocketsr exported, found one without its metadata in {path}: export the "
                "student with `python -m export.tflite`."
            )
        check_metadata(metadata, path)
        super().__init__(path, metadata, threads)
        module, self._version = _interpreter_module()
        kinds = module.OpResolverType
        resolver = kinds.AUTO if delegate else kinds.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with _refusals(path), silenced():
            self._interpreter: Any = module.Interpreter(
                model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver
            )
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        _check_tensors(inputs, outputs, metadata, path)
        with _refusals(path), silenced():
            self._interpreter.allocate_tensors()
        self._name = "litert" if delegate else "litert-builtin"
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]
        self._size: tuple[int, ...] = tuple(int(n) for n in inputs[0]["shape"][1:3])

    def describe(self) -> Description:
        return Description(
            path=self.path,
            engine=self._name,
            version=self._version,
            threads=self.threads,
            metadata=self.metadata,
            delegate=_delegate(self._interpreter._get_ops_details()),
        )

    def prepare(self, lr: Image) -> None:
        if lr.shape[:2] != self._size:
            self._size = ()  # a failure below must not leave a size that was never allocated
            try:
                self._interpreter.resize_tensor_input(self._input, [1, *lr.shape])
                self._interpreter.allocate_tensors()
            except (ValueError, RuntimeError) as error:
                raise BadInput(
                    f"expected a .tflite that takes images of {lr.shape[1]}x{lr.shape[0]} pixels, found that "
                    f"{self.path} does not ({first_line(error)}): use a size that it was exported for, or a smaller image."
                ) from error
            self._size = lr.shape[:2]
        self._interpreter.set_tensor(self._input, from_pixels(lr, self.metadata.input)[None])

    def run(self) -> None:
        self._interpreter.invoke()

    def read(self) -> Raw:
        return self._interpreter.get_tensor(self._output)[0]


def preload() -> None:
    """Imports what opening a file needs, so that memory and time of opening are the model's alone."""
    _, version = _interpreter_module()
    try:
        importlib.import_module("ai_edge_litert.schema_py_generated")
    except ModuleNotFoundError as error:
        raise BadInput(
            f"expected ai-edge-litert, whose schema a file's metadata is read with, found {version}: "
            "pip install ai-edge-litert."
        ) from error


def _interpreter_module() -> tuple[Any, str]:
    """The module with `Interpreter`, and 'package version'."""
    for package in PACKAGES:
        try:
            module = importlib.import_module(f"{package}.interpreter")
        except ModuleNotFoundError as error:
            if error.name not in (package, f"{package}.interpreter"):
                raise
            continue
        name = package.replace("_", "-")
        return module, f"{name} {importlib.metadata.version(name)}"
    raise BadInput("expected LiteRT to run a .tflite, found it missing: pip install ai-edge-litert.")


def _check_tensors(inputs: list[Any], outputs: list[Any], metadata: Metadata, path: Path) -> None:
    """Holds the interpreter's own view of the file against its metadata."""
    if len(inputs) != 1 or len(outputs) != 1:
        raise BadInput(
            f"expected one input and one output, found {len(inputs)} and {len(outputs)} in {path}: export it again."
        )
    for name, spec, tensor in (("input", metadata.input, inputs[0]), ("output", metadata.output, outputs[0])):
        _check_tensor(name, spec, tensor, path)
    lr, sr = (tuple(int(n) for n in tensor[0]["shape"]) for tensor in (inputs, outputs))
    if sr[1:3] != (lr[1] * metadata.scale, lr[2] * metadata.scale):
        raise BadInput(
            f"expected an output of {metadata.scale} times the input, as the metadata says, found {lr[2]}x{lr[1]} to "
            f"{sr[2]}x{sr[1]} in {path}: export it again."
        )


def _check_tensor(name: str, spec: ImageSpec, tensor: dict[str, Any], path: Path) -> None:
    dtype, shape = np.dtype(tensor["dtype"]).name, tuple(int(n) for n in tensor["shape"])
    check_dtype(name, spec, dtype, path)
    if spec.layout != "NHWC" or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
        raise BadInput(
            f"expected an {name} of shape (1, H, W, 3) and the layout NHWC, found {shape} and {spec.layout} in {path}: "
            "export it again."
        )
    scale, zero_point = tensor["quantization"]
    if dtype in ZERO_POINTS and not is_pixel_scale(scale, zero_point, dtype):
        raise BadInput(
            f"expected {name} pixels with scale 1/255 and zero point {ZERO_POINTS[dtype]}, as the metadata says, "
            f"found {scale:.6g} and "
            f"{zero_point} in {path}: export it again."
        )


def _delegate(nodes: list[dict[str, Any]]) -> Delegate:
    """Reads off the interpreter's nodes which of the file's operators the delegate's partitions replace.

    The list holds the file's operators and one DELEGATE node per partition, whose inputs are all that it takes from
    outside: walking back from its outputs to those finds the operators that it runs.
    """
    own = [node for node in nodes if node["op_name"] != DELEGATE]
    partitions = [node for node in nodes if node["op_name"] == DELEGATE]
    producer = {int(tensor): i for i, node in enumerate(own) for tensor in node["outputs"]}
    inside: set[int] = set()
    for partition in partitions:
        given = {int(tensor) for tensor in partition["inputs"]}
        reached = [int(tensor) for tensor in partition["outputs"]]
        while reached:
            tensor = reached.pop()
            if tensor not in given and tensor in producer and producer[tensor] not in inside:
                inside.add(producer[tensor])
                reached += [int(one) for one in own[producer[tensor]]["inputs"]]
    return Delegate(
        name="XNNPACK" if partitions else "none",
        operators=Counter(node["op_name"] for node in own),
        partitions=len(partitions),
        outside=Counter(node["op_name"] for i, node in enumerate(own) if i not in inside),
    )


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """What LiteRT refuses, as a sentence."""
    try:
        yield
    except (ValueError, RuntimeError) as error:
        raise BadInput(
            f"expected a .tflite that LiteRT can run, found one that it refuses in {path} ({first_line(error)}): "
            "export it again."
        ) from error
