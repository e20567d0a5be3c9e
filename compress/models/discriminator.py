"""The discriminator of SRGAN: tells photographs from upscaled images while a generator trains.

Ledig et al., "Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network" (CVPR 2017):
eight 3x3 convolutions, every second of stride 2, LeakyReLU 0.2, batch norm on all but the first, two dense layers.
No sigmoid at the end: the loss has it. It is no upscaler, so it has a file format of its own.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress import files
from compress.checkpoint import read_tensors
from compress.errors import BadInput
from compress.options import checked

FORMAT = "pocketsr.discriminator"
VERSION = 1
MULTIPLES = (1, 1, 2, 2, 4, 4, 8, 8)  # width of every convolution, in multiples of the first's
REDUCTION = 16  # four convolutions of stride 2
SLOPE = 0.2


@dataclass(frozen=True, kw_only=True)
class DiscriminatorConfig:
    """Sizes of the discriminator; the defaults are the published ones.

    Attributes:
        width: channels of the first convolution.
        patch: side in HR pixels of the images that it judges, a multiple of 16.
        dense: units of the hidden dense layer.
    """

    width: int = 64
    patch: int = 96
    dense: int = 1024

    def __post_init__(self) -> None:
        if self.patch % REDUCTION:
            raise BadInput(
                f"expected the discriminator's patch to be a multiple of {REDUCTION} HR pixels, found {self.patch}: "
                f"use {(self.patch // REDUCTION + 1) * REDUCTION}."
            )


class Discriminator(nn.Module):
    """(N, 3, patch, patch) RGB in [0, 1] to logits (N, 1), float32: positive for what looks like a photograph."""

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        widths = [config.width * multiple for multiple in MULTIPLES]
        layers: list[nn.Module] = []
        for i, (given, made) in enumerate(zip([3, *widths], widths, strict=False)):
            layers.append(nn.Conv2d(given, made, 3, stride=1 + i % 2, padding=1, bias=i == 0))
            if i:  # its shift takes the place of the convolution's bias
                layers.append(nn.BatchNorm2d(made))
            layers.append(nn.LeakyReLU(SLOPE))
        self.features = nn.Sequential(*layers)
        inputs = widths[-1] * (config.patch // REDUCTION) ** 2
        self.judge = nn.Sequential(nn.Linear(inputs, config.dense), nn.LeakyReLU(SLOPE), nn.Linear(config.dense, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.judge(self.features(images).flatten(1)).float()


def check_patch(config: DiscriminatorConfig, side: int) -> None:
    """Raises BadInput when patches of `side` HR pixels are not what the discriminator was made for."""
    if side != config.patch:
        raise BadInput(
            f"expected HR patches of {config.patch} pixels for the discriminator, found {side}: "
            "set data.lr_patch so that it fits, or start with a fresh discriminator."
        )


def save_discriminator(network: Discriminator, path: str | Path) -> str:
    """Writes discriminator.pt atomically and returns its SHA-256."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "config": dataclasses.asdict(network.config),
        "weights": {name: value.detach().cpu().clone() for name, value in network.state_dict().items()},
    }
    with files.written_atomically(path) as part, part.open("wb") as file:
        torch.save(content, file)
    return files.sha256(path)


def load_discriminator(path: str | Path) -> Discriminator:
    """The discriminator of a discriminator.pt, in eval mode.

    Raises:
        BadInput: what `compress.checkpoint.read_tensors` refuses, another kind of file, a newer format, or weights
            that do not fit the sizes beside them.
    """
    path = Path(path)
    content = read_tensors(path)
    found = content.get("format") if isinstance(content, dict) else None
    if found != FORMAT:
        what = "a student" if found == "pocketsr.student" else "weights of another program"
        raise BadInput(
            f"expected a discriminator.pt, found {what} in {path}: adversarial training writes one beside student.pt."
        )
    version = content.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise BadInput(
            f"expected format version {VERSION} of discriminator.pt, found version {version!r} in {path}: "
            "update pocketsr to read it."
        )
    return _rebuilt(content, path)


def _rebuilt(content: dict[str, Any], path: Path) -> Discriminator:
    for name in ("config", "weights"):
        if not isinstance(content.get(name), dict):
            raise BadInput(f"expected the field {name!r} in {path}, found none: the file was not written by pocketsr.")
    try:
        network = Discriminator(checked(DiscriminatorConfig, content["config"], "discriminator"))
        network.load_state_dict(content["weights"])
    except BadInput as error:
        raise BadInput(f"{path}: {error}") from error
    except (RuntimeError, AttributeError, TypeError) as error:
        detail = str(error).strip().splitlines()[-1].strip()
        raise BadInput(
            f"expected weights that fit the discriminator of {path}, found others: {detail} "
            "Use the file as it was written by the training."
        ) from error
    return network.eval()
