"""Students of every kind of graph, float and int8, and what they compute, for the tests of all formats."""

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from compress.checkpoint import Student, load_student, save_student
from compress.errors import BadInput
from compress.models import build
from compress.pruning.magnitude import MagnitudeConfig, prune_student
from compress.quantization.calibration import calibration_crops
from compress.quantization.mix import layers
from compress.quantization.ptq import Plan, Trial, finished, quantize_student
from compress.quantization.scheme import Arithmetic
from export.mlpackage import import_coremltools

import_coremltools()  # before a test module imports it, and with it TensorFlow
SMALL = {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 5, "tail_kernel": 5}
STUDENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "anchor_x2": ("anchor", {"scale": 2, "channels": 8, "blocks": 1, "branches": True}),
    "anchor_x3": ("anchor", {"scale": 3, "channels": 8, "blocks": 1}),
    "anchor_x4": ("anchor", {"scale": 4, "channels": 8, "blocks": 1}),
    "relu_linear": ("srresnet", {**SMALL, "activation": "relu", "output": "linear", "scale": 4}),
    "prelu_linear": ("srresnet", {**SMALL, "activation": "prelu", "output": "linear", "scale": 3}),
    "edsr": ("edsr", {"scale": 2, "channels": 8, "blocks": 2, "residual_scale": 0.5}),
    "prelu_tanh": ("srresnet", {**SMALL, "activation": "prelu", "output": "tanh", "trunk_end": "activation"}),
}
FIXED: dict[str, tuple[str, dict[str, Any]]] = {
    "rlfn": ("rlfn", {"scale": 2, "channels": 8, "blocks": 1, "attention_channels": 4}),
    "bsrn": ("bsrn", {"scale": 3, "channels": 8, "blocks": 1, "distilled_channels": 4, "attention_channels": 4}),
    "swinir": ("swinir", {"scale": 2, "depths": (2,), "dim": 12, "heads": 3, "window": 4}),
}
"""Networks that do not fit the deploy graph, and ship for one image size."""
KINDS: dict[str, list[Arithmetic]] = {
    "int16x8": ["int16"],
    "mixed": ["int16", "int8", "float", "int16", "float", "int8"],
    "mixed_float": ["int8", "float", "float"],
    "mixed_turned": ["float", "int16", "int8"],
}
"""Students of several arithmetics: those that their layers have, in turn."""
SLOPES = (0.25, -0.3, 1.4, 0.0, 0.1)  # a learned slope can be any of these
QUALITY = {"set": "Set5", "scale": 2, "images": 5, "psnr": 30.5, "ssim": 0.9, "lpips": None, "protocol": {"border": 4}}
SIZES = [(16, 16), (19, 30)]
PATTERNS = ["unstructured", "2:4", "1x4", "4x2"]  # of masks: one of each kind


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("exported")


@pytest.fixture(scope="session")
def float_student(folder: Path) -> Callable[[str], Student]:
    """A saved student with randomised batch norm and biases, its output around the middle of the range."""

    def make(name: str) -> Student:
        path = folder / f"{name}.pt"
        if not path.exists():
            torch.manual_seed(3)
            architecture, options = {**STUDENTS, **FIXED}[name]
            network = build(architecture, options)
            with torch.no_grad():
                for module in network.modules():
                    if isinstance(module, torch.nn.BatchNorm2d):
                        module.running_mean.uniform_(-0.3, 0.3)
                        module.running_var.uniform_(0.5, 1.5)
                    if isinstance(module, torch.nn.Conv2d) and module.bias is not None:
                        module.bias.uniform_(-0.05, 0.05)
                learned = [module for module in network.modules() if isinstance(module, torch.nn.PReLU)]
                for module, slope in zip(learned, itertools.cycle(SLOPES)):
                    module.weight.fill_(slope)
                for table in (value for key, value in network.named_parameters() if key.endswith("bias_table")):
                    table.normal_()
                if name in FIXED:
                    last = [module for module in network.modules() if isinstance(module, torch.nn.Conv2d)][-1]
                    last.bias.fill_({"rlfn": 127.5, "bsrn": 0.5, "swinir": 0.0}[name])
                elif architecture != "anchor":
                    network.tail.bias.fill_(0.0 if options.get("output") == "tanh" else 0.5)
            save_student(Student.of(network, metrics=[QUALITY]), path)
        return load_student(path)

    return make


