"""Whether a file has the weights of its student, number by number: what a wrong one changes may be in no photograph here."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compress.checkpoint import Student
from compress.deploy import Conv
from export.audit.contents import Contents, Tensor
from export.audit.weights import weights_of
from export.exporting import parts
from export.metadata import Precision

Numbers = NDArray[np.float64]
COMPARED: tuple[Precision, ...] = ("float32", "float16", "int8")
"""Precisions whose numbers every format stores as they are; Core ML rounds the scales of int8-weights to float16, say."""
SAME = 1e-5  # of a number: files keep scales as float32


def foreign_weights(contents: Contents, student: Student, precision: Precision) -> Iterator[str]:
    """The convolutions of the student whose weights or biases no layer of the file has, in one sentence, if there are any.

    The numbers of a layer are compared in order of size, without zeros: formats lay them out in different orders, and may
    leave zeros out. That they are in their places shows in the pictures.

    Args:
        contents: of a file of that precision.
        student: that can judge files of it. One without a deploy graph, or with masks, is not compared, nor are
            precisions besides `COMPARED`.
    """
    if not student.has_graph or student.sparsity is not None or precision not in COMPARED:
        return
    graph, quantization = parts(student, precision)
    weights = [_in_order(_real(one.stored)) for one in weights_of(contents)]
    constants = [_in_order(_real(one)) for one in contents.tensors.values() if one.values is not None]
    wrong = []
    for name, operator, inputs in graph.steps():
        if not isinstance(operator, Conv):
            continue
        weight, bias = operator.weight.double(), operator.bias.double()
        if quantization is not None:
            layer = quantization.layers[name]
            weight = layer.weight.double() * layer.scale.double()[:, None, None, None]
            bias = layer.bias.double() * layer.scale.double() * quantization.activations[inputs[0]].scale
        for what, found, wanted in (("weights", weights, weight), ("biases", constants, bias)):
            forms = [wanted, wanted.half().double()] if precision == "float16" else [wanted]
            if wanted.any() and not any(_same(one, _in_order(form.numpy().ravel())) for form in forms for one in found):
                wrong.append(f"the {what} of {name}")
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        yield f"wrong weights: no layer has {wrong[0]} of the student{more}: export it again"


def _real(stored: Tensor) -> Numbers:
    """What a constant stands for; scales are one per channel, which come first in every format."""
    assert stored.values is not None
    values = stored.values.astype(np.float64).ravel()
    if not stored.scales or values.size % len(stored.scales):
        return values
    return (values.reshape(len(stored.scales), -1) * np.array(stored.scales)[:, None]).ravel()


def _in_order(numbers: Numbers) -> Numbers:
    return np.sort(numbers[numbers != 0])


def _same(some: Numbers, others: Numbers) -> bool:
    return some.size == others.size and np.allclose(some, others, rtol=SAME, atol=0)
