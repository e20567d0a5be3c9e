"""Sparse weights in an .onnx: `sparse_initializer`, values and their positions.

A position takes 8 bytes (the format asks for int64), so the file shrinks only where few weights are left: below a third
for float32, a fifth for float16, a ninth for int8. ONNX Runtime fills the zeros in again when it opens the file. The
checker accepts such files; its shape inference does not ("unsupported type: sparse_tensor"), so it is run before.
"""

from collections.abc import Collection
from typing import Any

import numpy as np


def sparsified(model: Any, steps: Collection[str]) -> Any:
    """The model (`onnx.ModelProto`) with the weights of these convolutions sparse.

    Args:
        model: of `export.lowering.onnx`, whose weights are named after their step.
        steps: names of the convolutions.

    Raises:
        ValueError: a step whose weight the model does not have.
    """
    import onnx
    from onnx import helper, numpy_helper

    sparse = onnx.ModelProto()
    sparse.CopyFrom(model)
    weights = {initializer.name: initializer for initializer in model.graph.initializer}
    for step in sorted(steps):
        name = next((one for one in (f"{step}_weight", f"{step}_weight_int8") if one in weights), None)
        if name is None:
            raise ValueError(f"no weight of {step} in the model")
        sparse.graph.initializer.remove(weights[name])
        weight = numpy_helper.to_array(weights[name])
        positions = np.flatnonzero(weight)
        sparse.graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                numpy_helper.from_array(weight.reshape(-1)[positions], name),
                numpy_helper.from_array(positions.astype(np.int64), f"{name}_positions"),
                weight.shape,
            )
        )
    onnx.checker.check_model(sparse)
    return sparse
