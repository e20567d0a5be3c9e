"""Masks: the pattern that they claim, the zeros that they promise, in student.pt and through quantization."""

import dataclasses
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.checkpoint import Student, load_student, save_student
from compress.deploy import Conv
from compress.errors import BadInput
from compress.models import ARCHITECTURES, build
from compress.pruning.magnitude import MagnitudeConfig, prune_student
from compress.pruning.masks import Masks, grow
from compress.pruning.patterns import Pattern, parse_pattern, prunable, shipped_orders
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student

SMALL = {
    "anchor": {"scale": 2, "channels": 8, "blocks": 2},
    "srresnet": {"scale": 4, "channels": 8, "blocks": 2, "head_kernel": 5, "tail_kernel": 5},
    "edsr": {"scale": 3, "channels": 8, "blocks": 1, "residual_scale": 0.3},
}
# where each trained convolution ships: step of the deploy graph, and r of the PixelShuffle behind it
SHIPS = {
    "anchor": {"head": ("head", 1), "body.0": ("body0", 1), "body.1": ("body1", 1), "tail": ("tail", 2)},
    "srresnet": {
        "head": ("head", 1),
        **{f"blocks.{i}.conv{j}": (f"block{i}_conv{j}", 1) for i in (0, 1) for j in (1, 2)},
        "trunk": ("trunk", 1), "stages.0.conv": ("up0", 2), "stages.1.conv": ("up1", 2), "tail": ("tail", 1),
    },
    "edsr": {
        "head": ("head", 1), "blocks.0.conv1": ("block0_conv1", 1), "blocks.0.conv2": ("block0_conv2", 1),
        "trunk": ("trunk", 1), "stages.0": ("up0", 3), "tail": ("tail", 1),
    },
}  # fmt: skip
PATTERNS = ["unstructured", "2:4", "1:8", "1x4", "4x1", "2x2"]


def _network(name: str) -> nn.Module:
    """Small, with batch norm statistics that are not those of a fresh network."""
    torch.manual_seed(3)
    network = build(name, SMALL[name])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for values in (module.weight, module.running_mean, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
    return network


def _pruned(name: str, pattern: str = "unstructured", skip: Any = "none", scope: Any = "layer") -> Student:
    sparsity = {"1:8": 0.875}.get(pattern, 0.5)
    config = MagnitudeConfig(pattern=pattern, sparsity=sparsity, skip=skip, scope=scope)
    return prune_student(Student.of(_network(name)), config)[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("unstructured", Pattern("unstructured")),
        ("2:4", Pattern("2:4", group=4, kept=2)),
        ("1x4", Pattern("1x4 block", 1, 4)),
        ("4x1 block", Pattern("4x1 block", 4, 1)),
    ],
)
def test_a_pattern_is_known_by_its_name_and_by_the_name_that_it_gives_itself(name, expected):
    assert parse_pattern(name) == parse_pattern(expected.name) == expected


@pytest.mark.parametrize("name", ["", "2", "4:4", "0:4", "5:4", "1x1", "0x4", "2:4:8", "1x4 blocks", "124", " 2:4"])
def test_other_names_are_no_pattern(name):
    with pytest.raises(BadInput, match="expected a pattern"):
        parse_pattern(name)


def _grown(weight: Tensor, pattern: str, share: float, mask: Tensor | None = None) -> Tensor:
    """The mask of a single layer."""
    network = nn.Module()
    network.register_parameter("weight", nn.Parameter(weight))
    start = torch.ones_like(weight, dtype=torch.bool) if mask is None else mask
    return grow(Masks(parse_pattern(pattern).name, {"weight": start}), network, share, "layer", {}).layers["weight"]


@pytest.mark.parametrize(("kept", "group"), [(2, 4), (1, 4), (3, 8)])
def test_of_every_m_neighbours_along_the_input_channels_of_a_tap_the_n_largest_stay(kept, group):
    weight = torch.randn(5, 16, 3, 2)
    mask = _grown(weight, f"{kept}:{group}", 1 - kept / group)
    for o, y, x, first in product(range(5), range(3), range(2), range(0, 16, group)):
        members = weight[o, first : first + group, y, x].abs()
        largest = members.sort(descending=True).indices[:kept].sort().values
        assert mask[o, first : first + group, y, x].nonzero()[:, 0].tolist() == largest.tolist()


