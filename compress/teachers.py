"""Teachers: any student.pt or published weights, frozen, optionally as a geometric self-ensemble."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from compress import files
from compress.checkpoint import load_student
from compress.errors import BadInput
from compress.published import load_published


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Which network teaches.

    Attributes:
        file: a student.pt or published weights.
        layout: 'student', or the program that published the weights (see `compress.published`).
        self_ensemble: average the outputs over the 8 flips and rotations.
    """

    file: Path
    layout: Literal["student", "leftthomas", "goldhuang", "rlfn"] = "student"
    self_ensemble: bool = False


class SelfEnsemble(nn.Module):
    """The mean of a network's outputs over the 8 symmetries of the square, each undone.

    Timofte, Rothe, Van Gool, "Seven Ways to Improve Example-based Single Image Super Resolution" (CVPR 2016).
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        for turns in range(4):
            for flip in (False, True):
                x = lr.rot90(turns, (2, 3))
                y = self.network(x.flip(3) if flip else x)
                total = total + (y.flip(3) if flip else y).rot90(-turns, (2, 3))
        assert isinstance(total, Tensor)
        return total / 8


@dataclass(frozen=True)
class Teacher:
    """A frozen network in eval mode and the name of what it computes, for caches and provenance."""

    network: nn.Module
    key: str
    description: str


def load_teacher(spec: TeacherSpec, scale: int) -> Teacher:
    """Loads and freezes a teacher.

    Raises:
        BadInput: an unusable file, or a teacher of another scale than the student's.
    """
    is_student = spec.layout == "student"
    network = load_student(spec.file).network() if is_student else load_published(spec.file, spec.layout)
    found = network.config.scale
    if found != scale:
        raise BadInput(
            f"expected a teacher of the student's scale x{scale}, found x{found} in {spec.file}: use another teacher."
        )
    network.requires_grad_(False)
    ensemble = "self-ensemble of " if spec.self_ensemble else ""
    if spec.self_ensemble:
        network = SelfEnsemble(network).eval()
    file_hash = files.sha256(spec.file)
    key = file_hash[:24] + ("_x8" if spec.self_ensemble else "")
    return Teacher(network.to(memory_format=torch.channels_last), key, f"{ensemble}{spec.file.name}")
