"""python -m compress.pruning.magnitude: a student pruned at one stroke, or refused in one line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.models import build
from compress.pruning.magnitude import MagnitudeConfig, main, prune_student


def _student(**changes: Any) -> Student:
    torch.manual_seed(1)
    options = {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 3, "tail_kernel": 3}
    return Student.of(build("srresnet", options), **changes)


@pytest.fixture
def run_main(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command in this process: exit code, standard output, standard error."""

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as caught:
            command_line(main, [str(argument) for argument in arguments])
        return int(caught.value.code or 0), *capsys.readouterr()

    return run


def test_the_command_prunes_at_one_stroke(run_main, tmp_path):
    student = _student(provenance={"steps": 7}, metrics=[{"psnr": 30.0}])
    save_student(student, tmp_path / "s.pt")
    options = ("--pattern", "2:4", "--sparsity", "0.5", "--scope", "layer", "--skip", "none")
    code, printed, errors = run_main(tmp_path / "s.pt", *options, "--out", tmp_path / "pruned.pt")
    assert (code, errors) == (0, "")
    assert printed.splitlines() == [
        f"wrote {tmp_path / 'pruned.pt'}: 2:4, 50.00% of the weights of 5 layers are zero",
        "left dense: head.weight (3 input channels, not a multiple of 4)",
    ]
    pruned, given = load_student(tmp_path / "pruned.pt"), load_student(tmp_path / "s.pt")
    assert pruned.metrics == []
    assert pruned.provenance["steps"] == 7
    assert pruned.provenance["pruning"] == {
        "pattern": "2:4", "sparsity": 0.5, "scope": "layer", "student_sha256": given.file_hash
    }  # fmt: skip
    for name, value in given.weights.items():
        mask = pruned.sparsity.layers.get(name, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(pruned.weights[name], torch.where(mask, value, torch.zeros_like(value)))
        assert (~mask).sum() * 2 == (mask.numel() if name in pruned.sparsity.layers else 0)


def test_the_command_refuses_in_one_line_and_writes_nothing(run_main, tmp_path):
    masked, _ = prune_student(_student(), MagnitudeConfig(sparsity=0.5, scope="layer"))
    save_student(masked, tmp_path / "s.pt")
    for options, says in ((("--sparsity", "1"), "removes all of"), (("--pattern", "2:4"), "the pattern unstructured")):
        code, _, errors = run_main(tmp_path / "s.pt", *options, "--out", tmp_path / "pruned.pt")
        assert (code, len(errors.splitlines())) == (2, 1)
        assert says in errors
    assert not (tmp_path / "pruned.pt").exists()
