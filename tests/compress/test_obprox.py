"""OBProx-SG against a scalar reference and a problem with a known solution; the technique sparsify on a real network."""

import copy
import itertools
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.data.patches import Batch
from compress.errors import BadInput
from compress.models import build
from compress.models.edsr import EDSR, EDSRConfig
from compress.pruning.blocks import judging_patches
from compress.pruning.obprox import OBProxSG
from compress.pruning.sparsify import Sparsify, SparsifyConfig, density, regularized
from compress.recipe import ScheduleSpec
from compress.schedule import learning_rate

SMALL = {"scale": 2, "channels": 8, "blocks": 2, "head_kernel": 3, "tail_kernel": 3}


def _weights() -> Tensor:
    """Values of both signs, exact zeros, and values on either side of what the steps below set to zero."""
    draw = torch.Generator().manual_seed(0)
    values = torch.randn(300, generator=draw, dtype=torch.float64) * 0.05
    values[::7] = 0
    return values


def _gradients(step: int) -> Tensor:
    draw = torch.Generator().manual_seed(step + 1)
    return torch.randn(300, generator=draw, dtype=torch.float64)


def _scalar_prox(x: float, g: float, lr: float, penalty: float) -> float:
    moved = x - lr * g
    if moved > lr * penalty:
        return moved - lr * penalty
    if moved < -lr * penalty:
        return moved + lr * penalty
    return 0.0


def _scalar_orthant(x: float, g: float, lr: float, penalty: float, epsilon: float) -> float:
    if x == 0:
        return 0.0
    sign = 1 if x > 0 else -1
    moved = x - lr * (g + penalty * sign)
    return moved if moved * sign > epsilon else 0.0


def test_both_phases_equal_a_scalar_reference_and_change_after_the_stated_number_of_steps():
    x = nn.Parameter(_weights())
    optimizer = OBProxSG([x], 0.1, penalty=0.2, epsilon=1e-3, prox_steps=3)
    plain = x.tolist()
    for step in range(7):
        optimizer.param_groups[0]["lr"] = lr = 0.02 / (step + 1)  # as a schedule does
        g = x.grad = _gradients(step)
        assert optimizer.in_orthant_phase == (step >= 3)
        optimizer.step()
        if step < 3:
            plain = [_scalar_prox(a, b, lr, 0.2) for a, b in zip(plain, g.tolist(), strict=True)]
        else:
            plain = [_scalar_orthant(a, b, lr, 0.2, 1e-3) for a, b in zip(plain, g.tolist(), strict=True)]
        assert torch.allclose(x.detach(), torch.tensor(plain, dtype=x.dtype), rtol=0, atol=1e-14), step
        assert torch.equal(x == 0, torch.tensor(plain) == 0), step


def test_in_the_orthant_phase_no_weight_changes_its_sign_and_zeros_stay():
    x = nn.Parameter(_weights())
    optimizer = OBProxSG([x], 0.02, penalty=0.1, epsilon=1e-3, prox_steps=0)
    zeros = [int((x == 0).sum())]
    for step in range(20):
        before = x.detach().clone()
        x.grad = _gradients(step)
        assert ((before - 0.02 * x.grad).sign() * before.sign() < 0).any(), "plain descent would cross zero"
        optimizer.step()
        assert ((x.sign() == before.sign()) | (x == 0)).all()
        assert not x[before == 0].any()
        assert (x[x != 0].abs() > 1e-3).all()
        zeros.append(int((x == 0).sum()))
    assert zeros == sorted(zeros)
    assert zeros[-1] > zeros[0] + 50


def test_in_the_prox_phase_a_zero_can_come_back():
    x = nn.Parameter(torch.zeros(2))
    optimizer = OBProxSG([x], 0.1, penalty=0.5, epsilon=0.0, prox_steps=1)
    x.grad = torch.tensor([-2.0, 0.4])
    optimizer.step()
    assert x.tolist() == pytest.approx([0.15, 0.0])
    x.grad = torch.tensor([0.0, -100.0])
    optimizer.step()
    assert x.tolist() == pytest.approx([0.1, 0.0])


