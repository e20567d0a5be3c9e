"""The discriminator: layers and counts as published, it learns, and its file comes back or is refused."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.checkpoint import Student, save_student
from compress.errors import BadInput
from compress.files import sha256
from compress.models import ARCHITECTURES, build
from compress.models.discriminator import (
    FORMAT,
    Discriminator,
    DiscriminatorConfig,
    check_patch,
    load_discriminator,
    save_discriminator,
)

TINY = DiscriminatorConfig(width=4, patch=32, dense=8)


def _images(count: int = 2, side: int = 32, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_the_published_sizes_have_23_6_million_parameters_layer_by_layer():
    with torch.device("meta"):
        found = sum(p.numel() for p in Discriminator(DiscriminatorConfig()).parameters())
    assert found == (
        (3 * 64 * 9 + 64)  # the only convolution with a bias: batch norm has one on the others
        + (64 * 64 * 9 + 2 * 64)  # to 48x48
        + (64 * 128 * 9 + 2 * 128)
        + (128 * 128 * 9 + 2 * 128)  # to 24x24
        + (128 * 256 * 9 + 2 * 256)
        + (256 * 256 * 9 + 2 * 256)  # to 12x12
        + (256 * 512 * 9 + 2 * 512)
        + (512 * 512 * 9 + 2 * 512)  # to 6x6
        + (512 * 6 * 6 * 1024 + 1024)
        + (1024 + 1)
    )
    assert round(found / 1e6, 1) == 23.6


def test_layers_are_the_published_ones():
    layers = list(Discriminator(TINY).features)
    convolutions = [m for m in layers if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [4, 4, 8, 8, 16, 16, 32, 32]
    assert [c.stride[0] for c in convolutions] == [1, 2] * 4
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    kinds = [type(m).__name__ for m in layers]
    assert kinds == ["Conv2d", "LeakyReLU", *["Conv2d", "BatchNorm2d", "LeakyReLU"] * 7]
    assert {m.negative_slope for m in Discriminator(TINY).modules() if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_it_answers_with_one_logit_per_image_not_with_a_probability():
    torch.manual_seed(0)
    network = Discriminator(TINY).train()
    with torch.no_grad():
        network.judge[-1].weight.mul_(100)
        logits = network(_images(8))
    assert logits.shape == (8, 1)
    assert ((logits < 0) | (logits > 1)).any()


def test_mixed_precision_and_channels_last_change_the_logits_little(randomised):
    network = randomised(Discriminator(TINY)).eval()
    last = network.to(memory_format=torch.channels_last)(_images().contiguous(memory_format=torch.channels_last))
    exact = network(_images())
    assert (last - exact).abs().max() < 1e-4
    with torch.autocast("cpu", torch.bfloat16):
        mixed = network(_images())
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).abs().max() < 0.1 * exact.abs().max()


def test_it_learns_to_tell_sharp_from_blurred():
    torch.manual_seed(0)
    network = Discriminator(TINY).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)
    losses = []
    for step in range(40):
        sharp = _images(4, seed=step)
        logits = network(torch.cat([sharp, F.avg_pool2d(sharp, 3, 1, 1)]))
        loss = F.binary_cross_entropy_with_logits(logits, torch.tensor([[1.0]] * 4 + [[0.0]] * 4))
        optimizer.zero_grad()
        loss.backward()
        if not step:
            assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
        optimizer.step()
        losses.append(loss.item())
    assert 0.5 < losses[0] < 1, "a fresh one does not know: log 2"
    assert losses[-1] < 0.1


def test_it_is_no_upscaler():
    assert not any(issubclass(known.network, Discriminator) for known in ARCHITECTURES.values())


def test_patches_that_do_not_fit_are_refused_before_the_training():
    with pytest.raises(BadInput, match=r"multiple of 16 HR pixels, found 100: use 112"):
        DiscriminatorConfig(patch=100)
    check_patch(DiscriminatorConfig(), 96)
    with pytest.raises(BadInput, match=r"HR patches of 96 pixels for the discriminator, found 128"):
        check_patch(DiscriminatorConfig(), 128)


@pytest.fixture
def saved(randomised, tmp_path: Path) -> Path:
    save_discriminator(randomised(Discriminator(TINY)), tmp_path / "discriminator.pt")
    return tmp_path / "discriminator.pt"


def test_a_saved_one_comes_back_bit_for_bit_with_its_statistics(randomised, tmp_path):
    torch.manual_seed(0)
    network = randomised(Discriminator(TINY)).eval()
    digest = save_discriminator(network, tmp_path / "discriminator.pt")
    back = load_discriminator(tmp_path / "discriminator.pt")
    assert digest == sha256(tmp_path / "discriminator.pt")
    assert (back.config, back.training) == (TINY, False)
    assert torch.equal(back(_images()), network(_images()))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in back.state_dict().items())
    assert [p.name for p in tmp_path.iterdir()] == ["discriminator.pt"]


def _edited(path: Path, **changes: object) -> None:
    content = torch.load(path, weights_only=True)
    torch.save({key: value for key, value in {**content, **changes}.items() if value is not None}, path)


def _weights(path: Path) -> dict[str, Tensor]:
    return torch.load(path, weights_only=True)["weights"]


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "found no file"),
        (lambda path: path.write_bytes(path.read_bytes()[:3000]), "truncated"),
        (lambda path: torch.save({"a": torch.zeros(1)}, path), "expected a discriminator.pt, found weights of another"),
        (lambda path: torch.save(torch.zeros(1), path), "expected a discriminator.pt, found weights of another"),
        (
            lambda path: save_student(Student.of(build("anchor", {"channels": 8, "blocks": 0})), path),
            "expected a discriminator.pt, found a student",
        ),
        (lambda path: _edited(path, version=2), "format version 1 of discriminator.pt, found version 2"),
        (lambda path: _edited(path, weights=None), "expected the field 'weights'"),
        (lambda path: _edited(path, config=[4]), "expected the field 'config'"),
        (lambda path: _edited(path, config={"width": 0}), "discriminator's width to be positive"),
        (lambda path: _edited(path, config={"patch": 50}), "multiple of 16"),
        (lambda path: _edited(path, config={"depth": 5}), "found 'depth'"),
        (lambda path: _edited(path, config={"width": 8, "patch": 32, "dense": 8}), "weights that fit"),
        (lambda path: _edited(path, weights={**_weights(path), "judge.0.bias": "text"}), "weights that fit"),
        (lambda path: _edited(path, weights={"judge.0.bias": torch.zeros(8)}), "weights that fit"),
    ],
)
def test_other_files_are_refused_in_one_sentence(spoil, says, saved):
    spoil(saved)
    with pytest.raises(BadInput) as caught:
        load_discriminator(saved)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_file_is_plain_content_that_torch_reads_without_code(saved):
    content = torch.load(saved, weights_only=True)
    assert content["format"] == FORMAT
    assert content["config"] == {"width": 4, "patch": 32, "dense": 8}
