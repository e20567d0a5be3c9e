"""What of a student is masked, as it ships."""

from torch import Tensor

from compress.checkpoint import Student
from compress.deploy import Conv
from export.exporting import check_masks, parts
from export.metadata import Precision


def masked_steps(student: Student) -> frozenset[str]:
    """Names of the convolutions whose weights are masked; only these are stored in a sparse form.

    Raises:
        BadInput: a student without masks.
    """
    check_masks(student)
    assert student.sparsity is not None
    return frozenset(student.sparsity.shipped(student.network()))


def shipped_weights(student: Student, precision: Precision) -> dict[str, Tensor]:
    """Weights (out, in, k, k) that a file of that precision holds, by the name of the convolution; integers where it
    holds integers. Raises BadInput as `export.exporting.parts`."""
    graph, quantization = parts(student, precision)
    if quantization:
        return {name: layer.weight for name, layer in quantization.layers.items()}
    return {name: step.weight for name, step, _ in graph.steps() if isinstance(step, Conv)}


def density(student: Student, precision: Precision) -> float:
    """Share of all weights of a file that are not zero, in [0, 1]; the layers left dense count too."""
    weights = shipped_weights(student, precision).values()
    return sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)
