"""Reference evaluation of a Core ML file: its MIL operators one by one in PyTorch, as Apple documents them.

Core ML runs on Apple's systems only. This says what a file computes without one: sums of products in float64, every
result rounded to the type that the file gives it. It says nothing about speed, or about how a phone's chip rounds.
"""

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compress.errors import BadInput
from export.mil_network import NETWORK_OPERATORS, tensor
from export.mil_sparse import SPARSE_OPERATORS
from export.mlpackage import load_program, read_spec

Arguments = dict[str, Any]


def read_program(package: Path) -> tuple[Any, Any]:
    """(spec, MIL program) of an .mlpackage whose operators can be evaluated. Raises BadInput for anything else."""
    spec, weights = read_spec(package)
    program = load_program(spec, weights, package)
    unknown = sorted({op.op_type for op in program.functions["main"].operations} - set(OPERATORS) - {"const"})
    if unknown:
        raise BadInput(
            f"expected operators out of {', '.join(OPERATORS)}, found {', '.join(unknown)} in {package}: only files that "
            "pocketsr exported can be evaluated without Core ML."
        )
    return spec, program


@torch.no_grad()
def values(program: Any, lr: NDArray[np.float32]) -> Iterator[tuple[str, Tensor]]:
    """Yields (name, value) of every operator of a program, in order.

    Args:
        program: from `read_program`.
        lr: (1, 3, H, W), 0 to 255.

    Raises:
        BadInput: an operator whose arguments no network has; the file is damaged.
    """
    main = program.functions["main"]
    (name,) = main.inputs
    known: dict[str, Any] = {name: torch.from_numpy(lr)}
    for operation in main.operations:
        if operation.op_type == "const":
            (made,) = operation.outputs
            known[made.name] = made.val
            continue
        try:
            given = {key: _value(var, known) for key, var in operation.inputs.items() if var is not None}
            found = OPERATORS[operation.op_type](given)
            results = found if isinstance(found, tuple) else (found,)
            for made, result in zip(operation.outputs, results, strict=True):
                known[made.name] = result.half().float() if _is_half(made) else result
        except Exception as error:  # whatever the arguments of a damaged file lead PyTorch to
            said = textwrap.shorten(str(error), 200, placeholder="...")
            raise BadInput(
                f"expected a Core ML program that can be evaluated, found {operation.op_type} with arguments that cannot "
                f"({said}): export it again."
            ) from error
        yield from ((made.name, known[made.name]) for made in operation.outputs)


def _value(var: Any, known: dict[str, Any]) -> Any:
    if isinstance(var, (list, tuple)):
        return [_value(one, known) for one in var]
    return known.get(var.name, var.val)


def _is_half(var: Any) -> bool:
    from coremltools.converters.mil.mil import types

    return var.dtype == types.fp16


def _conv(given: Arguments) -> Tensor:
    top, bottom, left, right = (int(side) for side in given["pad"])
    x = F.pad(given["x"], (left, right, top, bottom)).double()  # 'pad' is zero where 'pad_type' is 'valid'
    weight, bias = tensor(given["weight"]).double(), given.get("bias")
    stride, groups = [int(one) for one in given["strides"]], int(given["groups"])
    return F.conv2d(x, weight, None if bias is None else tensor(bias).double(), stride, groups=groups).float()


def _quantize(given: Arguments) -> Tensor:
    """clip(round(x / scale) + zero point), half to even."""
    low = {"int8": -128, "uint8": 0}[given["output_dtype"]]
    return ((given["input"] / float(given["scale"])).round() + _zero(given)).clamp(low, low + 255)


def _dequantize(given: Arguments) -> Tensor:
    return (given["input"] - _zero(given)) * float(given["scale"])


def _zero(given: Arguments) -> float:
    return float(given.get("zero_point", 0))  # coremltools leaves a zero out


def _weights(given: Arguments) -> Tensor:
    """constexpr_affine_dequantize: scale * (integer - zero point), one scale per index of `axis`."""
    shape = [1] * given["quantized_data"].ndim
    shape[int(given["axis"])] = -1
    scale, zero = (tensor(given[key]).reshape(shape) for key in ("scale", "zero_point"))
    return (tensor(given["quantized_data"]) - zero) * scale


def _depth_to_space(given: Arguments) -> Tensor:
    """Channels in the order (block, block, C), as TensorFlow's operator, from which this one comes."""
    x, block = given["x"], int(given["block_size"])
    n, c, h, w = x.shape
    x = x.reshape(n, block, block, c // block**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(n, c // block**2, h * block, w * block)


OPERATORS: dict[str, Callable[[Arguments], Tensor | tuple[Tensor, ...]]] = {
    "conv": _conv,
    "relu": lambda given: F.relu(given["x"]),
    "leaky_relu": lambda given: torch.where(given["x"] < 0, given["x"] * float(given["alpha"]), given["x"]),
    "sigmoid": lambda given: torch.sigmoid(given["x"]),
    "add": lambda given: tensor(given["x"]) + tensor(given["y"]),
    "mul": lambda given: tensor(given["x"]) * tensor(given["y"]),
    "clip": lambda given: given["x"].clamp(float(given["alpha"]), float(given["beta"])),
    "round": lambda given: given["x"].round(),
    "cast": lambda given: given["x"],  # rounded by `values`
    "tile": lambda given: given["x"].repeat(*(int(count) for count in given["reps"])),
    "depth_to_space": _depth_to_space,
    "quantize": _quantize,
    "dequantize": _dequantize,
    "constexpr_affine_dequantize": _weights,
    "constexpr_blockwise_shift_scale": lambda given: tensor(given["data"]) * tensor(given["scale"]),
    **NETWORK_OPERATORS,
    **SPARSE_OPERATORS,
}
