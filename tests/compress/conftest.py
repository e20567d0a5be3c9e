"""What several tests of compress share."""

from pathlib import Path

import pytest
import torch

from compress.checkpoint import Student, save_student
from compress.models import build


@pytest.fixture(scope="session")
def teacher_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(7)
    network = build("srresnet", {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 3, "tail_kernel": 3})
    path = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    save_student(Student.of(network), path)
    return path
