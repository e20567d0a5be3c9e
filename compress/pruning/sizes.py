"""Second stage of CDISM: from the density of a sparsified network to the sizes of a compact, dense one.

`python -m compress.pruning.sizes sparse_student.pt --out sizes.json`; a recipe names the file as `model.sizes`. The
rule is in compress.pruning.size_rule.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from compress.checkpoint import Student, load_student
from compress.cli import command_line
from compress.errors import BadInput
from compress.files import write_text
from compress.models import build
from compress.pruning.size_rule import MULTIPLE, WIDTH_SHARE, candidates, sizes_of, with_sizes
from compress.pruning.sparsify import density as density_of
from compress.pruning.sparsify import regularized

LISTED = 5


def compact_sizes(
    student: Student, density: float | None = None, *, multiple: int = MULTIPLE, width_share: float = WIDTH_SHARE
) -> dict[str, Any]:
    """The compact architecture for a sparsified student, as plain values.

    Args:
        student: float, after the technique sparsify.
        density: share of weights to keep; None takes the student's own.
        multiple, width_share: see `candidates`; SwinIR's dimension is a multiple of its heads too.

    Returns:
        architecture, options (all of its config), density, kept (by the formula), parameters (of the student and of
        the compact network), candidates (the first few of the ranking), layers (name, shape, weights, density),
        rule, source_sha256.

    Raises:
        BadInput: an int8 student, one without zeros where no density is given, or one whose sizes cannot be chosen.
    """
    if student.quantization:
        raise BadInput("expected a float student to choose sizes from, found an int8 one: give the float student.pt.")
    network, original = student.network(), sizes_of(student.config)
    found = density_of(network)
    if density is None and found == 1:
        raise BadInput(
            "expected a sparsified student, found one without a single zero among its weights: train it with the "
            "technique sparsify first, or state the density with --density."
        )
    wanted = found if density is None else density
    step = math.lcm(multiple, int(student.config.get("heads", 1)))
    ranked = candidates(original, wanted, multiple=step, width_share=width_share)
    options = with_sizes(student.config, ranked[0].sizes)
    compact = build(student.architecture, options)
    return {
        "architecture": student.architecture,
        "options": options,
        "density": wanted,
        "kept": ranked[0].kept,
        "parameters": {"student": _count(network), "compact": _count(compact)},
        "candidates": [
            {"options": with_sizes(student.config, one.sizes), "kept": one.kept, "distance": one.distance}
            for one in ranked[:LISTED]
        ],
        "layers": layer_densities(network),
        "rule": {"width_share": width_share, "multiple": step},
        "source_sha256": student.file_hash,
    }


@torch.no_grad()
def layer_densities(network: nn.Module) -> list[dict[str, Any]]:
    """For every regularised weight its name, shape, number of values, and the share of them that is not exactly 0."""
    return [
        {
            "name": name,
            "shape": list(weight.shape),
            "weights": weight.numel(),
            "density": int(weight.count_nonzero()) / weight.numel(),
        }
        for name, weight in regularized(network).items()
    ]


def _count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def main(
    student: Path,
    *,
    out: Path,
    density: float | None = None,
    multiple: int = MULTIPLE,
    width_share: float = WIDTH_SHARE,
) -> None:
    """Chooses the sizes of a compact network from the density of a sparsified student.

    Args:
        student: a student.pt that was trained with the technique sparsify.
        out: JSON file to write; its `options` are what a recipe's model.sizes reads.
        density: share of the weights to keep; left out, the share that is not 0 in the student.
        multiple: widths are multiples of it.
        width_share: part of the reduction that the width takes, the depth taking the rest.
    """
    chosen = compact_sizes(load_student(student), density, multiple=multiple, width_share=width_share)
    write_text(out, json.dumps(chosen, indent=1) + "\n")
    table = Table("layer", "shape", "weights", "density")
    for layer in chosen["layers"]:
        shape = "x".join(map(str, layer["shape"]))
        table.add_row(layer["name"], shape, f"{layer['weights']:,}", f"{layer['density']:.4f}")
    Console().print(table)
    sizes, counts = sizes_of(chosen["options"]), chosen["parameters"]
    depth = f"{sizes.blocks} blocks" + (f" of {sizes.layers} layers" if sizes.layers else "")
    print(
        f"density {chosen['density']:.4f}: width {sizes.width}, {depth}; {counts['compact']:,} of "
        f"{counts['student']:,} parameters"
    )
    print(f"wrote {out}")


if __name__ == "__main__":
    command_line(main)
