"""What an int8 student consists of: the integers, and the scales that give them meaning.

Real value = scale * (integer - zero point). Activations: int8, one scale per tensor, asymmetric. Weights: int8 in
[-127, 127], one scale per output channel, symmetric. Bias: int32 with scale (input scale * weight scale). These are
the rules of the TFLite 8-bit quantization specification, so that every engine computes the same integers.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LOW, HIGH = -128, 127
WEIGHT_LIMIT = 127


@dataclass(frozen=True)
class ActivationScale:
    """Scale (positive) and zero point (in [-128, 127]) of one value of the deploy graph."""

    scale: float
    zero_point: int


PIXELS = ActivationScale(scale=1 / 255, zero_point=LOW)
"""Of the input and the output image: exactly 1/255, so that int8 is the uint8 pixel minus 128."""


@dataclass(frozen=True)
class IntegerWeights:
    """weight: int8 (out, in, k, k); scale: float32 (out,); bias: int32 (out,)."""

    weight: Tensor
    scale: Tensor
    bias: Tensor


@dataclass(frozen=True)
class Quantization:
    """Everything that makes a float student an int8 one.

    Attributes:
        activations: by value name of the deploy graph, the input "lr" included.
        layers: by step name of each convolution.
        calibration: where the scales come from: method, number of crops, hash of their pixels.
    """

    activations: dict[str, ActivationScale]
    layers: dict[str, IntegerWeights]
    calibration: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As plain containers and tensors, for student.pt."""
        return {
            "activations": {name: [a.scale, a.zero_point] for name, a in self.activations.items()},
            "layers": {name: dict(vars(layer)) for name, layer in self.layers.items()},
            "calibration": dict(self.calibration),
        }

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Quantization":
        """The inverse of `to_dict`. Raises ValueError, TypeError, KeyError, AttributeError or
        OverflowError when the content is not as described."""
        activations = {name: ActivationScale(float(s), int(z)) for name, (s, z) in plain["activations"].items()}
        layers = {name: IntegerWeights(**layer) for name, layer in plain["layers"].items()}
        for name, a in activations.items():
            if not 0 < a.scale < float("inf") or not LOW <= a.zero_point <= HIGH:
                raise ValueError(f"scale {a.scale} with zero point {a.zero_point} of {name!r}")
        for name, layer in layers.items():
            out = len(layer.weight)
            fits = layer.weight.dtype == torch.int8 and layer.weight.ndim == 4 and layer.bias.dtype == torch.int32
            if not fits or layer.scale.shape != (out,) or layer.bias.shape != (out,) or not (layer.scale > 0).all():
                raise ValueError(f"integer weights of {name!r}")
        return cls(activations, layers, dict(plain["calibration"]))
