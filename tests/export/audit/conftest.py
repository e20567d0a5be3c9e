"""Files to audit: our own, one as the converter alone makes it, and one with floats between integers."""

from pathlib import Path

import pytest
import torch
from torch import nn

from compress.checkpoint import Student, load_student, save_student
from compress.models import build
from compress.quantization.calibration import calibration_crops
from compress.quantization.ptq import quantize_student
from export.chatter import logged
from export.tflite import export_tflite


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def naive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float .tflite as litert-torch makes it of plain torch code, PixelShuffle and all."""
    import litert_torch

    folder = tmp_path_factory.mktemp("naive")
    network = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.PixelShuffle(2)).eval()
    with logged(folder / "naive.log", "naive"):
        litert_torch.convert(network, (torch.zeros(1, 3, 16, 16),)).export(str(folder / "naive.tflite"))
    return folder / "naive.tflite"


@pytest.fixture(scope="session")
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
