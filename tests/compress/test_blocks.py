"""Pruning of residual blocks: importance that finds what does nothing, exact removal, and the command."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.patches import Batch
from compress.errors import BadInput
from compress.models import build
from compress.pruning.block_importance import NEAR, Criterion, block_scores
from compress.pruning.blocks import JudgingPatches, judging_patches, main, prune_blocks, without_blocks
from compress.pruning.masks import Masks
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student

BLOCKS = 4
KINDS = {
    "srresnet": ("srresnet", {"scale": 2, "channels": 8, "blocks": BLOCKS, "head_kernel": 3, "tail_kernel": 3}),
    "edsr": ("edsr", {"scale": 2, "channels": 8, "blocks": BLOCKS, "residual_scale": 0.5}),
}


def _network(kind: str, seed: int = 0) -> nn.Module:
    """Branches of about the stream's size, statistics unlike a fresh network's, an output in the middle of the range."""
    torch.manual_seed(seed)
    network = build(*KINDS[kind])
    with torch.no_grad():
        for block in network.blocks:
            if kind == "edsr":
                block.conv2.weight.mul_(10)
            else:
                block.norm1.running_var.uniform_(0.2, 0.5)
                block.norm2.running_mean.uniform_(-0.1, 0.1)
                block.norm2.running_var.uniform_(0.2, 0.5)
        network.tail.weight.mul_(0.3)
        network.tail.bias.fill_(0.4)
    return network.eval()


def _scale_branch(network: nn.Module, index: int, factor: float) -> None:
    block = network.blocks[index]
    with torch.no_grad():
        for parameter in (block.norm2 if hasattr(block, "norm2") else block.conv2).parameters():
            parameter.mul_(factor)


@pytest.fixture(scope="module")
def patches(photographs: Path) -> JudgingPatches:
    return judging_patches(str(photographs), 2, count=18, lr_patch=16)


@pytest.fixture(scope="module")
def double(patches: JudgingPatches) -> list[Batch]:
    return [Batch(lr=b["lr"].double(), hr=b["hr"].double()) for b in patches.batches]


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("by", ["norm", "loss", "taylor"])
@pytest.mark.parametrize("planted", [0, 2, 3])
def test_a_branch_that_does_almost_nothing_is_found_and_taken_out(kind, by, planted, patches):
    network = _network(kind)
    _scale_branch(network, planted, 1e-4)
    if by == "loss":  # the blocks of an untrained network can do harm; those of the one that made the truth cannot
        with torch.no_grad():
            own = [Batch(lr=batch["lr"], hr=network(batch["lr"])) for batch in patches.batches]
        patches = dataclasses.replace(patches, batches=own)
    pruned = prune_blocks(Student.of(network), BLOCKS - 1, by, patches)
    done = pruned.provenance["pruned_blocks"]
    assert done["kept"] == [i for i in range(BLOCKS) if i != planted]
    sizes = [abs(score) for score in done["scores"]]
    assert sizes[planted] < 0.02 * sorted(sizes)[1], "the others matter, and by far"
    assert pruned.config["blocks"] == BLOCKS - 1


def _run_with_gates(network: nn.Module, gates: list[float], lr: Tensor) -> Tensor:
    """The network's output with every branch multiplied by its gate; written out, without hooks."""
    gated = copy.deepcopy(network)
    for i, gate in enumerate(gates):
        _scale_branch(gated, i, gate)
    return gated(lr)


@pytest.mark.parametrize("kind", list(KINDS))
def test_taylor_is_the_derivative_by_a_gate_on_the_branch(kind, double):
    """Central differences of every patch's loss; the networks return float32, which sets how small a step can be."""
    network = _network(kind).double()
    scores = block_scores(network, double, "taylor")
    step = 1e-3
    with torch.no_grad():
        for i, score in enumerate(scores):
            total = 0.0
            for batch in double:
                ends = [
                    _run_with_gates(network, [gate if j == i else 1.0 for j in range(BLOCKS)], batch["lr"]).double()
                    for gate in (1 + step, 1 - step)
                ]
                up, down = ((end - batch["hr"]).abs().flatten(1).mean(1) for end in ends)
                total += ((up - down) / (2 * step)).abs().sum().item()
            assert score == pytest.approx(total / 18, rel=0.02), i
    assert min(scores) > 1e-4


