"""Removal of channels: it equals masking for every network; the choice of channels; the command."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import ARCHITECTURES, build
from compress.pruning.channel_removal import groups_of, remove_channels
from compress.pruning.channels import Widths, importance, main, rounded_width, select_channels
from compress.quantization.calibration import CalibrationCrops
from compress.quantization.ptq import quantize_student

ANCHOR = {"channels": 16, "blocks": 1}
SRRESNET = {"channels": 12, "block_channels": 10, "stage_channels": 6, "blocks": 2, "head_kernel": 3, "tail_kernel": 3}
EDSR = {"channels": 12, "block_channels": 10, "stage_channels": 6, "blocks": 2, "residual_scale": 0.5}
RLFN = {"channels": 10, "blocks": 2, "attention_channels": 6}
BSRN = {"channels": 12, "blocks": 2, "distilled_channels": 6, "attention_channels": 5, "squeeze_channels": 3}
CASES = [
    *(("anchor", {"channels": 10, "blocks": 2, "scale": s, "branches": b}) for s in (2, 3, 4) for b in (False, True)),
    ("anchor", {"channels": 10, "blocks": 0}),
    *(
        ("srresnet", {**SRRESNET, "scale": s, "activation": a, "batch_norm": n, "trunk_end": e, "output": o})
        for s, a, n, e, o in itertools.product(
            (2, 3, 4), ("prelu", "relu"), (True, False), ("batch_norm", "activation", "none"), ("linear", "tanh")
        )
    ),
    ("srresnet", {**SRRESNET, "scale": 8}),
    ("srresnet", {"channels": 8, "blocks": 0, "head_kernel": 3, "tail_kernel": 3}),
    *(("edsr", {**EDSR, "scale": s}) for s in (2, 3, 4)),
    ("edsr", {"channels": 8, "blocks": 0}),
    *(("rlfn", {**RLFN, "scale": s}) for s in (2, 3, 4)),
    ("rlfn", {**RLFN, "blocks": 0}),
    *(("bsrn", {**BSRN, "scale": s}) for s in (2, 3, 4)),
    ("bsrn", {**BSRN, "blocks": 1}),
]


def _image(height: int = 19, width: int = 16) -> Tensor:
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(5))


def _half_of_each(network: nn.Module, seed: int = 0) -> dict[str, Tensor]:
    """Other indices for every group, as many for all groups of an option."""
    draw = torch.Generator().manual_seed(seed)
    return {g.name: torch.randperm(g.size, generator=draw)[: (g.size + 1) // 2] for g in groups_of(network)}


def _masked(network: nn.Module, kept: dict[str, Tensor]) -> nn.Module:
    """The merged network with zeros in everything that makes the other channels."""
    with torch.no_grad():
        for group in groups_of(network):
            for channel in set(range(group.size)) - set(kept[group.name].tolist()):
                for producer in group.producers:
                    rows = slice(channel * producer.copies, (channel + 1) * producer.copies)
                    for parameter in network.get_submodule(producer.layer).parameters():
                        parameter[rows] = 0
                for norm in group.norms:
                    network.get_submodule(norm).weight[channel] = 0
                    network.get_submodule(norm).bias[channel] = 0
    return network


@pytest.mark.parametrize(("architecture", "options"), CASES)
def test_a_network_without_its_masked_channels_computes_what_the_masked_one_does(architecture, options, randomised):
    torch.manual_seed(0)
    network = randomised(build(architecture, options)).eval()
    plain = network.merged()
    kept = _half_of_each(plain)
    with torch.no_grad():
        whole = network(_image())
        smaller = remove_channels(network, kept)
        masked = _masked(plain, kept)(_image())
        pruned = smaller(_image())
    assert not smaller.training
    assert (whole - masked).abs().max() > 1e-3, "channels that do nothing would prove nothing"
    assert masked.std() > 1e-3, "a constant output would prove nothing"
    assert (pruned - masked).abs().max() < 1e-5
    for group in groups_of(smaller):
        assert group.size == len(kept[group.name]) == getattr(smaller.config, group.option)
    if hasattr(smaller, "deploy"):
        with torch.no_grad():
            assert (smaller.deploy()(_image()) - pruned).abs().max() < 1e-5


def test_every_convolutional_architecture_is_among_the_cases():
    declared = {name for name, known in ARCHITECTURES.items() if hasattr(known.network, "channel_groups")}
    assert declared == {architecture for architecture, _ in CASES}
    assert set(ARCHITECTURES) - declared <= {"swinir"}


@pytest.mark.parametrize("architecture", ["anchor", "srresnet", "edsr", "rlfn", "bsrn"])
def test_every_convolution_but_the_last_makes_the_channels_of_exactly_one_group(architecture):
    network = build(architecture, next(options for name, options in CASES if name == architecture))
    made = [producer.layer for group in groups_of(network) for producer in group.producers]
    convolutions = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    last = {"rlfn": "upsampler.0", "bsrn": "upsampler.upsampleOneStep.0"}.get(architecture, "tail")
    assert sorted([*made, last]) == sorted(convolutions)


def _tiny_srresnet(**options) -> nn.Module:
    torch.manual_seed(0)
    return build("srresnet", {"channels": 4, "blocks": 1, "head_kernel": 3, "tail_kernel": 3, **options})


def test_a_group_left_out_of_the_removal_stays_whole_and_its_width_is_written_down():
    network = _tiny_srresnet(scale=4)
    config = remove_channels(network, {"head": [1, 3]}).config
    assert (config.channels, config.block_channels, config.stage_channels) == (2, 4, 4)
    config = remove_channels(network, {"blocks.0.conv1": [0]}).config
    assert (config.channels, config.block_channels, config.stage_channels) == (4, 1, 4)


def test_removal_leaves_the_given_network_alone_and_keeps_device_type_and_training_mode():
    network = _tiny_srresnet().double().train()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    smaller = remove_channels(network, {"head": torch.tensor([3, 0])})
    assert smaller.training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(smaller.head.weight, network.head.weight[[0, 3]])
    smaller.head.weight.data.zero_()
    assert network.head.weight.abs().min() > 0


@pytest.mark.parametrize(
    ("kept", "says"),
    [
        ({"head": []}, "expected at least one channel to keep in head, found none"),
        ({"stages.1.conv": torch.tensor([], dtype=torch.long)}, "at least one channel to keep in stages.1.conv"),
        ({"stages.1.conv": [0]}, "in all groups of 'stage_channels', found 4 and, in stages.1.conv, 1"),
        (
            {"tail": [0]},
            "expected channel groups out of head, blocks.0.conv1, stages.0.conv, stages.1.conv, found 'tail'",
        ),
        ({"head": [0, 4]}, "expected channels 0 to 3 of head, found 4"),
        ({"head": [-1, 2]}, "expected channels 0 to 3 of head, found -1"),
    ],
)
def test_a_removal_that_cannot_be_is_refused_in_one_sentence(kept, says):
    with pytest.raises(BadInput, match=r"^expected") as caught:
        remove_channels(_tiny_srresnet(scale=4), kept)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_channels_of_the_largest_norms_are_kept_summed_over_all_layers_that_are_tied():
    network = _tiny_srresnet(scale=4, batch_norm=True)
    with torch.no_grad():
        for layer in (network.head, network.blocks[0].conv2, network.trunk, network.stages[0].conv):
            layer.weight.fill_(0.01)
        network.head.weight[2] = -0.2  # 27 weights each
        network.blocks[0].conv2.weight[0] = 0.05  # 36 weights each
        network.trunk.weight[1] = 0.04
        network.stages[0].conv.weight[3 * 4 : 4 * 4] = 1.0  # the four rows that a shuffle makes channel 3 of
        network.stages[0].conv.weight[1 * 4 + 2] = 2.0
    kept = select_channels(network, Widths(channels=2, stage_channels=2), multiple=1)
    assert kept["head"].tolist() == [0, 2]
    assert kept["stages.0.conv"].tolist() == [1, 3]
    assert set(kept) == {"head", "stages.0.conv", "stages.1.conv"}
    stream = groups_of(network)[0]
    tied = (network.head, network.blocks[0].conv2, network.trunk)
    for criterion, order in (("l1", 1), ("l2", 2)):
        expected = [sum(layer.weight[channel].norm(order) for layer in tied) for channel in range(4)]
        assert torch.allclose(importance(network, stream, criterion), torch.stack(expected))


def test_batch_norm_factors_judge_where_there_are_any_and_weights_elsewhere():
    network = _tiny_srresnet(scale=4)
    with torch.no_grad():
        network.blocks[0].norm2.weight.copy_(torch.tensor([0.1, -0.9, 0.2, 0.3]))
        network.trunk_end.weight.copy_(torch.tensor([0.1, 0.0, 0.1, 0.8]))
    kept = select_channels(network, Widths(channels=2, stage_channels=2), multiple=1, criterion="batch_norm")
    assert kept["head"].tolist() == [1, 3]
    by_norm = select_channels(network, Widths(stage_channels=2), multiple=1, criterion="l1")
    assert torch.equal(kept["stages.0.conv"], by_norm["stages.0.conv"])


@pytest.mark.parametrize(
    ("asked", "size", "multiple", "width"),
    [(16, 24, 8, 16), (17, 24, 8, 16), (20, 24, 8, 24), (19, 24, 8, 16), (1, 24, 8, 8), (3, 4, 8, 4), (50, 52, 8, 48),
     (52, 52, 8, 52), (51, 52, 1, 51), (3, 24, 5, 5), (2, 24, 5, 5), (8, 24, 5, 10)],
)  # fmt: skip
def test_widths_are_rounded_to_the_nearest_multiple_and_never_below_one(asked, size, multiple, width):
    assert rounded_width(asked, size, multiple) == width


@pytest.mark.parametrize(
    ("architecture", "options", "widths", "criterion", "says"),
    [
        (
            "anchor",
            ANCHOR,
            {"block_channels": 8},
            "l1",
            "widths for channels of this network, found one for 'block_channels'",
        ),
        ("anchor", ANCHOR, {"channels": 24}, "l1", "expected channels of at most 16, what the network has, found 24"),
        (
            "anchor",
            ANCHOR,
            {"channels": 16},
            "l1",
            "expected widths below channels 16, found channels 16 in multiples of 8",
        ),
        ("anchor", ANCHOR, {"channels": 13}, "l1", "nothing would be removed"),
        ("anchor", ANCHOR, {}, "l1", "found none in multiples of 8: nothing would be removed"),
        ("anchor", ANCHOR, {"channels": 8}, "batch_norm", "expected batch norms to judge the channels by, found none"),
        ("swinir", {}, {"channels": 8}, "l1", "expected a convolutional network to remove channels from, found SwinIR"),
    ],
)
def test_widths_that_cannot_be_are_refused_in_one_sentence(architecture, options, widths, criterion, says):
    with pytest.raises(BadInput, match=r"^expected") as caught:
        select_channels(build(architecture, options), Widths(**widths), criterion=criterion)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_command_writes_a_smaller_student_that_says_what_was_removed(command, tmp_path):
    torch.manual_seed(0)
    start = tmp_path / "start.pt"
    network = build("srresnet", {"channels": 24, "blocks": 1, "head_kernel": 3, "tail_kernel": 3})
    save_student(Student.of(network, provenance={"steps": 5}), start)
    out = tmp_path / "out.pt"
    done = command(
        "compress.pruning.channels",
        start,
        "--channels",
        "15",
        "--stage_channels",
        "8",
        "--criterion",
        "l2",
        "--out",
        out,
    )
    assert done.returncode == 0, done.stderr
    pruned = load_student(out)
    sizes = [sum(p.numel() for p in one.parameters()) for one in (network, pruned.network())]
    assert f"channels 24 to 16, stage_channels 24 to 8; {sizes[0]:,} to {sizes[1]:,} parameters" in done.stdout
    assert [pruned.config[o] for o in ("channels", "block_channels", "stage_channels")] == [16, 24, 8]
    assert pruned.provenance == {
        "steps": 5,
        "removed_channels": {
            "criterion": "l2",
            "widths": {"channels": [24, 16], "stage_channels": [24, 8]},
            "from_sha256": load_student(start).file_hash,
        },
    }
    expected = remove_channels(network, select_channels(network, Widths(channels=16, stage_channels=8), criterion="l2"))
    assert torch.equal(pruned.network()(_image()), expected.eval()(_image()))


def test_the_command_refuses_what_it_cannot_cut_and_writes_nothing(teacher_file, tmp_path):
    out = tmp_path / "out.pt"
    with pytest.raises(BadInput, match="expected widths below channels 8"):
        main(teacher_file, out=out, channels=8)
    with pytest.raises(BadInput, match="--multiple"):
        main(teacher_file, out=out, channels=4, multiple=0)
    with pytest.raises(BadInput, match="channels to be positive, found -4"):
        main(teacher_file, out=out, channels=-4)
    crops = CalibrationCrops(torch.rand(4, 3, 16, 16), "noise", 1, "")
    save_student(quantize_student(load_student(teacher_file), crops), tmp_path / "int8.pt")
    with pytest.raises(BadInput, match=r"expected a dense float student .* found an int8 one"):
        main(tmp_path / "int8.pt", out=out, channels=4, multiple=4)
    assert not out.exists()
