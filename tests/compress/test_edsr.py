"""EDSR: the published arithmetic and costs, a start that trains at any depth, and its channel groups complete."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.images import read_image
from compress.errors import BadInput
from compress.models import build
from compress.models.edsr import EDSR

SMALL = {"channels": 6, "blocks": 2, "residual_scale": 0.5}
LR_SIZES = {2: (360, 640), 3: (240, 427), 4: (180, 320)}  # of a 1280x720 output; 427 is 1280 / 3 rounded up


def _image(height: int = 9, width: int = 14) -> Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def _on_paper(network: EDSR, x: Tensor) -> Tensor:
    """The equations of the paper, weight by weight, without the final clip."""
    weights = network.state_dict()

    def conv(name: str, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), weights[f"{name}.weight"], weights[f"{name}.bias"])

    config = network.config
    first = x = conv("head", x)
    for i in range(config.blocks):
        inner = conv(f"blocks.{i}.conv1", x)
        x = x + config.residual_scale * conv(f"blocks.{i}.conv2", torch.where(inner > 0, inner, 0.0))
    x = conv("trunk", x) + first
    for i, r in enumerate({2: [2], 3: [3], 4: [2, 2]}[config.scale]):
        n, c, h, w = (x := conv(f"stages.{i}", x)).shape
        x = x.reshape(n, c // r**2, r, r, h, w).permute(0, 1, 4, 2, 5, 3).reshape(n, c // r**2, h * r, w * r)
    return conv("tail", x)


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("widths", [{}, {"block_channels": 4, "stage_channels": 5}])
def test_it_computes_the_papers_equations_and_clips_only_after_training(scale, widths, randomised):
    network = randomised(build("edsr", {**SMALL, **widths, "scale": scale})).double()
    plain = _on_paper(network, _image().double())
    assert plain.min() < 0 or plain.max() > 1, "an output within the range would not show the clip"
    with torch.no_grad():
        trained, shipped = network.train()(_image().double()), network.eval()(_image().double())
    assert (trained - plain).abs().max() < 1e-6, "the output is in float32"
    assert (shipped - plain.clamp(0, 1)).abs().max() < 1e-6


def test_pixels_are_float32_under_mixed_precision():
    network = build("edsr", SMALL)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.train()(_image()).dtype == torch.float32
        assert network.eval()(_image()).dtype == torch.float32


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"channels": 64, "blocks": 16}, {2: 316, 3: 160, 4: 114}),
        ({"channels": 16, "blocks": 8, "residual_scale": 2}, {2: 11.6, 3: 6.6, 4: 5.3}),
    ],
    ids=["baseline", "mini"],
)
def test_multiply_adds_at_720p_are_the_published_ones(options, expected):
    for scale, published in expected.items():
        with torch.device("meta"):
            macs = build("edsr", {**options, "scale": scale}).deploy().macs(*LR_SIZES[scale]) / 1e9
        assert round(macs, 0 if published > 100 else 1) == published


def test_the_mini_has_96_percent_fewer_parameters_than_the_baseline_at_x2():
    baseline, mini = (
        sum(p.numel() for p in build("edsr", {"scale": 2, **options}).parameters())
        for options in ({}, {"channels": 16, "blocks": 8, "residual_scale": 2})
    )
    assert round(100 * (1 - mini / baseline)) == 96


@pytest.mark.parametrize("residual_scale", [0.1, 1.0, 2.0])
def test_a_fresh_deep_network_passes_signal_and_gradient_through_all_its_blocks(residual_scale):
    torch.manual_seed(0)
    network = build("edsr", {"channels": 16, "blocks": 40, "residual_scale": residual_scale})
    seen = []
    for name in ("head", "blocks.39"):
        network.get_submodule(name).register_forward_hook(
            lambda module, inputs, output: seen.append(output.std().item())
        )
    network(_image(24, 24)).abs().mean().backward()
    assert 0.7 < seen[1] / seen[0] < 2
    first, last = (network.blocks[i].conv1.weight.grad.norm().item() for i in (0, 39))
    assert 0.1 < first / last < 10


def test_a_deep_network_trains_from_its_start(photographs):
    torch.manual_seed(0)
    network = build("edsr", {"scale": 2, "channels": 8, "blocks": 24})
    hr = torch.tensor(read_image(photographs / "astronaut.png")).permute(2, 0, 1)[None, :, 40:88, 40:88] / 255
    lr = F.interpolate(hr, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    losses = []
    for _ in range(40):
        loss = F.l1_loss(network(lr), hr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] < 1, "a fresh network answers with numbers of the size of pixels"
    assert losses[-1] < 0.25 * losses[0]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_every_channel_is_in_one_group_and_named_by_its_option(scale):
    options = {**SMALL, "block_channels": 4, "stage_channels": 5, "scale": scale}
    network = build("edsr", options)
    convolutions = {name: m for name, m in network.named_modules() if isinstance(m, nn.Conv2d)}
    made, read = [], []
    for group in network.channel_groups():
        assert group.size == options[group.option]
        for producer in group.producers:
            assert convolutions[producer.layer].out_channels == group.size * producer.copies
            made.append(producer.layer)
        for consumer in group.consumers:
            assert (convolutions[consumer.layer].in_channels, consumer.offset) == (group.size, 0)
            read.append(consumer.layer)
    assert sorted([*made, "tail"]) == sorted(convolutions)
    assert sorted(["head", *read]) == sorted(convolutions)


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_a_residual_scale_that_leaves_no_branch_is_refused(value):
    with pytest.raises(BadInput, match=rf"edsr's residual_scale to be above 0, found {value}"):
        build("edsr", {"residual_scale": value})