@pytest.mark.parametrize("kind", list(KINDS))
def test_loss_is_the_increase_of_the_l1_loss_without_the_block(kind, patches):
    network = _network(kind)
    scores = block_scores(network, patches.batches, "loss")
    lr, hr = (torch.cat([batch[name] for batch in patches.batches]) for name in ("lr", "hr"))
    with torch.no_grad():
        whole = (network(lr) - hr).abs().mean()
        for i, score in enumerate(scores):
            gates = [0.0 if j == i else 1.0 for j in range(BLOCKS)]
            without = (_run_with_gates(network, gates, lr) - hr).abs().mean()
            assert score == pytest.approx((without - whole).item(), abs=1e-6)
    assert max(map(abs, scores)) > 1e-3


@pytest.mark.parametrize("kind", list(KINDS))
def test_norm_is_the_branch_relative_to_the_stream(kind, patches):
    network = _network(kind)
    scores = block_scores(network, patches.batches, "norm")
    lr = torch.cat([batch["lr"] for batch in patches.batches])
    with torch.no_grad():
        x = network.head(lr) if kind == "edsr" else network.head_activation(network.head(lr))
        for block, score in zip(network.blocks, scores, strict=True):
            if kind == "edsr":
                branch = block.residual_scale * block.conv2(torch.relu(block.conv1(x)))
            else:
                branch = block.norm2(block.conv2(block.activation(block.norm1(block.conv1(x)))))
            ratios = [f.norm() / s.norm() for f, s in zip(branch, x, strict=True)]
            assert score == pytest.approx(torch.stack(ratios).mean().item(), rel=1e-4)
            x = x + branch


def test_the_plain_baselines_need_no_patches():
    network = _network("srresnet")
    assert block_scores(network, [], "last") == [4, 3, 2, 1]
    with torch.no_grad():
        network.blocks[1].conv1.weight.mul_(0.01)
        network.blocks[2].conv2.weight[:4] = 0
    weights = [torch.cat([b.conv1.weight.flatten(), b.conv2.weight.flatten()]) for b in network.blocks]
    threshold = NEAR * torch.cat(weights).square().mean().sqrt()
    expected = [1 - (weight.abs() < threshold).double().mean().item() for weight in weights]
    scores = block_scores(network, [], "near_zero")
    assert scores == pytest.approx(expected)
    assert sorted(range(BLOCKS), key=scores.__getitem__)[:2] == [1, 2]
    with pytest.raises(ValueError, match="'loss' needs patches"):
        block_scores(network, [], "loss")
    with pytest.raises(BadInput, match=r"expected a criterion out of .*near_zero, found 'best'"):
        block_scores(network, [], "best")


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("kept", [[0, 2], [1], [1, 2, 3]])
def test_removal_equals_the_network_with_those_branches_zeroed(kind, kept, patches):
    network = _network(kind)
    smaller = without_blocks(Student.of(network), kept)
    gates = [1.0 if i in kept else 0.0 for i in range(BLOCKS)]
    lr = patches.batches[0]["lr"]
    with torch.no_grad():
        wanted, whole = _run_with_gates(network, gates, lr), network(lr)
        found = smaller.network()(lr)
    assert len(smaller.network().blocks) == len(kept)
    assert (found - wanted).abs().max() <= 1e-6
    assert (found - whole).abs().max() > 1e-2
    assert (smaller.deploy()(lr) - wanted).abs().max() <= 1e-5


def test_more_than_ten_blocks_keep_their_order():
    torch.manual_seed(0)
    student = Student.of(build("edsr", {"scale": 2, "channels": 8, "blocks": 12}))
    smaller = without_blocks(student, [1, 2, 10, 11])
    for new, old in enumerate([1, 2, 10, 11]):
        assert torch.equal(smaller.weights[f"blocks.{new}.conv1.weight"], student.weights[f"blocks.{old}.conv1.weight"])
    assert torch.equal(smaller.weights["trunk.weight"], student.weights["trunk.weight"])


def test_masks_go_with_their_blocks():
    network = _network("edsr")
    names = ["head.weight", "blocks.0.conv1.weight", "blocks.3.conv1.weight"]
    layers = {name: network.get_parameter(name).abs() > 0.02 for name in names}
    masks = Masks("unstructured", layers)
    masks.apply(network)
    smaller = without_blocks(dataclasses.replace(Student.of(network), sparsity=masks), [1, 3])
    assert set(smaller.sparsity.layers) == {"head.weight", "blocks.1.conv1.weight"}
    assert torch.equal(smaller.sparsity.layers["blocks.1.conv1.weight"], layers["blocks.3.conv1.weight"])
    smaller.sparsity.check(smaller.network())
    only = Masks("unstructured", {"blocks.0.conv1.weight": layers["blocks.0.conv1.weight"]})
    assert without_blocks(dataclasses.replace(Student.of(network), sparsity=only), [1, 3]).sparsity is None