@pytest.fixture(scope="session")
def int8_student(float_student: Callable[[str], Student], folder: Path, photographs: Path) -> Callable[[str], Student]:
    def make(name: str) -> Student:
        path = folder / f"{name}_int8.pt"
        if not path.exists():
            student = float_student(name)
            save_student(
                quantize_student(student, calibration_crops(str(photographs), student.scale, count=16, side=32)), path
            )
        return load_student(path)

    return make


@pytest.fixture(scope="session")
def masked_student(
    float_student: Callable[[str], Student], folder: Path, photographs: Path
) -> Callable[[str, str], Student]:
    """A student of that pattern and precision; three quarters of its masked weights are zero, or half for 2:4."""

    def make(pattern: str, precision: str) -> Student:
        path = folder / f"masked_{pattern.replace(':', '_')}.pt"
        whole = path.with_name(f"{path.stem}_int8.pt")
        if not whole.exists():
            config = MagnitudeConfig(pattern=pattern, sparsity=0.5 if ":" in pattern else 0.75, skip="first")
            pruned, _ = prune_student(float_student("edsr"), config)
            save_student(pruned, path)
            crops = calibration_crops(str(photographs), pruned.scale, count=16, side=32)
            save_student(quantize_student(load_student(path), crops), whole)
        return load_student(whole if precision.startswith("int8") else path)

    return make


@pytest.fixture(scope="session")
def student_of(
    float_student: Callable[[str], Student], folder: Path, photographs: Path
) -> Callable[[str, str], Student]:
    """A student by name, with the arithmetics of `KINDS` given to its layers in turn."""
    trials: dict[str, Trial] = {}

    def make(name: str, kind: str) -> Student:
        path = folder / f"{name}_{kind}_{len(KINDS)}.pt"
        if not path.exists():
            student = float_student(name)
            crops = calibration_crops(str(photographs), student.scale, count=16, side=24)
            if name not in trials:
                trials[name] = Trial(student.deploy(), crops.crops)
            trial, kinds = trials[name], KINDS[kind]
            chosen = {layer.name: kinds[i % len(kinds)] for i, layer in enumerate(layers(trial.graph))}
            plan = Plan(range="mse", equalization=True, bias_correction=True)
            calibration = {**dataclasses.asdict(plan), **crops.describe()}
            save_student(finished(student, trial.quantization(plan, chosen), calibration), path)
        return load_student(path)

    return make


def pixels_of(size: tuple[int, int], photographs: Path) -> NDArray[np.uint8]:
    with Image.open(photographs / "astronaut.png") as image:
        return np.asarray(image)[20 : 20 + size[0], 30 : 30 + size[1]]


def reference_of(student: Student, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.no_grad():
        sr = student.reference()(torch.tensor(pixels).permute(2, 0, 1)[None].float() / 255)
    return sr[0].permute(1, 2, 0).numpy()


@pytest.fixture
def saved(float_student: Callable[[str], Student], folder: Path, tmp_path: Path) -> Path:
    """A student.pt in a folder of its own."""
    float_student("anchor_x2")
    (tmp_path / "student.pt").write_bytes((folder / "anchor_x2.pt").read_bytes())
    return tmp_path / "student.pt"


def left(folder: Path) -> set[str]:
    """Names of what is in a folder."""
    return {path.name for path in folder.iterdir()}


def refused(function: Callable[..., object], folder: Path, says: str, *arguments: Any, **options: Any) -> None:
    """A command says one sentence and leaves the folder as it was."""
    before = left(folder)
    with pytest.raises(BadInput, match=says) as caught:
        function(*arguments, **options)
    assert "\n" not in str(caught.value)
    assert left(folder) == before
