"""Fake quantization: values and gradients against slow references."""

import numpy as np
import pytest
import torch
from torch import Tensor

from compress.quantization.fake import LearnedScale, fake_quantize, round_through


def _plain(x: Tensor, unit: float, scale: float, low: int, high: int, gradient: Tensor) -> tuple[list, list, float]:
    """Fake quantization one number at a time: integers, gradients of x, gradient of the scale."""
    integers, gradients, to_scale = [], [], 0.0
    for value, g in zip(x.double().tolist(), gradient.double().tolist(), strict=True):
        t = value * unit / scale
        whole = min(high, max(low, np.rint(t)))
        inside = low < t < high
        integers.append(whole)
        gradients.append(g * unit / scale if inside else 0.0)
        # g is the loss's gradient to the integer; to the real value scale * integer it is g / scale
        to_scale += g / scale * ((whole - t) if inside else whole)
    return integers, gradients, to_scale


@pytest.mark.parametrize(("low", "high"), [(-127, 127), (0, 255), (-100, 155)])
@pytest.mark.parametrize("unit", [None, 0.01])
def test_fake_quantization_and_its_gradients_equal_a_loop_over_numbers(low, high, unit):
    torch.manual_seed(0)
    x = (120 * torch.randn(500)).requires_grad_()
    scale = torch.tensor(0.7 if unit is None else 0.007, requires_grad=True)
    gradient = torch.randn(500)
    result = fake_quantize(x, scale, low, high, unit=None if unit is None else torch.tensor(unit))
    result.backward(gradient)
    integers, to_x, to_scale = _plain(x.detach(), unit or 1.0, scale.item(), low, high, gradient)
    assert result.tolist() == integers
    assert torch.allclose(x.grad, torch.tensor(to_x).float(), rtol=1e-5, atol=0)
    assert scale.grad.item() == pytest.approx(to_scale, rel=1e-4)


def test_every_channel_has_its_own_scale_and_gradient():
    torch.manual_seed(0)
    weight = torch.randn(3, 2, 3, 3, requires_grad=True)
    scale = torch.tensor([0.02, 0.005, 0.01], requires_grad=True)
    gradient = torch.randn(3, 2, 3, 3)
    result = fake_quantize(weight, scale[:, None, None, None], -127, 127)
    result.backward(gradient)
    for c in range(3):
        integers, to_x, to_scale = _plain(
            weight[c].detach().flatten(), 1.0, scale[c].item(), -127, 127, gradient[c].flatten()
        )
        assert result[c].flatten().tolist() == integers
        assert torch.allclose(weight.grad[c].flatten(), torch.tensor(to_x).float(), rtol=1e-5, atol=0)
        assert scale.grad[c].item() == pytest.approx(to_scale, rel=1e-4)


def test_rounding_passes_its_gradient_through():
    x = torch.tensor([0.5, 1.5, -2.7], requires_grad=True)
    y = round_through(x)
    y.backward(torch.tensor([1.0, 2.0, 3.0]))
    assert y.tolist() == [0, 2, -3]
    assert x.grad.tolist() == [1, 2, 3]


def test_adam_changes_large_and_small_scales_by_the_same_share_and_none_below_zero():
    learned = LearnedScale(torch.tensor([1e-4, 1.0, 100.0]))
    assert torch.equal(learned(), torch.tensor([1e-4, 1.0, 100.0]))
    optimizer = torch.optim.Adam(learned.parameters(), lr=0.1)
    (learned() / learned.start).sum().backward()
    optimizer.step()
    assert torch.allclose(learned() / learned.start, torch.tensor(0.1).neg().exp().expand(3))
    for _ in range(200):
        optimizer.step()
    assert (learned() > 0).all()