@pytest.mark.parametrize("by", ["norm", "loss", "taylor"])
def test_the_same_seed_gives_the_same_scores_and_another_seed_others(by: Criterion, photographs):
    student = Student.of(_network("srresnet"))

    def scores(seed: int) -> list[float]:
        drawn = judging_patches(str(photographs), 2, count=4, lr_patch=16, seed=seed)
        return prune_blocks(student, 2, by, drawn).provenance["pruned_blocks"]["scores"]

    assert scores(0) == scores(0)
    assert scores(0) != scores(1)


def test_judging_leaves_the_network_as_it_was(patches):
    network = _network("srresnet")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    for by in ("norm", "loss", "taylor"):
        block_scores(network, patches.batches, by)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(block._forward_hooks for block in network.blocks)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_numbers_of_blocks_that_keep_none_or_all_are_refused(patches):
    student = Student.of(_network("edsr"))
    for keep in (0, -1, BLOCKS, 99):
        with pytest.raises(BadInput, match=rf"at least 1 and fewer than the 4 residual blocks .* found --keep {keep}:"):
            prune_blocks(student, keep, "last", patches)


def test_networks_without_residual_blocks_and_int8_students_are_refused(patches, photographs):
    for architecture, options in (("anchor", {"scale": 2, "channels": 8}), ("rlfn", {"scale": 2, "channels": 8})):
        with pytest.raises(BadInput, match=r"expected a network of residual blocks \(SRResNet, EDSR\), found"):
            prune_blocks(Student.of(build(architecture, options)), 2, "last", patches)
    student = Student.of(_network("srresnet"))
    integer = quantize_student(student, calibration_crops(str(photographs), 2, count=16, side=16))
    with pytest.raises(BadInput, match="expected a float student to prune, found an int8 one"):
        prune_blocks(integer, 2, "last", patches)


def test_patches_that_cannot_be_drawn_are_refused(photographs):
    for options in ({"count": 0}, {"lr_patch": 7}, {"seed": -1}):
        with pytest.raises(BadInput, match="expected at least 1 patch, of at least 8x8, and a seed of at least 0"):
            judging_patches(str(photographs), 2, **options)
    with pytest.raises(BadInput, match="smaller than 130 pixels"):
        judging_patches(str(photographs), 2, lr_patch=65)


def test_the_command_writes_a_student_that_says_what_was_done_to_it(photographs, tmp_path, command):
    network = _network("edsr")
    _scale_branch(network, 1, 1e-4)
    saved = save_student(Student.of(network, provenance={"steps": 7}), tmp_path / "whole.pt")
    where = ("--out", tmp_path / "pruned.pt", "--report", tmp_path / "scores.json")
    how = ("--keep", "3", "--by", "taylor", "--data", photographs, "--patches", "6", "--lr_patch", "16", "--seed", "5")
    done = command("compress.pruning.blocks", tmp_path / "whole.pt", *where, *how)
    assert done.returncode == 0, done.stderr
    pruned = load_student(tmp_path / "pruned.pt")
    report = json.loads((tmp_path / "scores.json").read_text())
    assert pruned.provenance == {"steps": 7, "pruned_blocks": report}
    assert report["kept"] == [0, 2, 3]
    assert (report["criterion"], report["source_sha256"], len(report["scores"])) == ("taylor", saved, BLOCKS)
    assert report["data"] | {"manifest_sha256": ""} == {
        "source": photographs.name, "manifest_sha256": "", "patches": 6, "lr_patch": 16, "seed": 5
    }  # fmt: skip
    assert done.stdout.count("kept") == 3
    assert done.stdout.count("removed") == 1
    assert done.stdout.endswith(f"wrote {tmp_path / 'pruned.pt'}: 3 of 4 residual blocks, to be fine-tuned\n")


def test_the_command_by_position_opens_no_image(tmp_path, capsys):
    save_student(Student.of(_network("srresnet")), tmp_path / "whole.pt")
    arguments = [str(tmp_path / "whole.pt"), "--keep", "1", "--by", "last", "--data", "nowhere"]
    with pytest.raises(SystemExit) as left:
        command_line(main, [*arguments, "--out", str(tmp_path / "pruned.pt")])
    assert left.value.code == 0
    done = load_student(tmp_path / "pruned.pt").provenance["pruned_blocks"]
    assert (done["kept"], done["data"]) == ([0], None)


def test_the_command_refuses_in_one_sentence_and_writes_nothing(tmp_path, capsys):
    save_student(Student.of(_network("edsr")), tmp_path / "whole.pt")
    with pytest.raises(SystemExit) as left:
        command_line(main, [str(tmp_path / "whole.pt"), "--keep", "4", "--out", str(tmp_path / "pruned.pt")])
    assert left.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "pruned.pt").exists()
