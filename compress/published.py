"""Published weights of other programs, loaded into our networks through named key mappings.

`python -m compress.published srgan.pth --layout leftthomas --out student.pt` turns one into a student.pt.
"""

import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from compress.checkpoint import Student, read_tensors, save_student
from compress.cli import command_line
from compress.errors import BadInput
from compress.files import sha256
from compress.models import build

Layout = Literal["leftthomas", "goldhuang", "rlfn", "bsrn"]
Weights = Mapping[str, Tensor]
NESTED = ("params_ema", "params", "state_dict")  # what training programs keep weights under, the best first
INSTALL = "pip install 'pocketsr[teachers]'"


@dataclass(frozen=True)
class PublishedLayout:
    """How one program names its weights.

    Attributes:
        architecture: ours that they fit.
        renames: (pattern, replacement) pairs for re.sub, applied in order to every key.
        config: reads our config off the renamed weights.
    """

    architecture: str
    renames: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]
    config: Callable[[Weights], dict[str, Any]]


def _srresnet_config(weights: Weights) -> dict[str, Any]:
    stages = _count(weights, r"stages\.(\d+)\.conv\.weight")
    return {
        "scale": 2**stages,
        "blocks": _count(weights, r"blocks\.(\d+)\.conv1\.weight"),
        "channels": len(weights["head.weight"]),
        "trunk_end": "activation",
        "output": "tanh",
    }


def _rlfn_config(weights: Weights) -> dict[str, Any]:
    return {
        "scale": round((len(weights["upsampler.0.weight"]) / 3) ** 0.5),
        "channels": len(weights["conv_1.weight"]),
        "blocks": _count(weights, r"block_(\d+)\.c5\.weight"),
        "attention_channels": len(weights["block_1.esa.conv1.weight"]),
    }


def _bsrn_config(weights: Weights) -> dict[str, Any]:
    return {
        "scale": round((len(weights["upsampler.upsampleOneStep.0.weight"]) / 3) ** 0.5),
        "channels": len(weights["c1.weight"]),
        "blocks": _count(weights, r"B(\d+)\.c5\.weight"),
        "distilled_channels": len(weights["B1.c4.dw.weight"]),
        "attention_channels": len(weights["B1.esa.conv1.weight"]),
        "squeeze_channels": len(weights["B1.cca.conv_du.0.weight"]),
    }


LAYOUTS: dict[str, PublishedLayout] = {
    "leftthomas": PublishedLayout(
        "srresnet",
        (
            (r"^block1\.0\.", "head."),
            (r"^block1\.1\.", "head_activation."),
            (r"^block7\.0\.", "trunk."),
            (r"^block7\.1\.", "trunk_end."),
            (r"^block8\.(\d+)\.conv\.", r"stages.\1.conv."),
            (r"^block8\.(\d+)\.prelu\.", r"stages.\1.activation."),
            (r"^block8\.\d+\.(weight|bias)$", r"tail.\1"),
            (r"^block(\d+)\.", lambda found: f"blocks.{int(found[1]) - 2}."),
            (r"\.bn(\d)\.", r".norm\1."),
            (r"\.prelu\.", ".activation."),
        ),
        _srresnet_config,
    ),
    "goldhuang": PublishedLayout(
        "srresnet",
        (
            (r"^conv1\.0\.", "head."),
            (r"^conv1\.1\.", "head_activation."),
            (r"^conv2\.0\.", "trunk."),
            (r"^conv2\.1\.", "trunk_end."),
            (r"^upsample\.(\d+)\.net\.0\.", r"stages.\1.conv."),
            (r"^upsample\.(\d+)\.net\.2\.", r"stages.\1.activation."),
            (r"^upsample\.\d+\.(weight|bias)$", r"tail.\1"),
            (r"^residual(\d+)\.net\.0\.", lambda found: f"blocks.{int(found[1]) - 1}.conv1."),
            (r"^residual(\d+)\.net\.1\.", lambda found: f"blocks.{int(found[1]) - 1}.norm1."),
            (r"^residual(\d+)\.net\.2\.", lambda found: f"blocks.{int(found[1]) - 1}.activation."),
            (r"^residual(\d+)\.net\.3\.", lambda found: f"blocks.{int(found[1]) - 1}.conv2."),
            (r"^residual(\d+)\.net\.4\.", lambda found: f"blocks.{int(found[1]) - 1}.norm2."),
        ),
        _srresnet_config,
    ),
    "rlfn": PublishedLayout("rlfn", (), _rlfn_config),
    "bsrn": PublishedLayout("bsrn", (), _bsrn_config),
}


def load_published(path: str | Path, layout: Layout) -> nn.Module:
    """A network of ours with published weights, in eval mode. Every weight must find its place.

    Raises:
        BadInput: an unreadable file (see `read_weights`), or weights of another layout.
    """
    path = Path(path)
    known = LAYOUTS[layout]
    found = read_weights(path)
    if isinstance(found, dict):
        found = next((found[name] for name in NESTED if isinstance(found.get(name), dict)), found)
    if not isinstance(found, dict) or not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in found.items()):
        raise BadInput(f"expected a state dict of layout {layout!r}, found something else in {path}: check the layout.")
    weights = {rename(key, known): value for key, value in found.items()}
    try:
        network = build(known.architecture, known.config(weights))
        missing, unexpected = network.load_state_dict(weights, strict=False)
    except (KeyError, RuntimeError, TypeError) as error:
        detail = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise BadInput(
            f"expected weights of layout {layout!r}, found others in {path} ({detail}): check the layout."
        ) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        odd = ", ".join((missing + unexpected)[:3])
        raise BadInput(f"expected weights of layout {layout!r}, found others in {path} ({odd}): check the layout.")
    return network.eval()


def read_weights(path: Path) -> Any:
    """What a .safetensors file or a PyTorch checkpoint holds, tensors on the CPU. Nothing in it is executed.

    Raises:
        BadInput: missing, damaged or of another kind; see `compress.checkpoint.read_tensors`.
    """
    if path.suffix.lower() != ".safetensors" or not path.is_file():
        return read_tensors(path)
    try:
        import safetensors.torch
    except ImportError as error:
        raise BadInput(f"expected safetensors to read {path}, found it missing: {INSTALL}.") from error
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as error:
        raise BadInput(
            f"expected a whole .safetensors file, found a damaged one in {path} ({error}): copy or download it again."
        ) from error


def rename(key: str, layout: PublishedLayout) -> str:
    """Our name of a published weight."""
    for pattern, replacement in layout.renames:
        key = re.sub(pattern, replacement, key)
    return key


def _count(weights: Weights, pattern: str) -> int:
    return len({match[1] for key in weights if (match := re.fullmatch(pattern, key))})


def convert(weights: Path, *, layout: Layout, out: Path) -> None:
    """Turns published weights into a student.pt.

    Args:
        weights: the published checkpoint.
        layout: how its program names the weights.
        out: the student.pt to write.
    """
    student = Student.of(load_published(weights, layout), provenance={"published": layout, "sha256": sha256(weights)})
    save_student(student, out)
    print(f"wrote {out}: {student.architecture} x{student.scale}")


if __name__ == "__main__":
    command_line(convert)
