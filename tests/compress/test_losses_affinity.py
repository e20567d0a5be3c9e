"""Feature affinity against matrices built pair by pair, its gradient, and the memory it holds."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from compress.losses import affinity, feature_affinity


def matrix(features):
    """(C, H, W) to (HW, HW): the cosine of every two pixels' features."""
    pixels = features.reshape(len(features), -1).T
    out = np.zeros((len(pixels), len(pixels)))
    for i, a in enumerate(pixels):
        for j, b in enumerate(pixels):
            out[i, j] = a @ b / np.sqrt(a @ a) / np.sqrt(b @ b)
    return out


def features(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


@pytest.mark.parametrize("chunk", [1, 100, 4 * 2**20], ids=["row by row", "some rows", "all at once"])
def test_affinity_equals_matrices_built_pair_by_pair_whatever_the_chunk(chunk, monkeypatch):
    monkeypatch.setattr(affinity, "CHUNK", chunk)
    student, teacher = features(2, 5, 3, 4), features(2, 8, 3, 4, seed=1)
    pairs = zip(student.detach().numpy(), teacher.detach().numpy(), strict=True)
    wanted = np.mean([np.abs(matrix(s) - matrix(t)) for s, t in pairs])
    assert feature_affinity(student, teacher).item() == pytest.approx(wanted, rel=1e-12)
    assert feature_affinity(student.float(), teacher.float()).item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("chunk", [50, 4 * 2**20])
def test_gradients_of_affinity_reach_the_student_numerically_right_and_the_teacher_not_at_all(chunk, monkeypatch):
    monkeypatch.setattr(affinity, "CHUNK", chunk)
    student, teacher = features(2, 5, 3, 4), features(2, 8, 3, 4, seed=1)
    (3 * feature_affinity(student, teacher)).backward()
    assert teacher.grad is None
    assert student.grad.abs().min() > 0
    plain = student.detach().requires_grad_()
    unit_s, unit_t = (torch.nn.functional.normalize(x.flatten(2), dim=1) for x in (plain, teacher.detach()))
    (3 * (unit_s.mT @ unit_s - unit_t.mT @ unit_t).abs().mean()).backward()
    torch.testing.assert_close(student.grad, plain.grad)
    assert torch.autograd.gradcheck(lambda x: feature_affinity(x, teacher), [student])


def test_affinity_trains_the_network_that_made_the_features():
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 6, 3, padding=1)
    images, teacher = torch.rand(2, 3, 8, 8), features(2, 16, 8, 8, dtype=torch.float32)
    optimizer = torch.optim.Adam(network.parameters(), 0.02)
    values = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = feature_affinity(network(images), teacher)
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert values[-1] < 0.8 * values[0]


def test_affinity_is_zero_for_features_that_differ_by_a_rotation_and_by_length():
    student = features(1, 6, 4, 4).detach()
    turn, _ = torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    teacher = torch.einsum("ij,njhw->nihw", turn, student) * torch.linspace(0.1, 9, 16, dtype=torch.float64).view(4, 4)
    assert feature_affinity(student, teacher).item() == pytest.approx(0, abs=1e-12)


def test_affinity_of_pixels_without_features_is_finite():
    student = torch.relu(features(1, 3, 4, 4, dtype=torch.float32) - 2)
    assert (student.sum(1) == 0).any()
    student = student.detach().requires_grad_()
    loss = feature_affinity(student, features(1, 3, 4, 4, dtype=torch.float32, seed=1))
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


def test_affinity_is_computed_in_float32_inside_autocast():
    student, teacher = features(2, 5, 6, 6, dtype=torch.float32), features(2, 8, 6, 6, dtype=torch.float32, seed=1)
    outside = feature_affinity(student, teacher)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(feature_affinity(student, teacher), outside)
        rounded = feature_affinity(student.bfloat16(), teacher)
    rounded.backward()
    assert rounded.dtype == torch.float32
    assert rounded.item() == pytest.approx(outside.item(), rel=0.01)
    assert student.grad.abs().max() > 0


class Largest(TorchDispatchMode):
    """Notes the most values of any tensor that an operation returns."""

    values = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.values = max(self.values, result.numel())
        return result


def test_affinity_never_holds_the_matrices_of_a_batch(monkeypatch):
    monkeypatch.setattr(affinity, "CHUNK", 20_000)
    student, teacher = features(4, 8, 24, 24, dtype=torch.float32), features(4, 16, 24, 24, dtype=torch.float32)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    with Largest() as largest, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = feature_affinity(student, teacher)
        loss.backward()
    matrices = 4 * (24 * 24) ** 2
    assert largest.values <= teacher.numel() < matrices / 30
    assert sum(kept) <= 5 * student.numel()


def test_features_of_other_images_or_sizes_are_refused():
    with pytest.raises(ValueError, match="same images and size"):
        feature_affinity(features(2, 5, 3, 4), features(2, 5, 4, 3))
    with pytest.raises(ValueError, match="same images and size"):
        feature_affinity(features(2, 5, 3, 4), features(1, 5, 3, 4))


def test_a_sum_of_millions_of_affinities_in_float32_stays_exact():
    student, teacher = features(1, 4, 48, 48), features(1, 8, 48, 48, seed=1)
    wanted = feature_affinity(student, teacher).item()
    assert feature_affinity(student.float(), teacher.float()).item() == pytest.approx(wanted, rel=1e-5)