@pytest.mark.parametrize("name", ["unstructured", "1x4", "4x1", "2x2", "2x8"])
@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_blocks_of_least_mean_magnitude_go(name, share):
    weight = torch.randn(8, 8, 3, 3)
    pattern = parse_pattern(name)
    blocks = {}
    for o, y, x, i in product(range(0, 8, pattern.rows), range(3), range(3), range(0, 8, pattern.columns)):
        place = (slice(o, o + pattern.rows), slice(i, i + pattern.columns), y, x)
        blocks[o, y, x, i] = (weight[place].abs().mean().item(), place)
    expected = torch.ones_like(weight, dtype=torch.bool)
    for _, place in sorted(blocks.values(), key=lambda one: one[0])[: round(share * len(blocks))]:
        expected[place] = False
    assert torch.equal(_grown(weight, name, share), expected)


@pytest.mark.parametrize("name", PATTERNS)
def test_a_mask_that_grows_ends_with_its_pattern_and_what_was_gone_stays_gone(name):
    pattern, mask = parse_pattern(name), None
    last = pattern.most if pattern.kept else 0.9
    for share in (0.1, 0.3, 0.3, 0.45, last):
        before = mask
        mask = _grown(torch.randn(8, 16, 3, 3), name, share, mask)  # other weights each time
        assert pattern.holds(mask) == (not pattern.kept or share == last)
        assert before is None or not (mask & ~before).any()
        assert (~mask).float().mean() >= share - 0.01


def test_a_layer_that_has_more_zeros_than_its_share_keeps_them():
    weight = torch.randn(8, 8, 3, 3)
    start = _grown(weight, "unstructured", 0.8)
    assert torch.equal(_grown(torch.randn(8, 8, 3, 3), "unstructured", 0.5, start), start)


def test_the_global_threshold_is_one_for_all_layers():
    network = _network("srresnet")
    found = prunable(network, parse_pattern("unstructured"), "none")
    with torch.no_grad():
        network.trunk.weight.mul_(3)
    start = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in found.weights.items()}
    masks = grow(Masks("unstructured", start), network, 0.3, "global", {})
    weights = {name: network.get_parameter(name).detach().abs() for name in masks.layers}
    highest_gone = max(weights[name][~mask].max() for name, mask in masks.layers.items() if not mask.all())
    lowest_kept = min(weights[name][mask].min() for name, mask in masks.layers.items())
    assert highest_gone <= lowest_kept
    assert masks.sparsity() == pytest.approx(0.3, abs=1e-3)
    shares = {name: (~mask).float().mean().item() for name, mask in masks.layers.items()}
    assert min(shares, key=shares.__getitem__) == "trunk.weight"


@pytest.mark.parametrize("name", SMALL)
def test_blocks_of_several_rows_are_blocks_in_the_rows_that_ship(name):
    student = _pruned(name, "4x1")
    layers, masked = student.sparsity.layers, 0
    for trained, (step, _) in SHIPS[name].items():
        weight = student.deploy().operators[step].weight
        zero = weight == 0
        if f"{trained}.weight" in layers:
            masked += 1
            rows = zero.unflatten(0, (-1, 4))
            assert torch.equal(rows.all(1), rows.any(1)), step
            assert zero.float().mean() == 0.5
        else:
            assert len(weight) % 4, "only these may stay dense"
            assert not zero.any()
    assert masked >= 3


@pytest.mark.parametrize("name", SMALL)
def test_the_order_of_shipped_rows_is_found_for_every_layer(name):
    orders = shipped_orders(_network(name))
    assert set(orders) == {f"{layer}.weight" for layer in SHIPS[name]}
    for layer, (_, r) in SHIPS[name].items():
        order = orders[f"{layer}.weight"].tolist()
        channels = len(order) // r**2
        plain = [c * r * r + i * r + j for i in range(r) for j in range(r) for c in range(channels)]
        assert order == plain, layer


