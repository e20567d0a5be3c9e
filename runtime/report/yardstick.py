"""One small network that is timed in every run, so that latencies of two runs on two machines can be laid side by side."""

from compress.checkpoint import Student
from compress.models import build
from runtime.engines.pytorch import PytorchEngine

SIDE = 128
"""Height and width of the LR image that it is timed with."""


def yardstick(scale: int, threads: int = 1) -> PytorchEngine:
    """The zoo's float network (`compress.models.anchor`, nine 3x3 convolutions of 24 channels) with random weights, in PyTorch.

    Weights do not change what a float convolution costs, so that this needs no file. A latency over its latency,
    both of one run, says more about another machine than milliseconds do, and less than a measurement there.
    """
    return PytorchEngine(Student.of(build("anchor", {"scale": scale})), threads=threads)
