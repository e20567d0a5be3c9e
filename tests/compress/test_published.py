"""Public weights: they load into our networks whole, and reach the PSNR that their authors' code reaches."""

from pathlib import Path

import pytest
import torch

from compress.checkpoint import load_student
from compress.data.benchmarks import open_benchmark
from compress.errors import BadInput
from compress.evaluate import evaluate, torch_upscaler
from compress.published import load_published


@pytest.mark.parametrize(
    ("file", "layout", "scale", "parameters", "psnr"),
    [
        ("srgan_leftthomas_x4.pth", "leftthomas", 4, 734_092, 30.65),
        ("srgan_leftthomas_x2.pth", "leftthomas", 2, 586_379, 35.47),
        ("srresnet8_goldhuang_x4.pth", "goldhuang", 4, 956_431, 31.02),
        ("rlfn_x4.pth", "rlfn", 4, 543_740, 32.24),
        ("rlfn_x2.pth", "rlfn", 2, 526_856, 38.07),
        ("bsrn_x4.pth", "bsrn", 4, 352_400, 32.35),
        ("bsrn_x2.pth", "bsrn", 2, 331_628, 38.08),
    ],
)
def test_published_weights_reach_their_published_psnr_on_set5(shared_data, file, layout, scale, parameters, psnr):
    network = load_published(shared_data / "weights" / file, layout)
    assert network.config.scale == scale
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert not network.training
    row = evaluate(torch_upscaler(network), open_benchmark("Set5", scale, shared_data / "eval"))
    assert row["images"] == 5
    assert row["psnr"] == pytest.approx(psnr, abs=0.01)


@pytest.mark.parametrize("file", ["srgan_leftthomas_x4.pth", "srgan_leftthomas_x2.pth", "srresnet8_goldhuang_x4.pth"])
def test_the_deploy_graph_of_published_weights_equals_the_network(shared_data, file):
    layout = "leftthomas" if "leftthomas" in file else "goldhuang"
    network = load_published(shared_data / "weights" / file, layout)
    lr = torch.rand(1, 3, 24, 31, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert (network(lr) - network.deploy()(lr)).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("file", "layout"),
    [
        ("srgan_leftthomas_x4.pth", "goldhuang"),
        ("srresnet8_goldhuang_x4.pth", "leftthomas"),
        ("srgan_leftthomas_x4.pth", "rlfn"),
        ("rlfn_x4.pth", "leftthomas"),
        ("imdn_x4.pth", "rlfn"),
        ("bsrn_x4.pth", "leftthomas"),
        ("rlfn_x4.pth", "bsrn"),
        ("hit_srf_x4.pth", "bsrn"),
    ],
)
def test_a_wrong_layout_is_refused(shared_data, file, layout):
    with pytest.raises(BadInput, match="check the layout") as caught:
        load_published(shared_data / "weights" / file, layout)
    assert "\n" not in str(caught.value)


def test_weights_that_lack_one_tensor_are_refused(shared_data, tmp_path):
    weights = torch.load(shared_data / "weights" / "srgan_leftthomas_x2.pth", map_location="cpu", weights_only=True)
    del weights["block3.bn1.running_var"]
    torch.save(weights, tmp_path / "w.pth")
    with pytest.raises(BadInput, match=r"blocks\.1\.norm1\.running_var"):
        load_published(tmp_path / "w.pth", "leftthomas")


@pytest.mark.parametrize(
    "content", [{"params": {1: torch.zeros(1)}}, {"params": torch.zeros(1)}, {"c1.weight": [1]}, []]
)
def test_a_checkpoint_that_is_no_state_dict_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(BadInput, match="check the layout"):
        load_published(tmp_path / "w.pth", "bsrn")


def test_the_command_turns_published_weights_into_a_student(shared_data, tmp_path, command):
    source, out = shared_data / "weights" / "srgan_leftthomas_x4.pth", tmp_path / "student.pt"
    done = command("compress.published", source, "--layout", "leftthomas", "--out", out)
    assert (done.returncode, done.stdout) == (0, f"wrote {out}: srresnet x4\n"), done.stderr
    student, lr = load_student(out), torch.rand(1, 3, 9, 9)
    with torch.no_grad():
        assert torch.equal(student.network()(lr), load_published(source, "leftthomas")(lr))
    assert student.provenance["published"] == "leftthomas"


def test_a_damaged_safetensors_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(BadInput, match="damaged one") as caught:
        load_published(tmp_path / "w.safetensors", "bsrn")
    assert "\n" not in str(caught.value)


def test_the_command_refuses_a_missing_file_in_one_line(tmp_path: Path, command):
    done = command("compress.published", tmp_path / "none.pth", "--layout", "rlfn", "--out", tmp_path / "s.pt")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr
    assert not (tmp_path / "s.pt").exists()
