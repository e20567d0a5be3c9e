"""A network of one image size as a Core ML ML Program, by coremltools' converter; what fits the deploy graph is in coreml.py."""

from collections.abc import Sequence
from typing import Any

import coremltools as ct
import torch
from torch import Tensor, nn

from compress.deploy import INPUT
from compress.models.fixed import FixedSize
from export.lowering.coreml import OUTPUT, TARGETS, Compute


class _Pixels(nn.Module):
    """The network with its output as a picture wants it: whole numbers from 0 to 255."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        return (self.network(lr) * 255).round()


def coreml_fixed(network: FixedSize, size: Sequence[int], *, compute: Compute, target: str) -> Any:
    """The model (`ct.models.MLModel`): picture "lr" of that (height, width) to picture "sr", RGB.

    Args:
        network: float.
        size: of the LR picture.
        compute: type of real values between the images.
        target: least operating system, 'iOS17' or 'iOS18'.
    """
    shape, layout = (1, 3, *size), ct.colorlayout.RGB
    with torch.no_grad():
        traced = torch.jit.trace(_Pixels(network).eval(), torch.zeros(shape))
    return ct.convert(
        traced,
        source="pytorch",
        convert_to="mlprogram",
        minimum_deployment_target=TARGETS[target],
        compute_precision=ct.precision.FLOAT16 if compute == "float16" else ct.precision.FLOAT32,
        inputs=[ct.ImageType(name=INPUT, shape=shape, scale=1 / 255, color_layout=layout)],
        outputs=[ct.ImageType(name=OUTPUT, color_layout=layout)],
        skip_model_load=True,
    )
