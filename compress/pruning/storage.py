"""What a student takes on disk: dense, sparse, and compressed; every figure is the length of bytes that decode again.

`python -m compress.pruning.storage student.pt`

A file is a JSON header with its length in front (8 bytes, little-endian), and then the tensors one after the other,
as safetensors does it. A tensor is stored by one of three schemes; a sparse file takes the shortest for each:

- dense: the values in row-major order (out, in, kh, kw).
- bitmask: one bit for every value, set where it is not zero, then the values that are not. It is also what N:M
  hardware reads: 2:4 has four bits for every four weights.
- gaps: how many values are not zero (4 bytes), for each of these one byte, the number of zeros in front of it, then
  the values; a byte of 255 stands for 255 zeros and goes on. Shorter than a bitmask where less than an eighth is not
  zero. This is the relative index of Han et al., "Deep Compression" (ICLR 2016), with 8 bits.

"Zero" means all bits zero, so that decoding is exact to the last bit.
"""

import dataclasses
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import Tensor

from compress import files
from compress.checkpoint import Student, load_student
from compress.cli import command_line
from compress.deploy import PReLU

ESCAPE = 255
Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class StorageSizes:
    """Bytes of a student in one precision, with all that it needs to run but its graph.

    Attributes:
        precision: 'float32' (the weights as trained, batch norm beside them) or 'int8' (as they ship, with scales).
        values: numbers stored; zeros: how many of them are 0.
        dense: every tensor dense.
        sparse: each tensor by its shortest scheme.
        compressed: zlib, level 9, of the dense file.
        sparse_compressed: zlib, level 9, of the sparse file.
        schemes: tensors per scheme in the sparse file.
    """

    precision: str
    values: int
    zeros: int
    dense: int
    sparse: int
    compressed: int
    sparse_compressed: int
    schemes: dict[str, int]


def storage_sizes(student: Student) -> list[StorageSizes]:
    """Of the float weights, and of the integers if the student is int8."""
    return [_sizes(precision, tensors) for precision, tensors in stored_tensors(student).items()]


def describe(student: Student) -> dict[str, Any]:
    """The sizes as plain values, for results in JSON, with the pattern of the zeros and their share where it holds."""
    masks = student.sparsity
    return {
        "pattern": masks.pattern if masks else None,
        "sparsity": masks.sparsity() if masks else 0.0,
        "sizes": [dataclasses.asdict(sizes) for sizes in storage_sizes(student)],
    }


def stored_tensors(student: Student) -> dict[str, dict[str, Tensor]]:
    """By precision and name: what a file has to hold."""
    tensors = {"float32": dict(student.weights)}
    if student.quantization:
        steps, activations = student.deploy().steps(), student.quantization.activations.values()
        slopes = {f"{name}.slope": torch.tensor(step.slope) for name, step, _ in steps if isinstance(step, PReLU)}
        layers = student.quantization.layers.items()
        tensors["int8"] = {
            **{f"{name}.{part}": value for name, layer in layers for part, value in vars(layer).items()},
            **slopes,
            "scales": torch.tensor([a.scale for a in activations]),
            "zero_points": torch.tensor([a.zero_point for a in activations], dtype=torch.int8),
        }
    return tensors


def encode(tensors: Mapping[str, Tensor], *, sparse: bool) -> bytes:
    """One file of tensors; `sparse` takes the shortest scheme for each, else all are dense."""
    header, parts = [], []
    for name, tensor in tensors.items():
        array = tensor.detach().cpu().contiguous().numpy()
        made = {scheme: write(array) for scheme, (write, _) in SCHEMES.items() if sparse or scheme == "dense"}
        scheme = min(made, key=lambda one: len(made[one]))
        header.append([name, array.dtype.str, list(array.shape), scheme, len(made[scheme])])
        parts.append(made[scheme])
    text = json.dumps(header, separators=(",", ":")).encode()
    return b"".join([len(text).to_bytes(8, "little"), text, *parts])


def decode(data: bytes) -> dict[str, Tensor]:
    """The inverse of `encode`, exact to the last bit."""
    position = 8 + int.from_bytes(data[:8], "little")
    tensors = {}
    for name, dtype, shape, scheme, length in json.loads(data[8:position]):
        _, read = SCHEMES[scheme]
        flat = read(data[position : position + length], np.dtype(dtype), int(np.prod(shape)))
        tensors[name] = torch.from_numpy(flat.reshape(shape).copy())
        position += length
    return tensors


