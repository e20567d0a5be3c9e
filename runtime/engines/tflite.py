"""What all interpreters of .tflite files share: LiteRT's, its predecessor's, and TensorFlow's own."""

import contextlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
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

DELEGATE = "DELEGATE"
NO_KERNEL = re.compile(
    r"builtin opcode '(?P<missing>\w+)' version|Node number \d+ \((?P<refused>\w+)\) failed to prepare"
)


class TfliteEngine(Engine):
    """A .tflite in an interpreter.

    Args:
        path: of the file.
        threads: of the interpreter.
        engine: name in `runtime.engines.ENGINES`.
        version: 'package version' of the interpreter.
        open_interpreter: makes the interpreter (`tf.lite.Interpreter`, or what has its methods), with no tensors allocated.

    Raises:
        BadInput: see `runtime.engines.open_model`.
    """

    def __init__(self, path: Path, threads: int, engine: str, version: str, open_interpreter: Callable[[], Any]):
        metadata = read_tflite(path)
        if metadata is None:
            raise BadInput(
                f"expected a .tflite that pocketsr exported, found one without its metadata in {path}: export the "
                "student with `python -m export.tflite`."
            )
        check_metadata(metadata, path)
        super().__init__(path, metadata, threads)
        self._name, self._version = engine, version
        with self._refusals(), silenced():
            self._interpreter = open_interpreter()
            inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        _check_tensors(inputs, outputs, metadata, path)
        self._size: tuple[int, ...] = tuple(int(n) for n in inputs[0]["shape"][1:3])
        with self._refusals(), silenced():
            if metadata.sizes == "any":  # the file's own size would take memory that is not given back
                self._size = (1, 1)
                self._interpreter.resize_tensor_input(inputs[0]["index"], [1, 1, 1, 3])
            self._interpreter.allocate_tensors()
        self._input, self._output = inputs[0]["index"], outputs[0]["index"]

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

    @contextlib.contextmanager
    def _refusals(self) -> Iterator[None]:
        """What the interpreter refuses, as a sentence."""
        try:
            yield
        except (ValueError, RuntimeError) as error:
            found = NO_KERNEL.search(str(error))
            operator = found and (found["missing"] or found["refused"])
            if operator and operator != DELEGATE:
                raise BadInput(
                    f"expected operators that {self._name} has kernels for, found {operator} of a kind that {self._version} "
                    f"does not run in the {self.metadata.precision} file {self.path}: run it with another engine, or export it "
                    "again."
                ) from error
            raise BadInput(
                f"expected a .tflite that {self._name} can run, found one that it refuses in {self.path} "
                f"({first_line(error)}): export it again."
            ) from error


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
