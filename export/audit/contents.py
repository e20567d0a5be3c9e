"""What a model file consists of, in one form for all formats: tensors, and the operators between them."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compress.errors import BadInput
from export.metadata import Metadata

Format = Literal["tflite", "onnx", "coreml"]
Size = tuple[int, int]
FLOATS = frozenset({"FLOAT64", "FLOAT32", "FLOAT16", "BFLOAT16"})
SMALL_INTEGERS = frozenset({"INT4", "INT8", "UINT8", "INT16", "UINT16"})
BITS = {
    "BOOL": 8,
    "INT4": 4,
    "UINT4": 4,
    "INT8": 8,
    "UINT8": 8,
    "INT16": 16,
    "UINT16": 16,
    "FLOAT16": 16,
    "BFLOAT16": 16,
}
OTHER_BITS = {"INT32": 32, "UINT32": 32, "FLOAT32": 32, "INT64": 64, "UINT64": 64, "FLOAT64": 64}
DEFAULT_SIZE = (64, 64)
FEWEST = 8  # pixels of a side: a file of unknown size is often stored as 1x1


@dataclass(frozen=True, kw_only=True)
class Tensor:
    """A value of the graph.

    Attributes:
        name: unique in its file.
        dtype: in capitals, such as INT8.
        shape: for the size that was asked for; None, or -1 for a side, where the file does not tell.
        values: of a constant, as stored (quantized ones as integers); None for all that is computed.
        stored_bytes: that a constant takes in the file.
        sparse: its zeros are not stored.
        scales, zero_points: of quantized values, one or one per channel.
    """

    name: str
    dtype: str
    shape: tuple[int, ...] | None
    values: NDArray[np.generic] | None = None
    stored_bytes: int = 0
    sparse: bool = False
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()

    @property
    def constant(self) -> bool:
        return self.stored_bytes > 0 or self.values is not None

    @property
    def elements(self) -> int | None:
        """Number of values; None where the shape is not known."""
        if self.shape is None or min(self.shape, default=1) < 0:
            return None
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def bytes(self) -> int | None:
        """That the values take in memory."""
        bits = {**BITS, **OTHER_BITS}.get(self.dtype)
        return None if bits is None or self.elements is None else -(-self.elements * bits // 8)


@dataclass(frozen=True, kw_only=True)
class Operator:
    """A node of the graph.

    Attributes:
        kind: as the format calls it, such as CONV_2D, Conv or conv.
        name: of the layer: that of its first output.
        inputs, outputs: names of tensors; optional inputs that are not given are left out.
        weight: the input that is multiplied with, of convolutions and matrix products.
    """

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    weight: str | None = None


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A file that was read.

    Attributes:
        operators: in order of execution.
        tensors: by name.
        inputs, outputs: names; the image is the first of each.
        size: (height, width) of the LR image that the shapes are for; None where the input is no image.
        any_size: whether it takes images of any size.
        pictures: its images are 8-bit pictures to whoever runs it, whatever type its tensors have.
        metadata: what it says about itself, if we wrote it.
        graphs: in the file; only the first is read.
        kernels_refuse: why LiteRT's built-in kernels do not run it where a delegate does; None if they do.
    """

    format: Format
    file_bytes: int
    operators: Sequence[Operator]
    tensors: Mapping[str, Tensor]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    size: Size | None
    any_size: bool
    pictures: bool = False
    metadata: Metadata | None = None
    graphs: int = 1
    kernels_refuse: str | None = None

    @cached_property
    def producers(self) -> Mapping[str, Operator]:
        """The operator that computes each tensor."""
        return {name: operator for operator in self.operators for name in operator.outputs}

    def of(self, names: Sequence[str]) -> list[Tensor]:
        """The tensors of these names that the file describes."""
        return [self.tensors[name] for name in names if name in self.tensors]

    def touched(self, operator: Operator) -> list[Tensor]:
        """What an operator reads and writes, constants included."""
        return self.of((*operator.inputs, *operator.outputs))

    def computed_inputs(self, operator: Operator) -> list[str]:
        """Its inputs that are no constants, and not computed from constants alone."""
        return [name for name in operator.inputs if name not in self.fixed]

    @cached_property
    def fixed(self) -> set[str]:
        """Tensors that are the same for every image: constants, and what is computed from them alone."""
        names = {name for name, tensor in self.tensors.items() if tensor.constant} - set(self.inputs)
        for operator in self.operators:
            if all(name in names for name in operator.inputs) and operator.inputs:
                names.update(operator.outputs)
        return names

    def constants(self) -> Iterator[Tensor]:
        """All that is stored."""
        return (tensor for tensor in self.tensors.values() if tensor.constant)

    def counts(self) -> Counter[str]:
        """Operators by kind."""
        return Counter(operator.kind for operator in self.operators)


def chosen_size(own: Size | None, wanted: Size | None, *, takes_any: bool, where: object) -> Size | None:
    """The size to describe a file for: the one asked for, else its own, else 64x64.

    Args:
        own: of its first input, -1 where it is free; None if that is no image.
        takes_any: whether it can be resized.

    Raises:
        BadInput: a size that the file does not take.
    """
    if own is None:
        return None
    fixed = min(own) >= FEWEST or not takes_any
    if wanted is None:
        return own if fixed and min(own) > 0 else DEFAULT_SIZE
    if not takes_any and wanted != own:
        raise BadInput(
            f"expected --size {own[0]}x{own[1]}, the only one that {where} takes, found {wanted[0]}x{wanted[1]}: leave it out."
        )
    return wanted