def _write_dense(array: Array) -> bytes:
    return array.tobytes()


def _read_dense(data: bytes, dtype: np.dtype, count: int) -> Array:
    return np.frombuffer(data, dtype, count)


def _write_bitmask(array: Array) -> bytes:
    set_ = _not_zero(array)
    return np.packbits(set_).tobytes() + array.reshape(-1)[set_].tobytes()


def _read_bitmask(data: bytes, dtype: np.dtype, count: int) -> Array:
    length = -(-count // 8)
    set_ = np.unpackbits(np.frombuffer(data, np.uint8, length), count=count).astype(bool)
    return _scatter(set_.nonzero()[0], np.frombuffer(data, dtype, offset=length), count)


def _write_gaps(array: Array) -> bytes:
    positions = _not_zero(array).nonzero()[0]
    gaps = np.diff(positions, prepend=-1) - 1
    ends = np.cumsum(gaps // ESCAPE + 1)  # of each value's bytes, escapes included
    index = np.full(ends[-1] if len(ends) else 0, ESCAPE, dtype=np.uint8)
    index[ends - 1] = gaps % ESCAPE
    return len(positions).to_bytes(4, "little") + index.tobytes() + array.reshape(-1)[positions].tobytes()


def _read_gaps(data: bytes, dtype: np.dtype, count: int) -> Array:
    kept = int.from_bytes(data[:4], "little")
    values = np.frombuffer(data, dtype, offset=len(data) - kept * dtype.itemsize)
    index = np.frombuffer(data[4 : len(data) - values.nbytes], np.uint8)
    last = index != ESCAPE
    positions = np.cumsum(index.astype(np.int64) + last)[last] - 1
    return _scatter(positions, values, count)


SCHEMES: dict[str, tuple[Callable[[Array], bytes], Callable[[bytes, np.dtype, int], Array]]] = {
    "dense": (_write_dense, _read_dense),
    "bitmask": (_write_bitmask, _read_bitmask),
    "gaps": (_write_gaps, _read_gaps),
}


def _not_zero(array: Array) -> NDArray[np.bool_]:
    """Which values, in row-major order, have a bit set: -0.0 has."""
    return array.reshape(-1).view(np.uint8).reshape(array.size, array.itemsize).max(axis=1, initial=0) > 0


def _scatter(positions: Array, values: Array, count: int) -> Array:
    flat = np.zeros(count, values.dtype)
    flat[positions] = values
    return flat


def _sizes(precision: str, tensors: Mapping[str, Tensor]) -> StorageSizes:
    dense, sparse = encode(tensors, sparse=False), encode(tensors, sparse=True)
    header = json.loads(sparse[8 : 8 + int.from_bytes(sparse[:8], "little")])
    chosen = [scheme for _, _, _, scheme, _ in header]
    values = sum(tensor.numel() for tensor in tensors.values())
    return StorageSizes(
        precision=precision,
        values=values,
        zeros=values - sum(int(tensor.count_nonzero()) for tensor in tensors.values()),
        dense=len(dense),
        sparse=len(sparse),
        compressed=len(zlib.compress(dense, 9)),
        sparse_compressed=len(zlib.compress(sparse, 9)),
        schemes={scheme: chosen.count(scheme) for scheme in SCHEMES},
    )


def main(student: Path, *, out: Path | None = None) -> None:
    """Prints what a student takes on disk: dense, sparse, and compressed.

    Args:
        student: a student.pt, float or int8.
        out: JSON file for the same figures.
    """
    found = describe(load_student(student))
    zeros = (
        f"{found['pattern']}, {found['sparsity']:.2%} zeros in its masked layers" if found["pattern"] else "no masks"
    )
    columns = ("precision", "values", "zeros", "dense", "sparse", "zlib", "sparse, zlib")
    table = Table(*columns, title=f"{student.name} in bytes; {zeros}")
    for sizes in found["sizes"]:
        share = f"{sizes['zeros'] / sizes['values']:.1%}"
        counts = (sizes[name] for name in ("dense", "sparse", "compressed", "sparse_compressed"))
        table.add_row(sizes["precision"], f"{sizes['values']:,}", share, *(f"{count:,}" for count in counts))
    Console().print(table)
    if out:
        files.write_text(out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    command_line(main)
