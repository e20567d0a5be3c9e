"""MultiLap against two whole pyramids built with loops over pixels."""

import numpy as np
import pytest
import torch

from compress.errors import BadInput
from compress.losses import MultiLap

BINOMIAL = np.outer([1, 4, 6, 4, 1], [1, 4, 6, 4, 1]) / 256


def blur(plane, kernel=BINOMIAL):
    height, width = plane.shape
    bordered = np.pad(plane, 2, mode="reflect")
    out = np.zeros_like(plane)
    for y in range(height):
        for x in range(width):
            out[y, x] = (bordered[y : y + 5, x : x + 5] * kernel).sum()
    return out


def halve(plane):
    out = np.zeros((len(plane) // 2, plane.shape[1] // 2))
    for y, x in np.ndindex(out.shape):
        out[y, x] = plane[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
    return out


def pyramid(plane):
    levels = []
    for _ in range(4):
        coarse = halve(blur(plane))
        spread = np.zeros_like(plane)
        spread[::2, ::2] = coarse
        levels.append(plane - blur(spread, 4 * BINOMIAL))
        plane = coarse
    return [*levels, plane]


def laplacian(images, targets):
    """Sum over the levels of 2^i times the mean over all images and channels; images as (planes, H, W)."""
    pairs = [(pyramid(p), pyramid(t)) for p, t in zip(images, targets, strict=True)]
    return sum(2**i * np.mean([np.abs(p[i] - t[i]) for p, t in pairs]) for i in range(5))


def high(planes):
    return [plane - blur(plane) for plane in planes]


@pytest.fixture
def images():
    torch.manual_seed(5)
    image, target = torch.rand(2, 2, 3, 32, 48)
    return image.requires_grad_(), target.requires_grad_()


def test_multilap_equals_pyramids_built_pixel_by_pixel(images):
    image, target = (x.detach().double() for x in images)
    p, t = (x.flatten(0, 1).numpy() for x in (image, target))
    wanted = laplacian(p, t) + laplacian(high(p), high(t))
    assert MultiLap().double()(image, target).item() == pytest.approx(wanted, rel=1e-12)
    assert MultiLap()(image.float(), target.float()).item() == pytest.approx(wanted, rel=1e-5)


def test_multilap_of_a_constant_difference_is_the_weighted_low_pass_residual(images):
    image = images[0].detach()
    assert MultiLap()(image, image).item() == 0
    assert MultiLap()(image + 0.25, image).item() == pytest.approx(16 * 0.25, rel=1e-5)


def test_gradients_of_multilap_reach_the_image_alone(images):
    image, target = images
    loss = MultiLap()
    loss(image, target).backward()
    assert image.grad.abs().min() > 0
    assert target.grad is None
    assert not list(loss.parameters())
    assert not loss.state_dict()
    torch.manual_seed(0)
    small = torch.rand(1, 1, 32, 32, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(loss.double(), [small, torch.rand_like(small)], fast_mode=True)


def test_multilap_is_computed_in_float32_inside_autocast(images):
    image, target = images
    loss = MultiLap()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(image, target), loss(image.float(), target.float()))
        rounded = loss(image.bfloat16(), target)
    assert rounded.dtype == torch.float32
    assert torch.equal(rounded, loss(image.bfloat16().float(), target))
    outside = loss(image, target)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(loss(image, target), outside)
    assert rounded.item() == pytest.approx(outside.item(), rel=0.01)


@pytest.mark.parametrize(("side", "advice"), [(100, "use 96"), (16, "use 32"), (0, "use 32"), (90, "use 96")])
def test_patches_that_cannot_be_halved_four_times_are_refused_before_the_training(side, advice):
    with pytest.raises(BadInput, match=rf"multiples of 16 and at least 32, found {side}: {advice}\."):
        MultiLap.check_patch(side)
    with pytest.raises(ValueError, match=f"multiples of 16, at least 32, found {side}x64"):
        MultiLap()(torch.zeros(1, 3, 64, side), torch.zeros(1, 3, 64, side))


@pytest.mark.parametrize("side", [32, 48, 96])
def test_patches_that_multilap_allows_can_be_computed(side):
    MultiLap.check_patch(side)
    assert MultiLap()(torch.ones(1, 3, side, side), torch.zeros(1, 3, side, side)).isfinite()
