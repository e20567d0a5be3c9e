"""Networks of every kind that ships, for the tests of quantization-aware training."""

import torch
from torch import nn

from compress.deploy import Conv, DeployGraph
from compress.models import build

SMALL = {"scale": 2, "channels": 8, "blocks": 1}
VARIANTS = {
    "anchor": ("anchor", {"scale": 2, "channels": 8, "blocks": 2, "branches": True}),
    "relu": ("srresnet", {**SMALL, "activation": "relu", "head_kernel": 5, "tail_kernel": 5}),
    "prelu": ("srresnet", {**SMALL, "trunk_end": "activation", "output": "tanh"}),
    "x4": ("srresnet", {**SMALL, "scale": 4, "activation": "relu", "batch_norm": False, "tail_kernel": 3}),
    "edsr": ("edsr", {**SMALL, "residual_scale": 0.1}),
}


def network_of(name: str) -> nn.Module:
    """Fresh, with batch-norm statistics that differ from the initial ones, and an output in the middle of the range."""
    torch.manual_seed(1)
    architecture, options = VARIANTS[name]
    network = build(architecture, options)
    with torch.no_grad():
        if architecture != "anchor":
            network.tail.bias.fill_(0.0 if options.get("output") == "tanh" else 0.5)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 1.5)
            if isinstance(module, nn.PReLU):
                module.weight.fill_(0.15)
    return network


def assert_same_graph(one: DeployGraph, other: DeployGraph) -> None:
    assert one.inputs == other.inputs
    for (name, mine, _), (_, theirs, _) in zip(one.steps(), other.steps(), strict=True):
        assert type(mine) is type(theirs)
        assert getattr(mine, "slope", None) == getattr(theirs, "slope", None)
        if isinstance(mine, Conv):
            assert torch.equal(mine.weight, theirs.weight), name
            assert torch.equal(mine.bias, theirs.bias), name
