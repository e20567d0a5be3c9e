"""From density to sizes: the two networks of the paper, the rule's promises, and the command."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from compress.checkpoint import Student, save_student
from compress.cli import command_line
from compress.errors import BadInput
from compress.models import build
from compress.pruning.size_rule import Sizes, candidates, sizes_of, with_sizes
from compress.pruning.sizes import compact_sizes, layer_densities, main

EDSR, SWINIR = Sizes(64, None, 16), Sizes(60, 6, 4)
ORIGINALS = {"EDSR": (EDSR, 8), "full EDSR": (Sizes(256, None, 32), 8), "SwinIR": (SWINIR, 24)}


def _parameters(architecture: str, options: dict) -> int:
    return sum(p.numel() for p in build(architecture, options).parameters())


def _student(architecture: str, options: dict, kept: float) -> Student:
    """A student whose convolutions and linear layers keep about that share of their weights."""
    torch.manual_seed(0)
    student = Student.of(build(architecture, options))
    for name, weight in student.weights.items():
        if weight.ndim >= 2 and "table" not in name:
            weight.mul_(torch.rand(weight.shape) < kept)
    return student


def test_the_densities_of_the_paper_give_its_two_networks():
    edsr = compact_sizes(_student("edsr", {"scale": 2}, 1.0), 0.031)
    mini = {**edsr["options"], "residual_scale": 2.0}
    assert (mini["channels"], mini["blocks"], mini["scale"]) == (16, 8, 2)
    assert edsr["parameters"] == {"student": 1_369_859, "compact": 49_603} == {
        "student": _parameters("edsr", {"scale": 2}), "compact": _parameters("edsr", mini)
    }  # fmt: skip
    swinir = compact_sizes(_student("swinir", {"scale": 2}, 1.0), 0.08)
    assert (swinir["options"]["dim"], swinir["options"]["depths"]) == (24, (4, 4, 4))
    assert swinir["options"]["heads"] == 6
    assert swinir["parameters"] == {"student": 910_152, "compact": 98_868}
    gone = [1 - found["parameters"]["compact"] / found["parameters"]["student"] for found in (swinir, edsr)]
    assert [round(100 * share) for share in gone] == [89, 96]  # as the paper states
    assert (edsr["kept"], swinir["kept"]) == (pytest.approx(1 / 32), pytest.approx(0.08))


@pytest.mark.parametrize("share", [0.72, 0.75, 0.8, 0.85, 0.89])
def test_the_networks_of_the_paper_do_not_hang_on_the_exact_share_of_the_width(share):
    assert candidates(EDSR, 0.031, width_share=share)[0].sizes == Sizes(16, None, 8)
    assert candidates(SWINIR, 0.08, multiple=24, width_share=share)[0].sizes == Sizes(24, 4, 3)


def test_other_shares_give_other_networks():
    assert candidates(EDSR, 0.031, width_share=0.5)[0].sizes.width > 16
    assert candidates(SWINIR, 0.08, multiple=24, width_share=0.2)[0].sizes.width > 24


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(ORIGINALS)), st.floats(0.02, 1), st.floats(0.02, 1))
def test_what_is_kept_follows_the_density(name, one, other):
    original, multiple = ORIGINALS[name]
    less, more = (candidates(original, density, multiple=multiple) for density in sorted((one, other)))
    assert less[0].kept <= more[0].kept * (1 + 1e-12)
    assert 1 / 1.5 < less[0].kept / min(one, other) < 1.5
    for found in (less[0].sizes, more[0].sizes):
        assert found.width % multiple == 0 or found.width == original.width
        assert found.width <= original.width
        assert 1 <= found.blocks <= original.blocks
        assert original.layers is None or 1 <= found.layers <= original.layers


def test_density_one_keeps_the_original_and_the_ranking_is_by_distance():
    for original, multiple in ORIGINALS.values():
        ranked = candidates(original, 1.0, multiple=multiple)
        assert ranked[0].sizes == original
        assert ranked[0].distance == 0
        assert [one.distance for one in ranked] == sorted(one.distance for one in ranked)


def test_a_candidate_keeps_what_the_formula_says():
    found = {one.sizes: one.kept for one in candidates(SWINIR, 0.3, multiple=24)}
    assert found[Sizes(48, 3, 2)] == pytest.approx((48 / 60) ** 2 * (3 / 6) * (2 / 4))
    assert len(found) == 3 * 6 * 4  # widths 24, 48 and the original's 60


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("srresnet", {"scale": 2, "channels": 32, "blocks": 4, "block_channels": 16, "head_kernel": 3}),
        ("edsr", {"scale": 3, "channels": 32, "blocks": 4, "stage_channels": 24}),
        ("anchor", {"scale": 2, "channels": 24, "blocks": 4}),
        ("rlfn", {"scale": 2, "channels": 16, "blocks": 2, "attention_channels": 8}),
        ("bsrn", {"scale": 2, "channels": 16, "blocks": 2, "distilled_channels": 8, "attention_channels": 4}),
        ("swinir", {"scale": 2, "dim": 48, "depths": (2, 2)}),
    ],
)
def test_every_architecture_gets_a_smaller_network_of_its_own_kind(architecture, options):
    student = _student(architecture, options, 0.2)
    found = compact_sizes(student)
    assert 0.15 < found["density"] < 0.25
    width = "dim" if architecture == "swinir" else "channels"
    assert found["options"][width] < options[width]
    assert found["parameters"]["compact"] == _parameters(architecture, found["options"])
    assert found["parameters"]["compact"] < 0.5 * found["parameters"]["student"]
    again = json.loads(json.dumps(found))["options"]  # a recipe's model.sizes
    assert _parameters(architecture, again) == found["parameters"]["compact"]


def test_widths_set_apart_shrink_in_proportion_and_those_left_to_the_rest_stay_so():
    config = {"scale": 2, "channels": 64, "block_channels": 32, "stage_channels": 0, "blocks": 8}
    assert with_sizes(config, Sizes(16, None, 3)) == {**config, "channels": 16, "block_channels": 8, "blocks": 3}


def test_the_density_is_counted_per_layer_and_over_all():
    student = _student("edsr", {"scale": 2, "channels": 8, "blocks": 1}, 0.5)
    layers = layer_densities(student.network())
    assert [layer["name"] for layer in layers] == [
        "head.weight", "blocks.0.conv1.weight", "blocks.0.conv2.weight", "trunk.weight", "stages.0.weight", "tail.weight"
    ]  # fmt: skip
    for layer in layers:
        weight = student.weights[layer["name"]]
        assert layer["shape"] == list(weight.shape)
        assert layer["density"] == (weight != 0).sum().item() / weight.numel()
    total = sum(layer["weights"] for layer in layers)
    mean = sum(layer["density"] * layer["weights"] for layer in layers) / total
    assert compact_sizes(student)["density"] == pytest.approx(mean)


def test_students_without_zeros_and_densities_out_of_range_are_refused():
    dense = _student("srresnet", {"scale": 2, "channels": 8, "blocks": 1}, 1.0)
    with pytest.raises(BadInput, match=r"expected a sparsified student, found one without a single zero"):
        compact_sizes(dense)
    for density in (0.0, -0.1, 1.1, math.nan):
        with pytest.raises(BadInput, match=f"expected a density above 0 and up to 1.* found {density:g}"):
            compact_sizes(dense, density)
    with pytest.raises(BadInput, match="a multiple of at least 1"):
        compact_sizes(dense, 0.5, multiple=0)
    with pytest.raises(BadInput, match="expected a network with blocks, found one without"):
        compact_sizes(_student("srresnet", {"scale": 2, "channels": 8, "blocks": 0}, 1.0), 0.5)


def test_blocks_of_unequal_depth_and_unknown_kinds_of_config_are_refused():
    with pytest.raises(BadInput, match=r"blocks of equally many layers, found depths 6, 4"):
        sizes_of({"dim": 60, "depths": (6, 4)})
    with pytest.raises(BadInput, match=r"expected an architecture with .* found scale, width"):
        sizes_of({"scale": 2, "width": 3})


def test_the_command_prints_the_densities_and_writes_the_options(tmp_path, command):
    student = _student("edsr", {"scale": 2, "channels": 32, "blocks": 4}, 0.1)
    saved = save_student(student, tmp_path / "sparse.pt")
    done = command("compress.pruning.sizes", tmp_path / "sparse.pt", "--out", tmp_path / "sizes.json")
    assert done.returncode == 0, done.stderr
    written = json.loads((tmp_path / "sizes.json").read_text())
    assert written["architecture"] == "edsr"
    assert written["source_sha256"] == saved
    assert written["options"] == {**compact_sizes(student)["options"]}
    assert "blocks.3.conv2.weight" in done.stdout
    chosen, counts = written["options"], written["parameters"]
    assert done.stdout.endswith(
        f"density {written['density']:.4f}: width {chosen['channels']}, {chosen['blocks']} blocks; "
        f"{counts['compact']:,} of {counts['student']:,} parameters\nwrote {tmp_path / 'sizes.json'}\n"
    )


def test_a_stated_density_goes_before_the_students_and_a_wrong_one_writes_nothing(tmp_path, capsys):
    save_student(_student("edsr", {"scale": 2, "channels": 32, "blocks": 4}, 0.1), tmp_path / "sparse.pt")

    def run(density: str) -> object:
        arguments = [str(tmp_path / "sparse.pt"), "--out", str(tmp_path / f"{density}.json"), "--density", density]
        with pytest.raises(SystemExit) as left:
            command_line(main, arguments)
        return left.value.code

    assert run("0.5") == 0
    assert json.loads((tmp_path / "0.5.json").read_text())["density"] == 0.5
    assert run("2") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "2.json").exists()
