"""BSRN: sizes, range, attention as published, small inputs, taps, and its weights in files of other programs."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from compress.checkpoint import Student
from compress.errors import BadInput
from compress.models import build
from compress.models.bsrn import ChannelAttention, _over_all
from compress.published import load_published

SMALL = {"channels": 8, "blocks": 2, "distilled_channels": 6, "attention_channels": 5, "squeeze_channels": 3}


def _small(randomised, **options) -> nn.Module:
    torch.manual_seed(0)
    return randomised(build("bsrn", {**SMALL, **options})).eval()


def _image(height: int, width: int) -> torch.Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("scale", "parameters"), [(2, 331_628), (3, 340_283), (4, 352_400)])
def test_the_default_sizes_are_the_published_ones(scale, parameters):
    assert sum(p.numel() for p in build("bsrn", {"scale": scale}).parameters()) == parameters


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_the_output_has_the_right_size_and_is_clipped_only_after_training(scale, randomised):
    network = _small(randomised, scale=scale)
    with torch.no_grad():
        sr, unclipped = network(_image(20, 17)), network.train()(_image(20, 17))
    assert sr.shape == (1, 3, 20 * scale, 17 * scale)
    assert sr.std() > 1e-2, "a constant output would prove nothing"
    assert unclipped.min() < 0 or unclipped.max() > 1
    assert torch.equal(sr, unclipped.clamp(0, 1))


@pytest.mark.parametrize("size", [(1, 1), (6, 9), (14, 40), (40, 14)])
def test_an_input_too_small_to_pool_is_extended_by_its_last_row_and_column(size, randomised):
    network = _small(randomised, scale=2)
    height, width = size
    lr = _image(*size)
    rows, columns = (
        torch.arange(max(15, height)).clamp(max=height - 1),
        torch.arange(max(15, width)).clamp(max=width - 1),
    )
    with torch.no_grad():
        assert torch.equal(network(lr), network(lr[:, :, rows][..., columns])[..., : 2 * height, : 2 * width])


def test_channels_are_gated_by_their_mean_plus_population_deviation(randomised):
    attention = randomised(ChannelAttention(4, 3))
    x = torch.randn(2, 4, 5, 7)
    statistic = x.mean((2, 3)) + ((x - x.mean((2, 3), keepdim=True)) ** 2).mean((2, 3)).sqrt()
    squeeze, _, excite, _ = attention.conv_du
    hidden = (statistic @ squeeze.weight[:, :, 0, 0].T + squeeze.bias).clamp(min=0)
    gate = 1 / (1 + torch.exp(-(hidden @ excite.weight[:, :, 0, 0].T + excite.bias)))
    assert (attention(x) - x * gate[:, :, None, None]).abs().max() < 1e-5


def test_its_features_are_tapped_after_each_third_of_the_blocks(randomised):
    assert build("bsrn", {}).taps() == ["B3", "B5", "B8"]
    network = _small(randomised)
    assert network.taps() == ["B1", "B1", "B2"]
    seen = []
    network.get_submodule("B2").register_forward_hook(lambda _, __, output: seen.append(output.shape))
    network(_image(16, 18))
    assert seen == [(1, SMALL["channels"], 16, 18)]


def test_a_network_without_blocks_and_its_deploy_form_are_refused_in_one_sentence(randomised):
    with pytest.raises(BadInput, match="bsrn's blocks to be at least 1, found 0") as caught:
        build("bsrn", {"blocks": 0})
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="expected an architecture whose operators fit the deploy graph"):
        Student.of(_small(randomised)).deploy()


@pytest.mark.parametrize("nesting", ["params", "params_ema", "flat", "safetensors"])
def test_published_weights_are_found_under_what_training_programs_keep_them_and_bring_their_sizes(
    nesting, tmp_path, randomised
):
    network = _small(randomised, scale=3)
    weights, path = network.state_dict(), tmp_path / "w.pth"
    older = {name: torch.zeros_like(value) for name, value in weights.items()}
    if nesting == "safetensors":
        path = tmp_path / "w.safetensors"
        save_file(weights, path)
    else:
        nested = {
            "params": {"params": weights}, "params_ema": {"params": older, "params_ema": weights}, "flat": weights,
        }  # fmt: skip
        torch.save(nested[nesting], path)
    loaded = load_published(path, "bsrn")
    assert loaded.config == network.config
    with torch.no_grad():
        assert torch.equal(loaded(_image(16, 16)), network(_image(16, 16)))


def test_weights_whose_blocks_differ_in_size_are_refused_in_one_line(tmp_path, randomised):
    weights = _small(randomised).state_dict()
    weights["B2.c5.bias"] = torch.zeros(9)
    torch.save({"params": weights}, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"B2\.c5\.bias.*check the layout") as caught:
        load_published(tmp_path / "w.pth", "bsrn")
    assert "\n" not in str(caught.value)


def test_many_features_are_joined_a_few_at_a_time_with_the_same_result(randomised):
    network = randomised(build("bsrn", {**SMALL, "blocks": 7}))
    features = [torch.randn(1, SMALL["channels"], 9, 11) for _ in range(7)]
    wanted = network.c1(torch.cat(features, 1))
    assert (_over_all(network.c1, features) - wanted).abs().max() < 1e-5 * wanted.abs().max()
