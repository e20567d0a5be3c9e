"""The audit tells what is in a file, whatever its name or its flags say, and fails where the file is not what it should be."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.audit import Audit, audit_tflite
from export.chatter import logged
from export.tflite import export_tflite


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory, photographs: Path) -> Path:
    """A folder with our own float32.tflite and int8.tflite of one student."""
    folder = tmp_path_factory.mktemp("audit")
    torch.manual_seed(0)
    network = build("anchor", {"scale": 2, "channels": 8, "blocks": 1})
    with torch.no_grad():
        for convolution in network.convolutions():  # different ones: equal constants share one buffer
            convolution.bias.uniform_(-0.1, 0.1)
    student = Student.of(network)
    quantized = quantize_student(student, calibration_crops(str(photographs), 2, count=16, side=24))
    for name, one in (("float32", student), ("int8", quantized)):
        save_student(one, folder / f"{name}.pt")
        export_tflite(load_student(folder / f"{name}.pt"), folder / f"{name}.tflite", name)
    return folder


@pytest.fixture(scope="module")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float .tflite as litert-torch makes it of plain torch code, PixelShuffle and all."""
    import litert_torch

    folder = tmp_path_factory.mktemp("naive")
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    with logged(folder / "naive.log", "naive"):
        litert_torch.convert(network, (torch.zeros(1, 3, 16, 16),)).export(str(folder / "naive.tflite"))
    return folder / "naive.tflite"


@pytest.fixture(scope="module")
def island(tmp_path_factory: pytest.TempPathFactory, clean: Path) -> Path:
    """A file with INT8 images and an operator that computes on floats in between: made with the integer convolutions of
    a student, and one multiplication that has no quantizers around it."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    from export.lowering.tflite import Q, TfliteGraph

    folder = tmp_path_factory.mktemp("island")
    student = load_student(clean / "int8.pt")

    class Island(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.graph = TfliteGraph(student.deploy(), student.quantization)

        def forward(self, lr: torch.Tensor) -> torch.Tensor:
            sr = torch.exp(self.graph(lr)) - 1
            pixels = (1 / 255, -128, -128, 127, torch.int8)
            return Q.dequantize_per_tensor(Q.quantize_per_tensor(sr, *pixels), *pixels)

    scheme = get_symmetric_quantization_config(is_per_channel=True, is_qat=True)
    model = litert_torch.to_channel_last_io(Island().eval(), args=[0], outputs=[0]).eval()
    with logged(folder / "island.log", "island"):
        options = {"quant_config": QuantConfig(pt2e_quantizer=PT2EQuantizer().set_global(scheme))}
        litert_torch.convert(model, (torch.zeros(1, 16, 16, 3),), **options).export(str(folder / "island.tflite"))
    return folder / "island.tflite"


def test_our_files_are_without_fault(clean):
    assert audit_tflite(clean / "int8.tflite").faults("int8") == []
    assert audit_tflite(clean / "float32.tflite").faults("float32") == []


def test_sizes_are_those_of_the_weights(clean):
    small, large = audit_tflite(clean / "int8.tflite"), audit_tflite(clean / "float32.tflite")
    weights = 3 * 8 * 9 + 8 * 8 * 9 + 8 * 12 * 9
    biases = 8 + 8 + 12
    assert small.weight_bytes == weights + 4 * biases
    assert 4 * (weights + biases) <= large.weight_bytes <= 4 * (weights + biases) + 64
    assert small.file_bytes == (clean / "int8.tflite").stat().st_size


def test_a_float_file_is_no_int8_file(clean):
    found = audit_tflite(clean / "float32.tflite")
    assert not found.integer_only
    first, second, *_ = found.faults("int8")
    assert first.startswith(f"{sum(found.operators.values())} float operators, first ")
    assert second == "images of type FLOAT32 and FLOAT32 instead of INT8"


def test_an_int8_file_is_no_float_file(clean):
    assert audit_tflite(clean / "int8.tflite").faults("float32") == ["images of type INT8 and INT8 instead of FLOAT32"]


def test_plain_pixel_shuffle_shows_as_transposes_and_a_baked_in_size(naive):
    found = audit_tflite(naive)
    assert {"TRANSPOSE", "RESHAPE"} <= set(found.operators)
    assert "DEPTH_TO_SPACE" not in found.operators
    assert not found.resizable
    assert not found.integer_only
    assert found.faults("int8")


def test_a_float_island_between_integers_is_named(island):
    found = audit_tflite(island)
    kinds = {entry.partition(":")[0] for entry in found.float_operators}
    assert "EXP" in kinds
    assert "CONV_2D" not in kinds
    faults = found.faults("int8")
    assert faults[0].startswith(f"{len(found.float_operators)} float operators, first ")
    assert not found.integer_only


def test_partitions_and_ranks_that_delegates_refuse_are_faults():
    split = Audit({}, [], "INT8", "INT8", 2, ["CAST"], 0, 0, 6, True)
    assert split.faults("int8") == ["2 XNNPACK partitions with CAST outside", "a tensor of rank 6"]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda content: b"", "some other kind of file"),
        (lambda content: b"no model at all", "some other kind of file"),
        (lambda content: b"\x89PNG" + content[4:], "expected a"),
        (lambda content: content[:9], "expected a"),
        (lambda content: content[: len(content) // 3], "expected a"),
        (lambda content: content[: len(content) * 9 // 10], "expected a"),
        (lambda content: content[:8] + bytes(len(content) - 8), "expected a"),
    ],
    ids=["empty", "text", "wrong start", "header", "third", "nine tenths", "zeros"],
)
def test_other_and_damaged_files_are_refused_in_one_sentence(clean, tmp_path, damage, says):
    """In a process of its own, which a crash of the interpreter would end."""
    path = tmp_path / "file.tflite"
    path.write_bytes(damage((clean / "int8.tflite").read_bytes()))
    code = (
        "import sys; from export.audit import audit_tflite; from compress.errors import BadInput\n"
        "try: audit_tflite(sys.argv[1])\n"
        "except BadInput as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert says in done.stdout
    assert len(done.stdout.splitlines()) == 1


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(BadInput, match="found nothing at"):
        audit_tflite(tmp_path / "none.tflite")


@pytest.mark.parametrize(("name", "code"), [("int8", 0), ("float32", 0)])
def test_the_command_passes_clean_files(clean, command: Callable, name, code):
    done = command("export.audit", clean / f"{name}.tflite")
    assert (done.returncode, done.stderr) == (code, "")
    assert "made by pocketsr: yes, anchor x2" in done.stdout
    assert "FAULT" not in done.stdout


def test_the_command_fails_on_faults_and_refuses_what_is_no_model(island, tmp_path, command: Callable):
    done = command("export.audit", island)
    assert (done.returncode, done.stderr) == (1, "")
    assert "FAULT for int8: " in done.stdout
    assert "made by pocketsr: no" in done.stdout
    (tmp_path / "a.tflite").write_text("no model")
    done = command("export.audit", tmp_path / "a.tflite")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1), done.stderr