def test_it_solves_the_lasso():
    """argmin |x - b|^2 / 2 + penalty * |x|_1 is soft(b, penalty): the zeros exactly, the rest to rounding."""
    b = 3 * _weights() / 0.05
    x = nn.Parameter(b.clone())
    optimizer = OBProxSG([x], 0.2, penalty=1.0, epsilon=1e-4, prox_steps=20)
    for _ in range(200):
        optimizer.zero_grad()
        ((x - b).square().sum() / 2).backward()
        optimizer.step()
    wanted = b.sign() * (b.abs() - 1).clamp_min(0)
    wanted[wanted.abs() <= 1e-4] = 0
    assert torch.equal(x == 0, wanted == 0)
    assert 0.2 < (x == 0).double().mean() < 0.5
    assert torch.allclose(x, wanted, atol=1e-12)


def test_a_group_without_penalty_takes_plain_gradient_steps_in_both_phases():
    free, tied = nn.Parameter(torch.tensor([1e-5, 0.0])), nn.Parameter(torch.tensor([1e-5, 0.0]))
    optimizer = OBProxSG([{"params": [free], "penalty": 0.0}, {"params": [tied]}], 0.1, prox_steps=1)
    for _ in range(2):
        free.grad, tied.grad = torch.tensor([1e-4, 1.0]), torch.tensor([0.0, 0.0])
        optimizer.step()
    assert free.tolist() == pytest.approx([1e-5 - 2e-5, -0.2])
    assert tied.tolist() == [0.0, 0.0]


def test_the_closure_is_called_with_gradients_and_its_loss_returned():
    x = nn.Parameter(torch.tensor([2.0]))
    optimizer = OBProxSG([x], 0.5, penalty=0.0, prox_steps=0)

    def loss() -> float:
        optimizer.zero_grad()
        value = x.square().sum()
        value.backward()
        return value.item()

    assert optimizer.step(loss) == 4.0
    assert x.tolist() == [0.0]


@pytest.mark.parametrize("name", ["lr", "penalty", "epsilon", "prox_steps"])
@pytest.mark.parametrize("value", [-1, math.nan])
def test_numbers_below_zero_are_refused(name, value):
    with pytest.raises(BadInput, match=f"expected {name} .* at least 0, found {value}"):
        OBProxSG([nn.Parameter(torch.ones(1))], **{"lr": 0.1, "prox_steps": 1, name: value})


# the technique

TRAINED, PROX, STEPS = 200, 40, 240
OPTIONS = SparsifyConfig(penalty=0.003, epsilon=0.01, prox_steps=PROX)
SCHEDULE = ScheduleSpec(steps=STEPS, learning_rate=0.01, final_rate=1e-3, ema=0.0, clip_norm=0.0)


def _loss(network: nn.Module, batch: Batch) -> Tensor:
    return F.l1_loss(network(batch["lr"]), batch["hr"])


def _network(architecture: str) -> nn.Module:
    torch.manual_seed(0)
    return EDSR(EDSRConfig(scale=2, channels=8, blocks=2)) if architecture == "edsr" else build(architecture, SMALL)


@pytest.fixture(scope="module")
def batches(photographs: Path) -> list[Batch]:
    """Of four patches; the last is for judging, of other patches and more."""
    drawn = judging_patches(str(photographs), 2, count=96, lr_patch=16).batches
    parts = [Batch(lr=b["lr"][i : i + 4], hr=b["hr"][i : i + 4]) for b in drawn for i in range(0, 16, 4)]
    return [*parts, judging_patches(str(photographs), 2, count=16, lr_patch=24, seed=1).batches[0]]


@pytest.fixture(scope="module", params=["srresnet", "edsr"])
def pretrained(request: pytest.FixtureRequest, batches: list[Batch]) -> nn.Module:
    network = _network(request.param).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(TRAINED):
        optimizer.zero_grad()
        _loss(network, batches[step % 24]).backward()
        optimizer.step()
    return network


def _steps(network: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch], first: int, last: int) -> None:
    for step in range(first, last):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(SCHEDULE, step)
        optimizer.zero_grad()
        _loss(network, batches[step % 24]).backward()
        optimizer.step()


def _judged(network: nn.Module, batches: list[Batch]) -> float:
    with torch.no_grad():
        loss = _loss(network.eval(), batches[-1]).item()
    network.train()
    return loss


