"""Published networks that are one chain of convolutions: ABPN, ETDS and the plain net of ETDS's paper, at phone size.

Du et al., "Anchor-based Plain Net for Mobile Image Super-Resolution" (CVPRW 2021); Chao et al., "Equivalent
Transformation and Dual Stream Network Construction for Mobile Image Super-Resolution" (CVPR 2023). Their weights become
students that are quantized and exported as ours are.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from compress.checkpoint import Student, read_tensors
from compress.deploy import INPUT, Add, Clip, Conv, DeployGraph, DepthToSpace, Repeat, shuffle_order
from compress.errors import BadInput
from compress.files import sha256

SCALE = 4
LINEAR_END = ("Plain", "ABPN")  # ETDS's last two layers end in a ReLU


@dataclass(frozen=True, kw_only=True)
class Chain(Student):
    """A published chain of convolutions as a student.

    Attributes:
        anchor: add the repeated input before the shuffle.
        linear_end: no ReLU after the last convolution.
    """

    anchor: bool
    linear_end: bool
    config: dict[str, int] = field(default_factory=lambda: {"scale": SCALE})

    @property
    def has_graph(self) -> bool:
        return True

    def deploy(self) -> DeployGraph:
        """The network as it ships."""
        graph, x, names = DeployGraph(SCALE), INPUT, _layers(self.weights)
        for name in names:
            weight, bias = self.weights[f"{name}.weight"], self.weights[f"{name}.bias"]
            if name == names[-1]:
                order = shuffle_order(len(weight), SCALE)
                weight, bias = weight[order], bias[order]
            linear = name == names[-1] and self.linear_end
            x = graph.add(name.replace(".", "_"), Conv(weight, bias, "none" if linear else "relu"), x)
        if self.anchor:
            x = graph.add("sum", Add(), x, graph.add("anchor", Repeat(SCALE**2), INPUT))
        graph.add("sr", DepthToSpace(SCALE), graph.add("clip", Clip(), x))
        return graph

    def network(self) -> nn.Module:
        """The same: it has no other form."""
        return self.deploy().eval()


def load_chain(path: Path) -> Chain:
    """Reads published weights, named by their network: ABPN_..., ETDS_... or Plain_...

    Raises:
        BadInput: an unreadable file, or weights of another network.
    """
    kind = path.stem.partition("_")[0]
    weights = read_tensors(path)
    if not isinstance(weights, dict) or kind not in (*LINEAR_END, "ETDS") or not _layers(weights):
        raise BadInput(f"expected weights of a chain of convolutions, found something else in {path}: check the file.")
    return Chain(
        architecture=kind.lower(),
        weights=dict(weights),
        provenance={"published": path.name},
        file_hash=sha256(path),
        anchor=kind == "ABPN",
        linear_end=kind in LINEAR_END,
    )


def _layers(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the convolutions from the first to the last, which is the order in which they are stored."""
    return [found[1] for name in weights if (found := re.fullmatch(r"(.+)\.weight", name))]
