"""What a student costs: parameters, multiply-accumulates, and the bytes of its weights."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from compress.card import OUTPUT
from compress.checkpoint import Student
from compress.models import build
from compress.pruning.storage import storage_sizes

FORMS = ("dense", "sparse", "compressed", "sparse_compressed")


@dataclass(frozen=True)
class Costs:
    """Costs of a student.

    Attributes:
        parameters: of the network that was trained, branches merged.
        macs: multiply-accumulates for one output image of `OUTPUT`, zeros counted too.
        nonzero: share of the parameters that are not zero.
        storage: bytes of the weights by precision and form; see `compress.pruning.storage`.
    """

    parameters: int
    macs: int
    nonzero: float
    storage: dict[str, dict[str, int]]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def costs(student: Student) -> Costs:
    """The costs of a float or int8 student."""
    network = student.network()
    parameters = list(network.parameters())
    count = sum(parameter.numel() for parameter in parameters)
    nonzero = sum(int(parameter.count_nonzero()) for parameter in parameters)
    storage = {one.precision: {form: getattr(one, form) for form in FORMS} for one in storage_sizes(student)}
    return Costs(count, macs(student), nonzero / count, storage)


def macs(student: Student) -> int:
    """Multiply-accumulates for an output image of `OUTPUT`.

    Counted on the deploy graph; for a network without one (SwinIR, teachers), on its forward pass, matrix products
    and what it pads included.
    """
    scale, (width, height) = student.scale, OUTPUT
    network = student.network()
    if hasattr(network, "deploy"):
        return round(network.deploy().macs(1, 1) * width * height / scale**2)
    with torch.device("meta"):  # shapes alone: takes no memory and no time
        bare = build(student.architecture, student.config).eval()
        lr = torch.empty(1, 3, -(-height // scale), -(-width // scale))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        bare(lr)
    return counter.get_total_flops() // 2
