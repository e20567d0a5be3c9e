"""SwinIR: its attention against loops over windows and heads, borders and odd sizes, sizes as published, training."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.images import read_image
from compress.errors import BadInput
from compress.models import build
from compress.models.swinir import reflect_to_multiple
from compress.models.swinir_attention import (
    SwinBlock,
    WindowAttention,
    from_windows,
    relative_position,
    shift_mask,
    to_windows,
)

TINY = {"scale": 2, "depths": (2,), "dim": 8, "heads": 2, "window": 4}


def _image(height: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def _attention_in_loops(attention: WindowAttention, x: Tensor, shift: int) -> Tensor:
    """Window by window, head by head, pixel pair by pixel pair; no roll and no mask.

    The grid of windows begins `shift` pixels inside the image, so those at its borders are smaller. Two pixels see each
    other if they lie in the same cell of the grid.
    """
    n, height, width, dim = x.shape
    window, heads = attention.window, attention.heads
    size = dim // heads
    q, k, v = attention.qkv(x).split(dim, -1)
    mixed = torch.zeros_like(x)
    rows, columns = ([range(max(0, a), min(side, a + window)) for a in range(shift - window if shift else 0, side, window)]
                     for side in (height, width))  # fmt: skip
    for image in range(n):
        for pixels in ([(y, x) for y in ys for x in xs] for ys in rows for xs in columns):
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                for y, x_ in pixels:
                    scores = []
                    for key_y, key_x in pixels:
                        place = (y - key_y + window - 1) * (2 * window - 1) + x_ - key_x + window - 1
                        product = q[image, y, x_, part] @ k[image, key_y, key_x, part]
                        scores.append(product / size**0.5 + attention.relative_position_bias_table[place, head])
                    weights = torch.stack(scores).softmax(0)
                    values = torch.stack([v[image, key_y, key_x, part] for key_y, key_x in pixels])
                    mixed[image, y, x_, part] = weights @ values
    return attention.proj(mixed)


def _block_in_loops(block: SwinBlock, x: Tensor) -> Tensor:
    x = x + _attention_in_loops(block.attn, block.norm1(x), block.shift)
    return x + block.mlp(block.norm2(x))


@pytest.mark.parametrize("trains", [True, False], ids=["trains", "frozen"])
@pytest.mark.parametrize(
    ("window", "shift", "height", "width"), [(4, 0, 8, 4), (4, 2, 8, 12), (4, 2, 4, 4), (3, 1, 6, 3), (2, 1, 4, 6)]
)
def test_attention_equals_loops_over_windows_and_heads(window, shift, height, width, trains, randomised):
    torch.manual_seed(0)
    block = randomised(SwinBlock(6, 2, window, 2, shift)).double().requires_grad_(trains)
    nn.init.normal_(block.attn.relative_position_bias_table)
    x = torch.randn(2, height, width, 6, dtype=torch.float64)
    result = block(x, shift_mask(height, width, window, x.device))
    plain = _block_in_loops(block, x)
    assert (result - plain).abs().max() < 1e-12
    if trains:
        weights = torch.randn_like(result)
        ours, theirs = (torch.autograd.grad((y * weights).sum(), list(block.parameters())) for y in (result, plain))
        for name, one, other in zip(dict(block.named_parameters()), ours, theirs, strict=True):
            assert (one - other).abs().max() < 1e-10, name
        assert ours[2].abs().max() > 1e-3, "of the bias table"


def test_windows_are_cut_row_by_row_and_put_back():
    x = torch.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    windows = to_windows(x, 2)
    assert windows.shape == (2, 6, 4, 3)
    assert torch.equal(windows[1, 4], x[1, 2:4, 2:4].reshape(4, 3))
    assert torch.equal(from_windows(windows, 4, 6), x)


def test_a_pixel_pair_has_the_bias_of_its_offset():
    index = relative_position(4)
    assert index.shape == (16, 16)
    assert len(index.unique()) == 49
    assert (index.diagonal() == 24).all()
    assert index[0, 5] == index[5, 10] == 24 - 7 - 1, "a key below and right of its query"


def test_shifted_windows_join_no_pixels_from_opposite_ends():
    allowed = shift_mask(8, 12, 4, torch.device("cpu"))
    assert allowed.shape == (6, 16, 16)
    assert allowed[0].all()
    assert allowed[1].all()
    right, corner = allowed[2].reshape(4, 4, 4, 4), allowed[5].reshape(4, 4, 4, 4)  # (y, x) of query, (y, x) of key
    assert right[:, :2, :, :2].all()
    assert not right[:, :2, :, 2:].any()
    assert corner[:2, :2, :2, :2].all()
    assert corner[0, 0].sum() == corner[3, 3].sum() == 4


@pytest.mark.filterwarnings("ignore:torch.meshgrid")
def test_it_computes_what_the_published_program_does_with_the_same_weights(randomised):
    theirs = pytest.importorskip("spandrel.architectures.SwinIR", reason="spandrel is not installed")
    torch.manual_seed(0)
    network = randomised(build("swinir", {"scale": 3, "depths": (2, 1), "dim": 12, "heads": 3})).train()
    published = theirs.SwinIR(
        upscale=3, img_size=16, window_size=8, depths=[2, 1], embed_dim=12, num_heads=[3, 3], mlp_ratio=2,
        upsampler="pixelshuffledirect", drop_path_rate=0.0,
    )  # fmt: skip
    missing, unexpected = published.load_state_dict(network.state_dict(), strict=False)
    assert not unexpected
    assert {name.rsplit(".")[-1] for name in missing} == {"relative_position_index", "attn_mask"}
    for height, width in ((16, 16), (13, 21)):
        assert (network(_image(height, width)) - published(_image(height, width))).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({"scale": 2}, 910_152),
        ({"scale": 3}, 918_267),
        ({"scale": 4}, 929_628),
        ({"scale": 2, "depths": (4, 4, 4), "dim": 24}, 98_868),
        ({"scale": 3, "depths": (4, 4, 4), "dim": 24}, 102_123),
        ({"scale": 4, "depths": (4, 4, 4), "dim": 24}, 106_680),
    ],
)
def test_parameter_counts_are_the_published_ones(options, parameters):
    with torch.device("meta"):
        assert sum(p.numel() for p in build("swinir", options).parameters()) == parameters


def test_the_mini_has_89_percent_fewer_parameters_than_the_light_network_at_x2():
    assert round(100 * (1 - 98_868 / 910_152)) == 89


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize(("height", "width"), [(8, 12), (9, 14), (3, 5), (1, 1), (1, 7), (2, 40)])
def test_any_size_goes_in_and_its_multiple_comes_out(scale, height, width, randomised):
    network = randomised(build("swinir", {**TINY, "scale": scale}))
    with torch.no_grad():
        trained, shipped = network.train()(_image(height, width)), network.eval()(_image(height, width))
    assert trained.shape == shipped.shape == (1, 3, scale * height, scale * width)
    assert trained.isfinite().all()
    assert torch.equal(shipped, trained.clamp(0, 1)), "clipped only after training"


def test_a_continued_image_is_reflected_at_its_end():
    x = torch.arange(5.0).expand(1, 1, 5, 5)
    assert reflect_to_multiple(x, 8).shape == (1, 1, 8, 8)
    assert reflect_to_multiple(x, 8)[0, 0, 0].tolist() == [0, 1, 2, 3, 4, 3, 2, 1]
    assert torch.equal(reflect_to_multiple(_image(9, 14), 8), F.pad(_image(9, 14), (0, 2, 0, 7), mode="reflect"))
    assert reflect_to_multiple(x[..., :3], 8)[0, 0, 0].tolist() == [0, 1, 2, 1, 0, 1, 2, 1], "back and forth"
    assert reflect_to_multiple(x[..., 3:4], 4)[0, 0, 0].tolist() == [3, 3, 3, 3]
    assert reflect_to_multiple(x, 5) is x


def test_an_odd_size_is_the_reflected_image_upscaled_and_cut(randomised):
    network = randomised(build("swinir", TINY)).eval()
    with torch.no_grad():
        odd, even = network(_image(9, 14)), network(F.pad(_image(9, 14), (0, 2, 0, 3), mode="reflect"))
    assert torch.equal(odd, even[..., :18, :28])


@pytest.mark.parametrize("at", [(0, 0), (0, 23), (23, 0), (23, 23), (12, 11)])
def test_a_changed_pixel_reaches_its_neighbourhood_and_never_the_opposite_border(at, randomised):
    network = randomised(build("swinir", TINY)).double().train()
    lr = _image(24, 24).double()
    changed = lr.clone()
    changed[0, :, at[0], at[1]] += 0.1
    with torch.no_grad():
        x, y = (network(image) for image in (lr, changed))
    differs = (x != y).any(1)[0].reshape(24, 2, 24, 2).any(3).any(1)
    # conv_first, two attentions that each see at most 3 pixels on, then three convolutions
    reached = (differs.nonzero() - torch.tensor(at)).abs().amax(0)
    assert differs[at]
    assert (reached <= 1 + 3 + 3 + 3).all()
    assert (reached > 4).all(), "beyond what the convolutions alone see"


def test_every_image_of_a_batch_is_upscaled_by_itself(randomised):
    network = randomised(build("swinir", TINY)).eval()
    images = [_image(9, 6, seed) for seed in range(3)]
    with torch.no_grad():
        together, alone = network(torch.cat(images)), torch.cat([network(image) for image in images])
    assert (together - alone).abs().max() < 1e-5


def test_training_reaches_every_parameter_and_reduces_the_loss(photographs):
    torch.manual_seed(0)
    network = build("swinir", {**TINY, "depths": (2, 2)})
    hr = torch.tensor(read_image(photographs / "astronaut.png")).permute(2, 0, 1)[None, :, 40:88, 40:88] / 255
    lr = F.interpolate(hr, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    losses = []
    for _ in range(40):
        loss = F.l1_loss(network(lr), hr)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_mixed_precision_stays_close_and_gives_float32_pixels(randomised):
    network = randomised(build("swinir", TINY))
    exact = network(_image(12, 12))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(_image(12, 12))
        with torch.no_grad():
            fused = network(_image(12, 12))
    assert mixed.dtype == fused.dtype == torch.float32
    for found in (mixed, fused):
        assert 0 < (found - exact).abs().max() < 0.05 * exact.std()


def test_there_is_nothing_in_it_that_an_average_of_weights_and_buffers_would_spoil():
    network = build("swinir", TINY)
    assert list(network.state_dict()) == [name for name, _ in network.named_parameters()]
    assert all(buffer.is_floating_point() for buffer in network.buffers())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"depths": 6}, "swinir's depths to be a list of at least one value, found 6"),
        ({"depths": []}, "a list of at least one value, found []"),
        ({"depths": "6,6"}, "found '6,6'"),
        ({"depths": [6, 0]}, "every item of swinir's depths to be positive, found 0"),
        ({"depths": [6, 2.5]}, "every item of swinir's depths to be of type int, found 2.5"),
        ({"depths": [6, True]}, "of type int, found True"),
        ({"dim": 62}, "swinir's dim to be a multiple of its 6 heads, found 62: use 66"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_sentence(options, says):
    with pytest.raises(BadInput) as caught:
        build("swinir", options)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_list_from_yaml_becomes_the_tuple_of_the_config():
    assert build("swinir", {**TINY, "depths": [1, 2]}).config == build("swinir", {**TINY, "depths": (1, 2)}).config
