"""Reference evaluation of the MIL operators that networks of one image size consist of: attention, pooling, resizing."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Arguments = dict[str, Any]


def tensor(value: Any) -> Tensor:
    """A value of the program, computed or constant, as a tensor."""
    return value if isinstance(value, Tensor) else torch.from_numpy(np.asarray(value, np.float32))


def _integers(value: Any) -> list[int]:
    return [int(one) for one in np.asarray(value).reshape(-1)]


def _max_pool(given: Arguments) -> Tensor:
    top, bottom, left, right = _integers(given["pad"])
    x = F.pad(given["x"], (left, right, top, bottom), value=float("-inf"))
    return F.max_pool2d(x, _integers(given["kernel_sizes"]), _integers(given["strides"]))


def _upsample(given: Arguments) -> Tensor:
    factors = tuple(float(given[f"scale_factor_{side}"]) for side in ("height", "width"))
    return F.interpolate(given["x"], scale_factor=factors, mode="bilinear", align_corners=bool(given["align_corners"]))


def _layer_norm(given: Arguments) -> Tensor:
    axes = _integers(given["axes"])
    x = given["x"].double()
    centred = x - x.mean(axes, keepdim=True)
    scaled = centred / (centred.square().mean(axes, keepdim=True) + float(given["epsilon"])).sqrt()
    return (scaled * tensor(given["gamma"]) + tensor(given["beta"])).float()


def _matmul(given: Arguments) -> Tensor:
    x, y = (tensor(given[key]).double() for key in "xy")
    x = x.transpose(-1, -2) if given.get("transpose_x") else x
    return (x @ (y.transpose(-1, -2) if given.get("transpose_y") else y)).float()


def _linear(given: Arguments) -> Tensor:
    return F.linear(given["x"].double(), tensor(given["weight"]).double(), tensor(given["bias"]).double()).float()


def _gather(given: Arguments) -> Tensor:
    return given["x"].index_select(int(given["axis"]), torch.tensor(_integers(given["indices"])))


def _slice(given: Arguments) -> Tensor:
    """x[begin:end] of every axis; a mask takes an end of it whole."""
    x = given["x"]
    whole = [False] * x.ndim
    starts, ends = (np.asarray(given.get(f"{end}_mask", whole)).tolist() for end in ("begin", "end"))
    bounds = zip(_integers(given["begin"]), _integers(given["end"]), starts, ends, strict=True)
    return x[tuple(slice(None if first else begin, None if last else end) for begin, end, first, last in bounds)]


NETWORK_OPERATORS: dict[str, Callable[[Arguments], Tensor]] = {
    "max_pool": _max_pool,
    "upsample_bilinear": _upsample,
    "pixel_shuffle": lambda given: F.pixel_shuffle(given["x"], int(given["upscale_factor"])),
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "linear": _linear,
    "gather": _gather,
    "slice_by_index": _slice,
    "softmax": lambda given: given["x"].double().softmax(int(given["axis"])).float(),
    "gelu": lambda given: F.gelu(given["x"].double()).float(),
    "concat": lambda given: torch.cat(given["values"], int(given["axis"])),
    "reduce_mean": lambda given: given["x"].mean(_integers(given["axes"]), keepdim=bool(given["keep_dims"])),
    "sub": lambda given: tensor(given["x"]) - tensor(given["y"]),
    "square": lambda given: given["x"].square(),
    "sqrt": lambda given: given["x"].sqrt(),
    "transpose": lambda given: given["x"].permute(_integers(given["perm"])),
    "reshape": lambda given: given["x"].reshape(_integers(given["shape"])),
}
