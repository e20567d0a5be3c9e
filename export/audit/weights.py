"""The numbers that layers multiply with, as a file stores them."""

from dataclasses import dataclass

import numpy as np

from export.audit.contents import FLOATS, SMALL_INTEGERS, Contents, Operator, Tensor


@dataclass(frozen=True)
class Weight:
    """Of one layer.

    Attributes:
        layer: name of its operator, and its kind.
        count: numbers, zeros included.
        zeros: how many of them are 0 (the zero point, for integers).
        stored: the tensor of the file that holds them.
        shape: dense; empty where it is not known.
    """

    layer: str
    kind: str
    count: int
    zeros: int
    stored: Tensor
    shape: tuple[int, ...]

    @property
    def scales(self) -> int:
        """How many: 0 for real numbers, 1 for all of the tensor, or one per channel."""
        return len(self.stored.scales)


def weights_of(contents: Contents) -> list[Weight]:
    """Of every operator that multiplies with constants, in order."""
    found = []
    for operator in contents.operators:
        stored = _stored(contents, operator)
        if stored is None or stored.values is None or operator.weight is None:
            continue
        if stored.dtype not in FLOATS | SMALL_INTEGERS:
            continue  # the shape of a RESHAPE on the way, say, where both sides of a multiplication are computed
        dense = contents.tensors[operator.weight]
        count = dense.elements or stored.elements or stored.values.size
        zero = stored.zero_points[0] if len(set(stored.zero_points)) == 1 else 0
        zeros = count - int(np.count_nonzero(stored.values != zero))
        found.append(Weight(operator.name, operator.kind, count, max(zeros, 0), stored, dense.shape or ()))
    return found


def _stored(contents: Contents, operator: Operator) -> Tensor | None:
    """The constant that the weight is, or that it is unpacked from."""
    name = operator.weight
    while name is not None and name in contents.tensors and not contents.tensors[name].constant:
        unpacking = contents.producers.get(name)
        parts = [] if unpacking is None else [t for t in contents.of(unpacking.inputs) if t.constant]
        if parts:
            return max(parts, key=lambda part: 0 if part.values is None else part.values.size)
        name = unpacking.inputs[0] if unpacking and unpacking.inputs and name in contents.fixed else None
    return contents.tensors.get(name) if name else None
