"""What an int8 student consists of: the integers, and the scales that give them meaning.

Real value = scale * (integer - zero point). Activations: int8, one scale per tensor, asymmetric. Weights: int8 in
[-127, 127], one scale per output channel, symmetric. Bias: int32 with scale (input scale * weight scale). These are
the rules of the TFLite 8-bit quantization specification, so that every engine computes the same integers.

Single steps can work in int16 (symmetric values, the same int8 weights, wider sums: that specification's 16x8), or in
float. Then a value that one step makes and another reads is converted on the way.
"""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

Arithmetic = Literal["int8", "int16", "float"]
LOW, HIGH = -128, 127
LIMITS: dict[Arithmetic, tuple[int, int]] = {"int8": (LOW, HIGH), "int16": (-(2**15), 2**15 - 1)}
WEIGHT_LIMIT = 127


@dataclass(frozen=True)
class ActivationScale:
    """Scale (positive) and zero point (in [-128, 127]; 0 for int16) of one value of the deploy graph."""

    scale: float
    zero_point: int


PIXELS = ActivationScale(scale=1 / 255, zero_point=LOW)
"""Of the input and the output image: exactly 1/255, so that int8 is the uint8 pixel minus 128."""
WIDE_PIXELS = PIXELS.scale / 127
"""Scale of the same images in int16: a pixel is a multiple of 127 there, and nothing lies half-way between two pixels,
where runtimes round differently."""


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
        activations: int8 scale by value name of the deploy graph, the input "lr" included.
        layers: by step name of each convolution.
        calibration: where the scales come from: method, number of crops, hash of their pixels.
        equalization: factors (out,) by which outputs of convolutions were divided before all this was chosen, by step
            name; see `equalization.equalized`.
        arithmetic: of the steps that are not int8, by step name.
        wide: int16 scale by value name, of every value where some step is int16.
    """

    activations: dict[str, ActivationScale]
    layers: dict[str, IntegerWeights]
    calibration: dict[str, Any]
    equalization: dict[str, Tensor] = field(default_factory=dict)
    arithmetic: dict[str, Arithmetic] = field(default_factory=dict)
    wide: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for an int16 step without scales."""
        if "int16" in self.arithmetic.values() and set(self.wide) != set(self.activations):
            raise ValueError("there are int16 steps, and not every value has an int16 scale")

    @property
    def precision(self) -> Literal["int8", "int16x8", "mixed"]:
        """'int16x8' where every convolution is int16 and nothing is float."""
        if not self.arithmetic:
            return "int8"
        wide = all(self.arithmetic.get(name) == "int16" for name in self.layers)
        return "int16x8" if wide and set(self.arithmetic.values()) == {"int16"} else "mixed"

    def of(self, step: str) -> Arithmetic:
        """In what a step works, and its value is kept; the input is int8."""
        return self.arithmetic.get(step, "int8")

    def grid(self, value: str, kind: Arithmetic) -> ActivationScale:
        """Scale and zero point of a value as integers of that kind."""
        return self.activations[value] if kind == "int8" else ActivationScale(self.wide[value], 0)

    def to_dict(self) -> dict[str, Any]:
        """As plain containers and tensors, for student.pt. What is empty is left out."""
        extras = {"equalization": self.equalization, "arithmetic": self.arithmetic, "wide": self.wide}
        return {
            "activations": {name: [a.scale, a.zero_point] for name, a in self.activations.items()},
            "layers": {name: dict(vars(layer)) for name, layer in self.layers.items()},
            "calibration": dict(self.calibration),
            **{name: dict(extra) for name, extra in extras.items() if extra},
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
        equalization, arithmetic, wide = (dict(plain.get(name, {})) for name in ("equalization", "arithmetic", "wide"))
        for name, factors in equalization.items():
            if not isinstance(factors, Tensor) or factors.dtype != torch.float32:
                raise ValueError(f"factors of {name!r}")
        for name, kind in arithmetic.items():
            if name not in activations or kind not in get_args(Arithmetic):
                raise ValueError(f"arithmetic {kind!r} of {name!r}")
        for name, scale in wide.items():
            if not isinstance(scale, float) or not 0 < scale < float("inf"):
                raise ValueError(f"int16 scale {scale} of {name!r}")
        return cls(activations, layers, dict(plain["calibration"]), equalization, arithmetic, wide)
