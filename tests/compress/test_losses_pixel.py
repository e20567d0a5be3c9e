"""Losses of pixels and of logits against their formulas in numpy."""

import numpy as np
import pytest
import torch

from compress.losses import charbonnier, discriminator_loss, generator_loss, l1, mse

REFERENCES = {
    l1: lambda d: np.abs(d).mean(),
    mse: lambda d: (d**2).mean(),
    charbonnier: lambda d: np.sqrt(d**2 + 1e-12).mean(),
}


@pytest.fixture
def images():
    torch.manual_seed(3)
    return torch.rand(2, 3, 7, 5, requires_grad=True), torch.rand(2, 3, 7, 5, requires_grad=True)


@pytest.mark.parametrize("loss", REFERENCES)
def test_pixel_losses_equal_their_formula_and_gradients_reach_the_image_alone(loss, images):
    image, target = images
    value = loss(image, target)
    difference = (image - target).detach().double().numpy()
    assert value.item() == pytest.approx(REFERENCES[loss](difference), rel=1e-6)
    value.backward()
    assert image.grad.abs().min() > 0
    assert target.grad is None


@pytest.mark.parametrize("loss", REFERENCES)
def test_pixel_losses_of_bf16_images_are_computed_in_float32(loss, images):
    image, target = (x.detach().bfloat16() for x in images)
    with torch.autocast("cpu", torch.bfloat16):
        value = loss(image, target)
    assert value.dtype == torch.float32
    assert torch.equal(value, loss(image.float(), target.float()))
    assert value.item() == pytest.approx(loss(*images).item(), rel=0.02)


def test_losses_refuse_images_that_torch_would_broadcast(images):
    for loss in REFERENCES:
        with pytest.raises(ValueError, match=r"one shape, found \(2, 3, 7, 5\) and \(1, 3, 7, 5\)"):
            loss(images[0], images[1][:1])


def test_charbonnier_has_a_gradient_where_the_images_agree_and_a_width(images):
    image, _ = images
    same = charbonnier(image, image.detach())
    same.backward()
    assert same.item() == pytest.approx(1e-6)
    assert torch.equal(image.grad, torch.zeros_like(image))
    assert charbonnier(image, image, eps=0.25).item() == pytest.approx(0.5)


def log_sigmoid(x):
    return np.log(1 / (1 + np.exp(-x)))


def test_standard_losses_are_minus_the_logarithms_of_probabilities():
    fake, real = (np.random.default_rng(seed).normal(0, 3, (5, 1)) for seed in (1, 2))
    a, b = torch.from_numpy(fake), torch.from_numpy(real)
    assert generator_loss(a).item() == pytest.approx(-log_sigmoid(fake).mean(), rel=1e-12)
    wanted = -np.log(1 - 1 / (1 + np.exp(-fake))).mean() - log_sigmoid(real).mean()
    assert discriminator_loss(a, b).item() == pytest.approx(wanted, rel=1e-12)
    assert discriminator_loss(a, b, "standard").item() != pytest.approx(discriminator_loss(b, a).item())


def test_relativistic_losses_compare_each_logit_with_the_mean_of_the_other_side():
    fake, real = (np.random.default_rng(seed).normal(0, 3, (5, 1)) for seed in (1, 2))
    a, b = torch.from_numpy(fake), torch.from_numpy(real)
    real_over_fake = 1 / (1 + np.exp(-(real - fake.mean())))
    fake_over_real = 1 / (1 + np.exp(-(fake - real.mean())))
    generator = -np.log(1 - real_over_fake).mean() - np.log(fake_over_real).mean()
    discriminator = -np.log(real_over_fake).mean() - np.log(1 - fake_over_real).mean()
    assert generator_loss(a, b, "relativistic").item() == pytest.approx(generator, rel=1e-12)
    assert discriminator_loss(a, b, "relativistic").item() == pytest.approx(discriminator, rel=1e-12)
    with pytest.raises(ValueError, match="logits of real images"):
        generator_loss(a, kind="relativistic")


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_gradients_of_the_generator_reach_fakes_alone_and_of_the_discriminator_both(kind):
    torch.manual_seed(0)
    fake, real = (torch.randn(4, 1, dtype=torch.float64, requires_grad=True) for _ in range(2))
    generator_loss(fake, real, kind).backward()
    assert fake.grad.abs().min() > 0
    assert real.grad is None
    discriminator_loss(fake, real, kind).backward()
    assert real.grad.abs().min() > 0
    assert torch.autograd.gradcheck(lambda x: generator_loss(x, real, kind), [fake])
    assert torch.autograd.gradcheck(lambda x, y: discriminator_loss(x, y, kind), [fake, real])


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_adversarial_losses_stay_finite_at_logits_whose_probability_rounds_to_zero(kind):
    fake, real = torch.tensor([[-1e4], [-2e4]], requires_grad=True), torch.tensor([[1e4], [2e4]])
    lost = generator_loss(fake, real, kind)
    lost.backward()
    assert lost.item() == pytest.approx(1.5e4 if kind == "standard" else 6e4)
    assert fake.grad.isfinite().all()
    assert fake.grad.abs().min() > 0.1, "a losing generator must still learn"
    assert discriminator_loss(fake, real, kind).item() == 0


@pytest.mark.parametrize("kind", ["standard", "relativistic"])
def test_adversarial_losses_of_bf16_logits_are_close_to_those_of_float32(kind):
    torch.manual_seed(0)
    fake, real = torch.randn(64, 1), torch.randn(64, 1)
    with torch.autocast("cpu", torch.bfloat16):
        found = [
            generator_loss(fake.bfloat16(), real.bfloat16(), kind),
            discriminator_loss(fake.bfloat16(), real, kind),
        ]
    wanted = [generator_loss(fake, real, kind), discriminator_loss(fake, real, kind)]
    assert [value.dtype for value in found] == [torch.float32] * 2
    assert [value.item() for value in found] == pytest.approx([value.item() for value in wanted], rel=5e-3)