def test_layers_that_a_pattern_does_not_fit_stay_dense_and_are_named():
    network = _network("anchor")
    found = prunable(network, parse_pattern("2:4"), "none")
    assert list(found.weights) == ["body.0.weight", "body.1.weight", "tail.weight"]
    assert found.dense == {"head.weight": "3 input channels, not a multiple of 4"}
    found = prunable(network, parse_pattern("8x1"), "first_last")
    assert found.dense == {"head.weight": "first layer", "tail.weight": "last layer"}
    found = prunable(network, parse_pattern("8x1"), "first")
    assert found.dense == {"head.weight": "first layer", "tail.weight": "12 output channels, not a multiple of 8"}
    for pattern, skip in (("16x1", "none"), ("1x16", "none"), ("3:16", "none")):
        with pytest.raises(BadInput, match=r"found none \(head\.weight .*body\.0\.weight \(8 "):
            prunable(network, parse_pattern(pattern), skip)  # type: ignore[arg-type]
    shallow = build("anchor", {"channels": 8, "blocks": 0})
    with pytest.raises(BadInput, match=r"head\.weight \(first layer\), tail\.weight \(last layer\)"):
        prunable(shallow, parse_pattern("unstructured"), "first_last")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_first_and_last_convolution_are_the_first_and_last_that_run(name):
    network = build(name, {}).merged().eval()
    ran: list[str] = []
    for layer, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda *_, layer=layer: ran.append(f"{layer}.weight"))
    with torch.no_grad():
        network(torch.rand(1, 3, 16, 16))
    dense = prunable(network, parse_pattern("unstructured"), "first_last").dense
    assert dense == {ran[0]: "first layer", ran[-1]: "last layer"}


def test_applying_masks_gives_zeros_without_sign_whatever_was_there():
    network = _network("anchor")
    mask = torch.rand(8, 8, 3, 3) < 0.5
    with torch.no_grad():
        network.body[0].weight[0, 0] = torch.tensor([torch.nan, torch.inf, -torch.inf])
        network.body[0].weight[0, 1] = -0.0
    mask[0, :2] = False
    before = network.body[0].weight.detach().clone()
    Masks("unstructured", {"body.0.weight": mask}).apply(network)
    assert not network.body[0].weight.detach().view(torch.int32)[~mask].any()
    assert torch.equal(network.body[0].weight[mask], before[mask])


def test_sparsity_is_the_share_of_zeros_in_the_masked_layers():
    half, quarter = torch.ones(4, 2, 1, 1).bool(), torch.ones(4, 4, 1, 1).bool()
    half[:2], quarter[:1] = False, False
    assert Masks("unstructured", {"a": half, "b": quarter}).sparsity() == pytest.approx((4 + 4) / (8 + 16))


@pytest.mark.parametrize("pattern", PATTERNS)
def test_masks_come_back_from_student_pt_with_their_zeros(pattern, tmp_path):
    student = _pruned("srresnet", pattern, skip="first_last")
    save_student(student, tmp_path / "s.pt")
    back = load_student(tmp_path / "s.pt")
    assert back.sparsity.pattern == student.sparsity.pattern == parse_pattern(pattern).name
    assert back.sparsity.layers.keys() == student.sparsity.layers.keys()
    for name, mask in back.sparsity.layers.items():
        assert torch.equal(mask, student.sparsity.layers[name])
        assert torch.equal(back.weights[name] != 0, mask)


