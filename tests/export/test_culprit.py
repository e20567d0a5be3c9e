"""A converter that throws: the sentence names the student's layer, the log keeps what the converter said."""

import pytest
import torch
from torch import Tensor, nn

from compress.deploy import DeployGraph
from compress.errors import BadInput
from compress.models import ARCHITECTURES, edsr
from export.formats import FORMATS
from tests.export.conftest import left


class Magic(nn.Module):
    """An operator that no format has."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.special.bessel_j0(x)


class GraphWithMagic(edsr.EDSR):
    """EDSR with an operator before its last."""

    def deploy(self) -> DeployGraph:
        plain, graph = super().deploy(), DeployGraph(self.config.scale)
        *first, last = plain.steps()
        for name, operator, inputs in first:
            graph.add(name, operator, *inputs)
        name, operator, inputs = last
        graph.add("magic", Magic(), *inputs)
        graph.add(name, operator, "magic")
        return graph


@pytest.mark.parametrize("kind", FORMATS)
def test_the_layer_is_named_and_the_log_kept(float_student, tmp_path, monkeypatch, kind):
    student = float_student("edsr")
    monkeypatch.setitem(ARCHITECTURES, "edsr", type(ARCHITECTURES["edsr"])(GraphWithMagic, edsr.EDSRConfig))
    path = tmp_path / f"magic{FORMATS[kind].suffix}"
    with pytest.raises(
        BadInput, match=r"found a failure at the step 'magic' \(TypeError: no .* form of Magic\)"
    ) as caught:
        FORMATS[kind].write(student, path, "float32")
    assert "\n" not in str(caught.value)
    assert left(tmp_path) == {"magic.log"}
    assert str(tmp_path / "magic.log") in str(caught.value)
    assert "Traceback" in (tmp_path / "magic.log").read_text()


def test_a_converter_that_throws_late_is_traced_to_the_layer(float_student, tmp_path, monkeypatch):
    """The error comes from the converter, which knows no steps; beginnings of the graph tell which one it was."""
    import litert_torch

    student, convert = float_student("edsr"), litert_torch.convert

    def picky(module: nn.Module, *arguments: object, **options: object) -> object:
        program = torch.export.export(module, *arguments)
        if any("pocketsr.depth_to_space" in str(node.target) for node in program.graph.nodes):
            raise RuntimeError("no legalization for depth_to_space")
        return convert(module, *arguments, **options)

    monkeypatch.setattr(litert_torch, "convert", picky)
    shuffle = next(name for name, step, _ in student.deploy().steps() if type(step).__name__ == "DepthToSpace")
    says = rf"at the step '{shuffle}' \(RuntimeError: no legalization for depth_to_space\)"
    with pytest.raises(BadInput, match=says):
        FORMATS["tflite"].write(student, tmp_path / "a.tflite", "float32")
    assert left(tmp_path) == {"a.log"}
