"""A network of one image size as ONNX, by torch's own exporter; what fits the deploy graph is in onnx.py."""

from collections.abc import Sequence

import onnx
import torch

from compress.models.fixed import FixedSize
from export.lowering.half import Half
from export.lowering.onnx import IR_VERSION, OPSET, OUTPUT
from export.metadata import Precision


def onnx_fixed(network: FixedSize, precision: Precision, size: Sequence[int]) -> onnx.ModelProto:
    """The model: "lr" (1, 3, height, width) to "sr" (1, 3, s*height, s*width), float32 in [0, 1].

    Args:
        network: is changed for 'float16', weights and arithmetic.
        precision: 'float32' or 'float16'.
        size: (height, width) of the LR image.
    """
    module = Half(network) if precision == "float16" else network
    program = torch.onnx.export(
        module.eval(),
        (torch.zeros(1, 3, *size),),
        dynamo=True,
        opset_version=OPSET,
        input_names=["lr"],
        output_names=[OUTPUT],
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    model.ir_version = IR_VERSION
    for node in model.graph.node:  # where it came from in our source: paths, and most of the file
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    model.graph.ClearField("value_info")
    return model
