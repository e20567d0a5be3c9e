"""Teachers: any student.pt, published weights, or upscaler that spandrel knows, frozen; optionally a self-ensemble."""

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from compress import files
from compress.checkpoint import FORMAT, load_student
from compress.errors import BadInput
from compress.published import INSTALL, LAYOUTS, load_published, read_weights

if TYPE_CHECKING:
    from spandrel import ImageModelDescriptor


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """Which network teaches.

    Attributes:
        file: a student.pt, published weights, or a .safetensors or .pth of an upscaler that spandrel knows.
        layout: 'student'; the program that published the weights (see `compress.published`); 'spandrel'; or 'auto', a
            student.pt where the file is one, else spandrel.
        self_ensemble: average the outputs over the 8 flips and rotations.
    """

    file: Path
    layout: Literal["auto", "student", "leftthomas", "goldhuang", "rlfn", "bsrn", "spandrel"] = "auto"
    self_ensemble: bool = False


class SelfEnsemble(nn.Module):
    """The mean of a network's outputs over the 8 symmetries of the square, each undone.

    Timofte, Rothe, Van Gool, "Seven Ways to Improve Example-based Single Image Super Resolution" (CVPR 2016). It has
    no `taps()`: inside, features belong to one of eight turned images, not to the input.
    """

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.config = network.config

    def forward(self, lr: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        for turns in range(4):
            for flip in (False, True):
                x = lr.rot90(turns, (2, 3))
                y = self.network(x.flip(3) if flip else x)
                total = total + (y.flip(3) if flip else y).rot90(-turns, (2, 3))
        assert isinstance(total, Tensor)
        return total / 8


@dataclass(frozen=True, kw_only=True)
class UpscalerConfig:
    """All that is known of a foreign network's options."""

    scale: int


class SpandrelUpscaler(nn.Module):
    """An upscaler that spandrel loaded: (N, 3, H, W) RGB in [0, 1] to (N, 3, s*H, s*W), clipped. No gradients.

    Sizes that the network does not take are padded by reflection at the right and the bottom, and the output is cut.
    It has no `taps()`: where a foreign network's features lie is not known.
    """

    def __init__(self, descriptor: "ImageModelDescriptor[Any]"):
        super().__init__()
        self.network = descriptor.model
        self.descriptor = descriptor
        self.config = UpscalerConfig(scale=descriptor.scale)

    def forward(self, lr: Tensor) -> Tensor:
        kind = lr.device.type
        low = torch.is_autocast_enabled(kind) and self.descriptor.supports_bfloat16
        with torch.autocast(kind, torch.bfloat16, enabled=low):
            sr = self.descriptor(lr.contiguous())  # many attentions use views that channels_last would break
        return sr.float().clone()  # made in inference mode: only a copy may take part in a loss


@dataclass(frozen=True)
class Teacher:
    """A frozen network in eval mode and the name of what it computes, for caches and provenance.

    Attributes:
        network: (N, 3, h, w) to (N, 3, s*h, s*w), with its scale in `config.scale`. It has `taps()`, the names of the
            modules whose outputs are its features, only where these are known.
        key: names what it computes: hash of the file, and what was done with it.
        description: for people.
        reach: how far, in LR pixels, an output pixel looks beyond the LR pixel that it lies in; None where that is
            not known or the whole image counts.
    """

    network: nn.Module
    key: str
    description: str
    reach: int | None = None


def load_teacher(spec: TeacherSpec, scale: int) -> Teacher:
    """Loads and freezes a teacher.

    Raises:
        BadInput: an unusable file, or a teacher of another scale than the student's.
    """
    network = _load(spec)
    found = network.config.scale
    if found != scale:
        raise BadInput(
            f"expected a teacher of the student's scale x{scale}, found x{found} in {spec.file}: use another teacher."
        )
    key, description = files.sha256(spec.file)[:24], spec.file.name
    reach = network.deploy().receptive_radius() if hasattr(network, "deploy") else None
    if isinstance(network, SpandrelUpscaler):
        key += f"_spandrel{importlib.metadata.version('spandrel')}"
    else:
        network = network.to(memory_format=torch.channels_last)
    if spec.self_ensemble:
        network, key, description = SelfEnsemble(network), f"{key}_x8", f"self-ensemble of {description}"
    return Teacher(network.eval().requires_grad_(False), key, description, reach)


def _load(spec: TeacherSpec) -> nn.Module:
    if spec.layout == "student" or (spec.layout == "auto" and _is_student(spec.file)):
        return load_student(spec.file).network()
    if spec.layout in ("auto", "spandrel"):
        return _load_with_spandrel(spec)
    return load_published(spec.file, spec.layout)


def _is_student(path: Path) -> bool:
    content = read_weights(path)
    return isinstance(content, dict) and content.get("format") == FORMAT


def _load_with_spandrel(spec: TeacherSpec) -> SpandrelUpscaler:
    """spandrel tells the architecture from the weights; the file is read by us, who never run what it carries."""
    path, layouts = spec.file, ", ".join(LAYOUTS)
    weights = read_weights(path)
    try:
        import spandrel
    except ImportError as error:
        raise BadInput(
            f"expected spandrel to read {path}, which is no student.pt, found it missing: {INSTALL}, or, for published "
            f"weights, set teacher.layout to one of {layouts}."
        ) from error
    try:
        descriptor = spandrel.ModelLoader("cpu").load_from_state_dict(weights)
    except Exception as error:  # each of its architectures reads sizes off the weights, and fails, in its own way
        raise BadInput(
            f"expected a student.pt or an upscaler that spandrel knows, found neither in {path}: for published weights "
            f"set teacher.layout to one of {layouts}."
        ) from error
    single = isinstance(descriptor, spandrel.ImageModelDescriptor) and descriptor.purpose == "SR"
    channels = (descriptor.input_channels, descriptor.output_channels)
    if not single or channels != (3, 3):
        raise BadInput(
            f"expected an upscaler of single RGB images, found {descriptor.architecture.name} for {descriptor.purpose}, "
            f"x{descriptor.scale}, {channels[0]} channels to {channels[1]}, in {path}: use another teacher."
        )
    return SpandrelUpscaler(descriptor)
