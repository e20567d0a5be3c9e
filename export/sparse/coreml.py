"""Sparse weights in an .mlpackage: one bit for every weight, and the values that are not zero (`constexpr_sparse_to_dense`).

From iOS 18 on the mask has the weight's own shape, and values may be integers with scales
(`constexpr_sparse_blockwise_shift_scale`); in iOS 17 it is packed, and integers can be sparse or have scales, not both.
"""

from typing import Any

import numpy as np
from coremltools.converters.mil import Builder as mb
from coremltools.converters.mil.mil import types
from numpy.typing import NDArray


def sparse_weight(weight: NDArray[Any], scale: NDArray[np.float32] | None, *, packed: bool, name: str) -> Any:
    """The constant of a MIL program that is being built.

    Args:
        weight: (out, in, k, k), float32, or int8 where there are scales.
        scale: (out,), or None.
        packed: the form of iOS 17, which has no scales.
        name: of the constant.
    """
    kept = weight != 0
    values = weight[kept]
    if packed:
        assert scale is None, "refused by export_coreml"
        mask, shape = np.packbits(kept.reshape(-1), bitorder="little"), np.array(weight.shape, np.uint32)
        return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask, shape=shape, name=name)
    mask = kept.astype(types.np_uint1_dtype)
    if scale is not None:
        mask, values = mb.constexpr_sparse_blockwise_shift_scale(
            data_mask=mask, nonzero_data=values, scale=scale[:, None, None, None], name=f"{name}_scaled"
        )
    return mb.constexpr_sparse_to_dense(nonzero_data=values, mask=mask, name=name)
