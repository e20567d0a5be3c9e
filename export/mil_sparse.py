"""The MIL operators of sparse weights, as `export.mil` evaluates them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from export.mil_network import tensor


def _unpacked(given: dict[str, Any]) -> Tensor:
    """constexpr_sparse_to_dense: values in row-major order to where the mask is set, zero elsewhere.

    iOS 17 packs the mask into bytes, least significant bit first, beside a shape; later ones have the weight's shape.
    """
    mask = np.asarray(given["mask"])
    if "shape" in given:
        shape = [int(size) for size in given["shape"]]
        mask = np.unpackbits(mask, count=int(np.prod(shape)), bitorder="little").reshape(shape)
    return _spread(mask, given["nonzero_data"])


def _scaled(given: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """constexpr_sparse_blockwise_shift_scale: the mask, and the values times the scales of where they stand."""
    mask = np.asarray(given["data_mask"])
    dense = _spread(mask, given["nonzero_data"]) * tensor(given["scale"])
    return torch.from_numpy(mask.astype(np.float32)), dense[torch.from_numpy(mask != 0)]


def _spread(mask: NDArray[Any], kept: Any) -> Tensor:
    dense = torch.zeros(mask.shape)
    dense[torch.from_numpy(mask != 0)] = tensor(kept)
    return dense


SPARSE_OPERATORS = {
    "constexpr_sparse_to_dense": _unpacked,
    "constexpr_sparse_blockwise_shift_scale": _scaled,
}