def test_zeros_grow_into_the_orthant_phase_while_the_loss_stays_within_a_tenth_of_plain_training(pretrained, batches):
    sparse, dense = copy.deepcopy(pretrained), copy.deepcopy(pretrained)
    technique = Sparsify(OPTIONS)
    sparse = technique.prepare(sparse)
    optimizer = technique.optimizer(sparse, SCHEDULE)
    seen = [technique.figures(sparse)]
    for first in range(0, STEPS, PROX):
        _steps(sparse, optimizer, batches, first, first + PROX)
        seen.append(technique.figures(sparse))
    assert [row["orthant"] for row in seen] == [0, 1, 1, 1, 1, 1, 1]
    zeros = [row["zeros"] for row in seen]
    assert zeros[0] == 0
    assert all(after > before for before, after in itertools.pairwise(zeros)), zeros
    assert zeros[-1] > 0.1
    _steps(dense, torch.optim.SGD(dense.parameters(), SCHEDULE.learning_rate), batches, 0, STEPS)
    # over four seeds of both networks: up to 1.04 times as large, with 12 to 16% zeros
    assert _judged(sparse, batches) < 1.1 * _judged(dense, batches)
    student = technique.student(sparse)
    assert density(student.network()) == student.provenance["density"] == pytest.approx(1 - zeros[-1], abs=1e-12)
    assert not any((bias == 0).any() for name, bias in student.weights.items() if name.endswith("bias"))


@pytest.mark.parametrize("stop", [PROX // 2, PROX + 5])
def test_a_resumed_run_gives_identical_weights(batches, tmp_path, stop):
    whole = _network("srresnet").train()
    start = copy.deepcopy(whole.state_dict())
    _steps(whole, Sparsify(OPTIONS).optimizer(whole, SCHEDULE), batches, 0, PROX + 10)

    broken = _network("srresnet").train()
    broken.load_state_dict(start)
    optimizer = Sparsify(OPTIONS).optimizer(broken, SCHEDULE)
    _steps(broken, optimizer, batches, 0, stop)
    torch.save({"network": broken.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "state.pt")
    saved = torch.load(tmp_path / "state.pt", weights_only=True)
    again = build("srresnet", SMALL).train()
    again.load_state_dict(saved["network"])
    technique = Sparsify(OPTIONS)
    optimizer = technique.optimizer(again, SCHEDULE)
    optimizer.load_state_dict(saved["optimizer"])
    assert technique.figures(again)["orthant"] == (stop > PROX)
    _steps(again, optimizer, batches, stop, PROX + 10)
    assert 0 < density(again) < 1
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in again.state_dict().items())


def test_weights_of_convolutions_and_linear_layers_are_regularised_and_nothing_else():
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.PReLU(8), nn.Linear(8, 4), nn.LayerNorm(4))
    assert list(regularized(network)) == ["0.weight", "3.weight"]
    optimizer = Sparsify(OPTIONS).optimizer(network, SCHEDULE)
    tied, free = optimizer.param_groups
    assert {id(p) for p in tied["params"]} == {id(network[0].weight), id(network[3].weight)}
    assert (tied["penalty"], free["penalty"]) == (0.003, 0.0)
    assert len(tied["params"]) + len(free["params"]) == len(list(network.parameters()))
    with torch.no_grad():
        network[0].weight[:4] = 0
    assert density(network) == pytest.approx(1 - 108 / (216 + 32))


def test_what_would_lose_or_never_make_the_zeros_is_refused():
    network = _network("srresnet")
    with pytest.raises(BadInput, match=r"expected schedule.ema 0 .* found 0.999: .* zeros would be lost"):
        Sparsify(OPTIONS).optimizer(network, ScheduleSpec(steps=STEPS, ema=0.999))
    with pytest.raises(BadInput, match=r"prox_steps .* below schedule.steps \(40\), found 40: .* never be reached"):
        Sparsify(OPTIONS).optimizer(network, ScheduleSpec(steps=PROX, ema=0.0))
    branched = build("anchor", {"scale": 2, "channels": 8, "blocks": 1, "branches": True})
    with pytest.raises(BadInput, match=r"expected a network without branches .* fill the zeros"):
        Sparsify(OPTIONS).prepare(branched)
    for options in ({"penalty": 0.0}, {"penalty": -1.0}, {"epsilon": -1e-9}):
        with pytest.raises(BadInput, match="expected a positive penalty and an epsilon of at least 0"):
            Sparsify(SparsifyConfig(**options))
