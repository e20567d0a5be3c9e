"""Architectures: sizes as published, deploy graph and merged branches equal to the network, reach and cost as stated."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from compress.deploy import Conv, DepthToSpace, shuffle_order
from compress.errors import BadInput
from compress.models import build
from compress.models.anchor import Anchor
from compress.models.reparameterization import ReparameterizedConv

SMALL_ANCHOR = {"channels": 8, "blocks": 2}
SMALL_SRRESNET = {"channels": 8, "blocks": 2, "head_kernel": 5, "tail_kernel": 3}
SMALL_EDSR = {"channels": 8, "blocks": 2, "residual_scale": 0.5}
MINI_EDSR = {"channels": 16, "blocks": 8, "residual_scale": 2}
FULL_EDSR = {"channels": 256, "blocks": 32, "residual_scale": 0.1}


def _image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("architecture", "options", "parameters"),
    [
        ("srresnet", {"blocks": 16}, 1_549_462),
        ("srresnet", {"blocks": 6}, 808_332),
        ("srresnet", {"blocks": 4}, 660_106),
        ("anchor", {"channels": 24, "blocks": 8}, 52_752),
        ("edsr", {"scale": 2}, 1_369_859),
        ("edsr", {"scale": 3}, 1_554_499),
        ("edsr", {"scale": 4}, 1_517_571),
        ("edsr", {**MINI_EDSR, "scale": 2}, 49_603),
        ("edsr", {**MINI_EDSR, "scale": 3}, 61_203),
        ("edsr", {**MINI_EDSR, "scale": 4}, 58_883),
        ("edsr", {**FULL_EDSR, "scale": 2}, 40_729_603),
        ("edsr", {**FULL_EDSR, "scale": 3}, 43_680_003),
        ("edsr", {**FULL_EDSR, "scale": 4}, 43_089_923),
    ],
)
def test_parameter_counts_are_the_published_ones(architecture, options, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build(architecture, options).parameters()) == parameters


def test_the_deploy_graph_counts_what_ships():
    assert build("anchor", {"channels": 24, "blocks": 8, "branches": True}).deploy().parameters_count() == 52_752


VARIANTS = [
    *(("anchor", {**SMALL_ANCHOR, "scale": s, "branches": b}) for s, b in itertools.product((2, 3, 4), (False, True))),
    ("anchor", {"channels": 8, "blocks": 0}),
    *(
        ("srresnet", {**SMALL_SRRESNET, "scale": s, "activation": a, "batch_norm": n, "trunk_end": e, "output": o})
        for s, a, n, e, o in itertools.product(
            (2, 3, 4), ("prelu", "relu"), (True, False), ("batch_norm", "activation", "none"), ("linear", "tanh")
        )
    ),
    ("srresnet", {**SMALL_SRRESNET, "scale": 8}),
    ("srresnet", {**SMALL_SRRESNET, "blocks": 0}),
    *(
        ("edsr", {**SMALL_EDSR, "scale": s, "residual_scale": r})
        for s, r in itertools.product((2, 3, 4), (0.1, 1, 2.0))
    ),
    *(("edsr", {**SMALL_EDSR, "scale": s, "block_channels": 5, "stage_channels": 6}) for s in (2, 3, 4)),
    ("edsr", {**SMALL_EDSR, "blocks": 0}),
]


@pytest.mark.parametrize(("architecture", "options"), VARIANTS)
def test_every_variant_has_the_right_size_and_range_and_equals_its_deploy_graph(architecture, options, randomised):
    torch.manual_seed(0)
    network = randomised(build(architecture, options)).eval()
    scale = network.config.scale
    lr = _image(9, 14)
    with torch.no_grad():
        sr, shipped = network(lr), network.deploy()(lr)
    assert sr.shape == (1, 3, 9 * scale, 14 * scale)
    assert sr.min() >= 0
    assert sr.max() <= 1
    assert sr.std() > 1e-3, "a constant output would prove nothing"
    assert (sr - shipped).abs().max() < 1e-5


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("rlfn", {"channels": 8, "blocks": 1, "attention_channels": 4}),
        ("swinir", {"depths": (2, 1), "dim": 8, "heads": 2}),
    ],
)
def test_a_teacher_network_has_the_right_size_and_range(architecture, options, scale):
    torch.manual_seed(0)
    network = build(architecture, {**options, "scale": scale}).eval()
    with torch.no_grad():
        sr = network(_image(20, 17))
    assert sr.shape == (1, 3, 20 * scale, 17 * scale)
    assert 0 <= sr.min() <= sr.max() <= 1


@pytest.mark.parametrize(("architecture", "options"), [("anchor", SMALL_ANCHOR), ("edsr", SMALL_EDSR)])
def test_a_linear_output_is_clipped_only_after_training(architecture, options):
    torch.manual_seed(0)
    network = build(architecture, options)
    with torch.no_grad():
        network.tail.bias.fill_(2.0)
        assert network.train()(_image(8, 8)).max() > 1
        assert network.eval()(_image(8, 8)).max() == 1


@pytest.mark.parametrize("scale", [2, 3])
def test_depth_to_space_equals_pixel_shuffle_in_reordered_channels(scale):
    x = torch.arange(2 * 5 * scale**2 * 3 * 4).float().reshape(2, 5 * scale**2, 3, 4)
    assert torch.equal(
        DepthToSpace(scale)(x[:, shuffle_order(5 * scale**2, scale)]), nn.functional.pixel_shuffle(x, scale)
    )


@pytest.mark.parametrize(("given", "made"), [(3, 8), (8, 8), (8, 27)])
def test_branches_equal_the_one_convolution_up_to_the_border(given, made, randomised):
    torch.manual_seed(0)
    conv = randomised(ReparameterizedConv(given, made))
    with torch.no_grad():
        conv.edge_scale.copy_(torch.randn(3, made))
        for branch in (conv.widen, *conv.mix):
            branch.bias.copy_(torch.randn_like(branch.bias))
        conv.squeeze.weight.copy_(0.2 * torch.randn_like(conv.squeeze.weight))
    x = torch.randn(2, given, 7, 6)
    merged, branched = conv(x), conv.branches(x)
    assert merged.shape == branched.shape == (2, made, 7, 6)
    assert (merged - branched).abs().max() < 1e-5 * max(1.0, branched.abs().max().item())


def test_a_merged_anchor_equals_the_branched_one_and_has_no_branches(randomised):
    torch.manual_seed(0)
    branched = randomised(build("anchor", {**SMALL_ANCHOR, "branches": True})).eval()
    merged = branched.merged()
    assert isinstance(merged, Anchor)
    assert not any(isinstance(module, ReparameterizedConv) for module in merged.modules())
    assert not merged.training
    with torch.no_grad():
        assert (merged(_image(11, 8)) - branched(_image(11, 8))).abs().max() < 1e-6


def test_gradients_reach_every_parameter_of_every_branch():
    torch.manual_seed(0)
    network = build("anchor", {**SMALL_ANCHOR, "branches": True}).train()
    network(_image(12, 12)).square().mean().backward()
    # the biases in front of Sobel filters act through the sum of the filter, which is 0
    idle = [f"mix.{i}.bias" for i in range(3)]
    without = [n for n, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    assert [name for name in without if not name.endswith(tuple(idle))] == []


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("anchor", {"channels": 8, "blocks": 3, "scale": 2}),
        ("anchor", {"channels": 8, "blocks": 2, "scale": 3}),
        ("srresnet", {"channels": 8, "blocks": 1, "head_kernel": 5, "tail_kernel": 9, "scale": 4}),
        ("srresnet", {"channels": 8, "blocks": 2, "head_kernel": 3, "tail_kernel": 3, "scale": 2}),
        ("srresnet", {"channels": 8, "blocks": 1, "head_kernel": 3, "tail_kernel": 5, "scale": 3}),
        ("edsr", {"channels": 8, "blocks": 2, "scale": 2}),
        ("edsr", {"channels": 8, "blocks": 1, "scale": 3, "residual_scale": 2.0}),
        ("edsr", {"channels": 8, "blocks": 1, "scale": 4, "block_channels": 4, "stage_channels": 4}),
    ],
)
def test_the_receptive_radius_is_what_a_changed_pixel_reaches(architecture, options):
    torch.manual_seed(0)
    graph = build(architecture, options).eval().deploy().double()
    for operator in graph.operators.values():  # all weights positive: no change can cancel, no ReLU can hide it
        if isinstance(operator, Conv):
            operator.weight.abs_().div_(operator.weight.sum((1, 2, 3), keepdim=True)).mul_(0.3)
            operator.bias.zero_()
    radius, scale = graph.receptive_radius(), graph.scale
    side, at = 2 * radius + 9, radius + 4
    lr = torch.full((1, 3, side, side), 0.1, dtype=torch.float64)
    changed = lr.clone()
    changed[:, :, at, at] += 0.1
    differs = (graph(lr) != graph(changed)).any(1)[0]
    cells = differs.reshape(side, scale, side, scale).any(3).any(1)  # by the LR pixel that an output pixel lies in
    reached = cells.nonzero() - at
    assert reached.abs().max() == radius
    assert reached[:, 0].min() == -radius or reached[:, 0].max() == radius


def test_the_radius_grows_with_the_published_kernels():
    assert build("anchor", {}).deploy().receptive_radius() == 10
    # 4 (head) + 2 per block + 1 (trunk) + 1 (first stage) + 1/2 (second) + 4/4 (tail), rounded up
    assert build("srresnet", {"blocks": 4}).deploy().receptive_radius() == 16
    # 1 (head) + 2 per block + 1 (trunk) + 1 (first stage) + 1/2 (second) + 1/4 (tail), rounded up
    assert build("edsr", MINI_EDSR).deploy().receptive_radius() == 20


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("anchor", {"channels": 8, "blocks": 3, "scale": 3}),
        ("srresnet", {"channels": 8, "blocks": 2, "scale": 4}),
        ("srresnet", {"channels": 8, "blocks": 1, "scale": 3}),
        ("edsr", {"channels": 8, "blocks": 2, "scale": 2}),
        ("edsr", {"channels": 8, "blocks": 1, "scale": 3, "block_channels": 4}),
        ("edsr", {"channels": 8, "blocks": 1, "scale": 4, "stage_channels": 4}),
    ],
)
def test_multiply_accumulates_agree_with_torchs_own_counter(architecture, options):
    network = build(architecture, options).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(_image(10, 13))
    assert 2 * network.deploy().macs(10, 13) == counter.get_total_flops()


@pytest.mark.parametrize(
    ("architecture", "options", "says"),
    [
        ("espcn", {}, "expected an architecture out of anchor, srresnet, edsr, rlfn, bsrn, swinir, found 'espcn'"),
        ("anchor", {"width": 8}, "found 'width'"),
        ("anchor", {"channels": "8"}, "anchor's channels to be of type int, found '8'"),
        ("anchor", {"channels": True}, "of type int, found True"),
        ("anchor", {"channels": 8.0}, "of type int, found 8.0"),
        ("anchor", {"channels": 0}, "positive"),
        ("anchor", {"blocks": -1}, "positive"),
        ("anchor", {"scale": 5}, "anchor's scale to be one of 2, 3, 4, found 5"),
        ("anchor", {"scale": 4.0}, "one of 2, 3, 4, found 4.0"),
        ("anchor", {"branches": 1}, "of type bool"),
        ("srresnet", {"head_kernel": 8}, "odd, found 8: use 9"),
        ("srresnet", {"tail_kernel": 4}, "odd"),
        ("srresnet", {"activation": "gelu"}, "one of prelu, relu"),
        ("srresnet", {"trunk_end": None}, "found None"),
        ("rlfn", {"scale": 8}, "one of 2, 3, 4, found 8"),
        ("edsr", {"scale": 8}, "one of 2, 3, 4, found 8"),
        ("edsr", {"residual_scale": "1"}, "edsr's residual_scale to be of type float, found '1'"),
        ("edsr", {"residual_scale": float("nan")}, "edsr's residual_scale to be a finite number, found nan"),
        ("edsr", {"block_channels": -8}, "edsr's block_channels to be positive, found -8"),
        ("edsr", {"channels": 0}, "edsr's channels to be positive, found 0"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(architecture, options, says):
    with pytest.raises(BadInput) as caught:
        build(architecture, options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (14, 40), (40, 14), (15, 15)])
def test_rlfn_takes_images_that_would_vanish_in_its_attention(height, width, randomised):
    network = randomised(build("rlfn", {"channels": 8, "blocks": 1, "attention_channels": 4})).eval()
    lr = _image(height, width)
    with torch.no_grad():
        sr = network(lr)
        wide = network(nn.functional.pad(lr, (0, max(0, 15 - width), 0, max(0, 15 - height)), "replicate"))
    assert sr.shape == (1, 3, 4 * height, 4 * width)
    assert torch.equal(sr, wide[..., : 4 * height, : 4 * width])
