"""Where features are looked at: three modules of every network, in order, with LR-resolution features."""

import pytest
import torch

from compress.models import build
from compress.models.taps import thirds

SIDE = 24
CASES = [
    *(("anchor", {"channels": 4, "blocks": b}) for b in (0, 1, 2, 6)),
    ("anchor", {"channels": 4, "blocks": 3, "branches": True}),
    *(("srresnet", {"channels": 4, "blocks": b, "head_kernel": 3, "tail_kernel": 3}) for b in (0, 1, 6)),
    *(("edsr", {"channels": 4, "blocks": b, "scale": 3}) for b in (0, 1, 6)),
    *(("rlfn", {"channels": 4, "blocks": b, "attention_channels": 2}) for b in (0, 1, 6)),
    *(("swinir", {"depths": (1,) * layers, "dim": 4, "heads": 2, "scale": 2}) for layers in (1, 3, 4)),
]


@pytest.mark.parametrize(("architecture", "options"), CASES)
def test_taps_are_modules_whose_outputs_are_features_at_lr_resolution_in_order(architecture, options):
    torch.manual_seed(0)
    network = build(architecture, options)
    names, seen = network.taps(), []
    assert len(names) == 3
    for name in dict.fromkeys(names):
        network.get_submodule(name).register_forward_hook(lambda m, i, output, name=name: seen.append((name, output)))
    with torch.no_grad():
        network(torch.rand(2, 3, SIDE, SIDE))
    assert [name for name, _ in seen] == list(dict.fromkeys(names)), "in the order in which they are computed"
    width = options.get("channels", options.get("dim"))
    assert all(output.shape == (2, width, SIDE, SIDE) for _, output in seen)
    assert all(output.std() > 0 for _, output in seen)


def test_an_image_that_is_no_multiple_of_the_window_has_taps_of_the_padded_size():
    network = build("swinir", {"depths": (1,), "dim": 4, "heads": 2, "scale": 2})
    shapes = []
    network.get_submodule(network.taps()[2]).register_forward_hook(lambda m, i, output: shapes.append(output.shape))
    network(torch.rand(1, 3, 9, 17))
    assert shapes == [(1, 4, 16, 24)]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [(16, [5, 11, 16]), (8, [3, 5, 8]), (6, [2, 4, 6]), (4, [1, 3, 4]), (3, [1, 2, 3]), (1, [0, 1, 1]), (0, [0, 0, 0])],
)
def test_taps_lie_after_one_two_and_three_thirds_of_the_body(parts, expected):
    assert thirds([str(i) for i in range(parts + 1)]) == [str(i) for i in expected]
