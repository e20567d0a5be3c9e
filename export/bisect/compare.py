"""Holds the values of a file against the student's, layer by layer."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from compress.checkpoint import Student
from compress.deploy import INPUT
from compress.quantization.integer import IntegerStudent
from compress.quantization.scheme import ActivationScale
from export.bisect.traces import Pixels, Real, Trace, Value
from export.exporting import parts
from export.metadata import Precision

INTEGER_TOLERANCE = 0.25  # LSB
REAL_TOLERANCES = {"float32": 1e-5, "float16": 5e-3, "int8-weights": 5e-3}
"""Largest error that is rounding; see `tolerance_of`."""
REAL_ARITHMETIC = ("float32", "float16", "int8-weights")


@dataclass(frozen=True)
class Layer:
    """One step of the student in the file.

    Attributes:
        name, kind: of the step.
        unit: 'LSB' of the step's own scale, or 'range' (the reference's largest value minus its smallest).
        error: root of the mean squared difference in the channel where it is largest, in `unit`.
        channel: that channel.
        largest: difference of a single value, in `unit`.
        grid: how the file's scale or zero point differs from the student's, or None.
        left: error above the tolerance, or another grid.
    """

    name: str
    kind: str
    unit: str
    error: float
    channel: int
    largest: float
    grid: str | None
    left: bool


@dataclass(frozen=True)
class Comparison:
    """All layers that the file has a value for, in order, and those that it has none for."""

    layers: tuple[Layer, ...]
    missing: tuple[str, ...]
    tolerance: float

    @property
    def culprit(self) -> Layer | None:
        """The first layer that leaves the reference: what it reads is still right."""
        return next((layer for layer in self.layers if layer.left), None)


def tolerance_of(precision: Precision) -> float:
    """The largest error that is called rounding.

    Integers: 0.25 LSB in the worst channel, which is one value in 16 off by one. LiteRT's XNNPACK and ONNX Runtime compute
    the student's integers exactly; in a Core ML file a tie may fall the other way, which gave 0.05 LSB at most on the
    zoo's student. Real numbers: of the layer's range, 1e-5 for float32 (3e-7 was seen), 5e-3 where values may be float16
    (5e-4 was seen).
    """
    return REAL_TOLERANCES.get(precision, INTEGER_TOLERANCE)


def compare(student: Student, trace: Trace, pixels: Pixels, tolerance: float | None = None) -> Comparison:
    """Compares a file's values with those of the PyTorch student: the deploy graph's real values, or the integers of the
    int8 arithmetic.

    Args:
        student: int8 for an int8 file.
        trace: of the file, for the same image.
        pixels: (H, W, 3).
        tolerance: see `tolerance_of`, which is the default.

    Raises:
        BadInput: a float student for a file of integers.
    """
    precision = trace.metadata.precision
    tolerance = tolerance_of(precision) if tolerance is None else tolerance
    layers, missing = [], []
    for name, kind, expected, grid in _reference(student, precision, pixels):
        value = trace.values.get(name)
        if value is None:
            missing.append(name)
        elif value.numbers.shape != expected.shape:
            text = f"shape {value.numbers.shape} instead of {expected.shape}"
            layers.append(Layer(name, kind, "LSB" if grid else "range", float("inf"), 0, float("inf"), text, True))
        else:
            layers.append(_layer(name, kind, value, expected, grid, tolerance))
    return Comparison(tuple(layers), tuple(missing), tolerance)


@torch.no_grad()
def _reference(
    student: Student, precision: Precision, pixels: Pixels
) -> Iterator[tuple[str, str, Real, ActivationScale | None]]:
    """(step, its kind, its value (C, H, W), its scale if the value is of integers), without the input."""
    graph, quantization = parts(student, precision)
    x = torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255
    integers = quantization is not None and precision not in REAL_ARITHMETIC
    values = IntegerStudent(graph, quantization).integers(x) if integers and quantization else graph.values(x)
    for name, value in values:
        if name != INPUT:
            scale = quantization.activations.get(name) if integers and quantization else None
            yield name, type(graph.operators[name]).__name__, _array(value), scale


def _array(value: Tensor) -> Real:
    return value[0].double().numpy()


def _layer(name: str, kind: str, value: Value, expected: Real, grid: ActivationScale | None, tolerance: float) -> Layer:
    text = None
    if grid is None:
        unit = max(float(expected.max() - expected.min()), np.finfo(np.float32).tiny)
        difference = (value.numbers - expected) / unit
    elif not value.integers:  # dequantized in the file, where a step only moves values
        difference = value.numbers / grid.scale + grid.zero_point - expected
    else:
        difference = value.numbers - expected
        if value.grid and (np.float32(value.grid[0]), value.grid[1]) != (np.float32(grid.scale), grid.zero_point):
            text = "scale {:.6g} and zero point {}".format(*value.grid)
            text += f" instead of {grid.scale:.6g} and {grid.zero_point}"
    errors = np.sqrt((difference**2).mean(axis=(1, 2)))
    worst = int(errors.argmax())
    error = float(errors[worst])
    return Layer(
        name=name,
        kind=kind,
        unit="range" if grid is None else "LSB",
        error=error,
        channel=worst,
        largest=float(np.abs(difference).max()),
        grid=text,
        left=not error <= tolerance or text is not None,
    )