def _first(content: dict[str, Any]) -> Tensor:
    return content["sparsity"]["layers"]["body.0.weight"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda c: c["sparsity"]["layers"].update(more=_first(c)), "no convolution has a weight 'more'"),
        (lambda c: c["sparsity"]["layers"].update({"head.bias": torch.ones(8).bool()}), "no convolution has a weight"),
        (lambda c: c["sparsity"]["layers"].update({"body.0.weight": _first(c)[:4]}), "has the shape (8, 8, 3, 3)"),
        (lambda c: c["sparsity"]["layers"].update({"body.0.weight": _first(c).float()}), "not a tensor of type bool"),
        (lambda c: c["sparsity"]["layers"].update({3: _first(c)}), "mask of 3"),
        (lambda c: c["sparsity"]["layers"].update({"body.0.weight": [True]}), "not a tensor of type bool"),
        (lambda c: c["sparsity"]["layers"].clear(), "with 0 layers"),
        (lambda c: c["sparsity"].pop("layers"), "unusable ones ('layers')"),
        (lambda c: c["sparsity"].update(layers=None), "unusable"),
        (lambda c: c["sparsity"].update(pattern="1:4"), "the mask of body.0.weight is not 1:4"),
        (lambda c: c["sparsity"].update(pattern="1x4"), "unusable"),
        (lambda c: c["sparsity"].update(pattern="1x4 block"), "the mask of body.0.weight is not 1x4 block"),
        (lambda c: c["sparsity"].update(pattern="some"), "unknown pattern 'some'"),
        (lambda c: c["sparsity"].update(pattern=None), "unusable"),
        (lambda c: c["weights"]["body.0.weight"].add_(1e-30), "body.0.weight is not zero where it is masked"),
        (lambda c: _first(c).fill_(False), "all of body.0.weight is masked"),
        (lambda c: c.update(sparsity=[]), "expected the field 'sparsity'"),
    ],
)
def test_masks_that_do_not_fit_the_weights_are_refused(change, says, tmp_path):
    save_student(_pruned("anchor", "2:4"), tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    change(content)
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(BadInput) as caught:
        load_student(tmp_path / "s.pt")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_student_whose_weights_are_not_zero_where_masked_is_not_written(tmp_path):
    student = _pruned("anchor")
    filled = {name: value + 1e-3 for name, value in student.weights.items()}
    with pytest.raises(BadInput, match=r"body\.0\.weight is not zero|head\.weight is not zero"):
        save_student(dataclasses.replace(student, weights=filled), tmp_path / "s.pt")
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def int8_students(photographs: Path) -> dict[str, Student]:
    """Pruned, then quantized."""
    made = {}
    for name in SMALL:
        student = _pruned(name, "2:4" if name == "edsr" else "unstructured", scope="global", skip="none")
        made[name] = quantize_student(student, calibration_crops(str(photographs), student.scale, count=16, side=16))
    return made


@pytest.mark.parametrize("name", SMALL)
def test_an_int8_student_has_zeros_wherever_the_float_one_is_masked(int8_students, name, tmp_path):
    """The rows of the trained and the shipped layer are matched one by one, by the definition of PixelShuffle."""
    save_student(int8_students[name], tmp_path / "s.pt")
    student = load_student(tmp_path / "s.pt")
    layers, masks = student.quantization.layers, student.sparsity.layers
    assert len(masks) >= len(SHIPS[name]) - 1
    for trained, (step, r) in SHIPS[name].items():
        integers, mask = layers[step].weight, masks.get(f"{trained}.weight")
        if mask is None:
            continue
        channels = len(mask) // r**2
        for c, i, j in product(range(channels), range(r), range(r)):
            row, gone = integers[(i * r + j) * channels + c], ~mask[c * r * r + i * r + j]
            assert not row[gone].any(), (step, c, i, j)
        assert (integers == 0).sum() >= (~mask).sum()
        assert integers.count_nonzero() > 0.8 * mask.sum(), "zeros must be where they are masked, not everywhere"


@pytest.mark.parametrize("name", SMALL)
def test_the_masks_that_ship_are_the_masks_moved_to_the_rows_that_ship(name):
    student = _pruned(name)
    shipped = student.sparsity.shipped(student.network())
    for step, operator, _ in student.deploy().steps():
        if isinstance(operator, Conv):
            assert torch.equal(shipped[step], operator.weight != 0), step
    for trained, (step, _) in SHIPS[name].items():
        assert shipped[step].sum() == student.sparsity.layers[f"{trained}.weight"].sum()


def test_an_int8_student_whose_integers_fill_a_zero_is_refused(int8_students, tmp_path):
    save_student(int8_students["srresnet"], tmp_path / "s.pt")
    content = torch.load(tmp_path / "s.pt", weights_only=True)
    mask = content["sparsity"]["layers"]["stages.0.conv.weight"]
    masked_row = int((~mask).flatten(1).sum(1).argmax())
    shipped_row = masked_row % 4 * (len(mask) // 4) + masked_row // 4
    integers = content["quantization"]["layers"]["up0"]["weight"]
    integers[shipped_row][~mask[masked_row]] = 1
    torch.save(content, tmp_path / "s.pt")
    with pytest.raises(BadInput, match="the integers of up0 are not zero where they are masked"):
        load_student(tmp_path / "s.pt")
