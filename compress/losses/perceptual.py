"""VGG19 content loss: the distance of two images in the features of a network trained on ImageNet."""

import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from compress.checkpoint import read_tensors
from compress.errors import BadInput
from compress.frozen import Frozen
from compress.losses.pairs import full_precision, pair
from compress.losses.pixel import l1, mse
from compress.metrics import imagenet_weights, optional_packages

PUBLISHED = "vgg19-dcbb9e9d.pth"
"""torchvision's file of IMAGENET1K_V1."""


def _number_layers() -> dict[str, tuple[int, int, int]]:
    layers, index, width = {}, 0, 3
    for block, (out, count) in enumerate(((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)), 1):
        for convolution in range(1, count + 1):
            layers[f"conv{block}_{convolution}"] = (index, width, out)
            index, width = index + 2, out  # a ReLU after each
        index += 1  # max pooling
    return layers


LAYERS = _number_layers()
"""conv1_1 ... conv5_4, in order: number among torchvision's `features`, channels in, channels out."""


class VggLoss(nn.Module):
    """Distance of the features of one layer of VGG19, frozen; gradients reach the image only.

    Before the activation as in ESRGAN (Wang et al. 2018, section 3.3), or after it as SRGAN's phi_{i,j} (Ledig et al.
    2017, equation 5: convolution j before max pooling i, so phi_{2,2} is conv2_2 and phi_{5,4} conv5_4, after activation).
    The distance is the mean over all values of the maps, squared or absolute.

    SRGAN's authors divide the features by 12.75, which multiplies the squared distance by 0.00615: this is the weight of
    about 0.006 in other descriptions of the same loss. Use `scale=1/12.75` or such a weight, not both.

    Args:
        layer: conv1_1 ... conv5_4; the network is built up to it.
        after_activation: compare behind the layer's ReLU.
        criterion: 'mse' (SRGAN) or 'l1' (ESRGAN).
        scale: multiplies the features.
        weights: a file in torchvision's layout (`features.0.weight` ...), which may end early; None: torchvision's
            IMAGENET1K_V1, downloaded into torch.hub's folder (548 MB) when it is not there.

    Raises:
        BadInput: an unknown layer, weights that cannot be had, or a file without the weights of that layer.
    """

    def __init__(
        self,
        layer: str = "conv5_4",
        *,
        after_activation: bool = False,
        criterion: Literal["mse", "l1"] = "mse",
        scale: float = 1.0,
        weights: Path | None = None,
    ):
        super().__init__()
        if layer not in LAYERS:
            raise BadInput(f"expected a layer of VGG19 out of {', '.join(LAYERS)}, found {layer!r}: choose one.")
        found = read_tensors(weights) if weights else _downloaded()
        self.features = Frozen(_Vgg(_up_to(layer, found, weights or Path(PUBLISHED)), after_activation))
        self.criterion = {"mse": mse, "l1": l1}[criterion]
        self.scale = scale

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        """One number.

        Args:
            image, target: (N, 3, H, W) RGB in [0, 1]; the ImageNet mean and deviation are applied inside.

        Raises:
            ValueError: shapes that differ.
        """
        image, target = pair(image, target)
        with torch.no_grad():
            wanted = self.features(target)
        found = self.features(image)
        return self.criterion(self.scale * full_precision(found), self.scale * full_precision(wanted))


class _Vgg(nn.Module):
    """The first convolutions of VGG19 with ReLU and pooling between them, and the normalisation of their input."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: dict[str, tuple[Tensor, Tensor]], after_activation: bool):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None])
        self.register_buffer("deviation", torch.tensor([0.229, 0.224, 0.225])[:, None, None])
        self.layers = nn.Sequential()
        for name, (weight, bias) in weights.items():
            if len(self.layers):
                self.layers.append(nn.ReLU(inplace=True))
                if name.endswith("_1"):
                    self.layers.append(nn.MaxPool2d(2))
            conv = nn.Conv2d(weight.shape[1], weight.shape[0], 3, padding=1)
            conv.load_state_dict({"weight": weight, "bias": bias})
            self.layers.append(conv)
        if after_activation:
            self.layers.append(nn.ReLU(inplace=True))

    def forward(self, rgb: Tensor) -> Tensor:
        return self.layers((rgb - self.mean) / self.deviation)


def _up_to(layer: str, found: Any, path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Weight and bias of all layers up to that one, out of a state dict read from `path`."""
    held = _held(found)
    names = list(held)
    if not names:
        raise BadInput(
            f"expected VGG19 in torchvision's layout (features.0.weight ...), found other weights in {path}: "
            f"give torchvision's {PUBLISHED}, or a part of it."
        )
    if layer not in held:
        raise BadInput(
            f"expected VGG19 up to {layer}, found {names[0]} to {names[-1]} in {path}: choose one of these layers, or "
            f"give torchvision's {PUBLISHED}."
        )
    return {name: held[name] for name in names[: names.index(layer) + 1]}


def _held(found: Any) -> dict[str, tuple[Tensor, Tensor]]:
    """The layers that a state dict has without a gap from conv1_1 on; none where it is of another network."""
    held = {}
    if not isinstance(found, dict):
        return held
    numbers = {int(match[1]) for key in found if (match := re.fullmatch(r"features\.(\d+)\.weight", str(key)))}
    if not numbers <= {index for index, _, _ in LAYERS.values()}:  # VGG16, or VGG19 with batch norm
        return held
    for name, (index, before, after) in LAYERS.items():
        weight, bias = (found.get(f"features.{index}.{part}") for part in ("weight", "bias"))
        if not isinstance(weight, Tensor) or not isinstance(bias, Tensor):
            break
        if weight.shape != (after, before, 3, 3) or bias.shape != (after,):
            break
        held[name] = (weight, bias)
    return held


def _downloaded() -> dict[str, Any]:
    with optional_packages("or name a file of them (method.options.content_weights)"):
        from torchvision.models import VGG19_Weights
    with imagenet_weights("VGG19", PUBLISHED, "or name a file of them (method.options.content_weights)"):
        return dict(VGG19_Weights.IMAGENET1K_V1.get_state_dict(progress=True, check_hash=True))
