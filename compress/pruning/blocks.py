"""Pruning of whole residual blocks: `python -m compress.pruning.blocks student.pt --keep 6 --by loss --out pruned.pt`.

The Stanford poster drops the last 10 of SRGAN's 16 residual blocks and trains anew; its future work asks for blocks
chosen by what they contribute. Here they are chosen, taken out, and what remains keeps its weights: fine-tune it with
a recipe whose model.start is the file written here.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import default_collate

from compress.checkpoint import Student, load_student, save_student
from compress.cli import command_line
from compress.data.cache import collect
from compress.data.images import find_images
from compress.data.patches import Batch, Patches, check_patch_count, to_batch
from compress.data.sources import DEFAULT_SOURCE, skimage_photographs
from compress.errors import BadInput
from compress.files import write_text
from compress.models import build
from compress.pruning.block_importance import WITHOUT_PATCHES, Criterion, block_scores, residual_blocks

PATCHES = 64
LR_PATCH = 48
BATCH = 16

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class JudgingPatches:
    """LR/HR patches in batches, and what identifies them."""

    batches: list[Batch]
    description: dict[str, Any]


def judging_patches(
    folder: str, scale: int, *, count: int = PATCHES, lr_patch: int = LR_PATCH, seed: int = 0
) -> JudgingPatches:
    """Draws patches out of photographs; the same arguments give the same patches.

    Args:
        folder: of HR photographs, or 'skimage'; their LR versions are made by MATLAB's bicubic.
        scale: of the student.
        count: patches.
        lr_patch: side of an LR patch in pixels.
        seed: of the drawing.

    Raises:
        BadInput: no such folder, no usable image, more patches than the images hold, or numbers that are too small.
    """
    if count < 1 or lr_patch < 8 or seed < 0:
        raise BadInput(
            "expected at least 1 patch, of at least 8x8, and a seed of at least 0, found "
            f"{count} of {lr_patch}x{lr_patch} and seed {seed}: use larger numbers."
        )
    paths = skimage_photographs("train") if folder == DEFAULT_SOURCE else find_images(folder)
    collection = collect(paths, scale, lr_patch)
    check_patch_count(collection, lr_patch, count)
    patches = Patches(collection, lr_patch, seed)
    batches = [
        to_batch(default_collate([patches[i] for i in range(start, min(start + BATCH, count))]))
        for start in range(0, count, BATCH)
    ]
    description = {
        "source": folder if folder == DEFAULT_SOURCE else Path(folder).name,
        "manifest_sha256": collection.manifest_hash(),
        "patches": count,
        "lr_patch": lr_patch,
        "seed": seed,
    }
    return JudgingPatches(batches, description)


def prune_blocks(student: Student, keep: int, by: Criterion, patches: JudgingPatches | None = None) -> Student:
    """The student with its `keep` most important residual blocks; of equal ones, the earlier stay.

    Its provenance gets `pruned_blocks`: criterion, scores, indices kept, hash of the source student, patches.

    Args:
        student: float.
        keep: blocks to keep, at least 1 and not all.
        by: the criterion.
        patches: to judge on; None for the criteria 'last' and 'near_zero'.

    Raises:
        BadInput: see `check_prunable`.
    """
    check_prunable(student, keep)
    network = student.network().to("cuda" if torch.cuda.is_available() else "cpu")
    device = next(network.parameters()).device
    given = patches.batches if patches else []
    batches = [Batch(lr=batch["lr"].to(device), hr=batch["hr"].to(device)) for batch in given]
    scores = block_scores(network, batches, by)
    kept = sorted(sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:keep])
    done = {
        "criterion": by,
        "scores": scores,
        "kept": kept,
        "source_sha256": student.file_hash,
        "data": patches.description if patches else None,
    }
    smaller = without_blocks(student, kept)
    return dataclasses.replace(smaller, provenance={**student.provenance, "pruned_blocks": done})


def check_prunable(student: Student, keep: int) -> None:
    """Raises BadInput for an int8 student, one without residual blocks, or a `keep` that keeps none or all."""
    if student.quantization:
        raise BadInput("expected a float student to prune, found an int8 one: prune the float student, then quantize.")
    blocks = len(residual_blocks(student.network()))
    if not 1 <= keep < blocks:
        raise BadInput(
            f"expected to keep at least 1 and fewer than the {blocks} residual blocks that there are, found --keep "
            f"{keep}: choose a number in between."
        )


def without_blocks(student: Student, kept: Sequence[int]) -> Student:
    """The student made of the residual blocks `kept` (ascending indices) and of everything that is no block.

    Weights and masks are carried over unchanged; metrics are dropped, for they were another network's.
    """
    config = {**student.config, "blocks": len(kept)}
    masks = _renumbered(student.sparsity.layers, kept) if student.sparsity else {}
    smaller = dataclasses.replace(
        student,
        config=config,
        weights=_renumbered(student.weights, kept),
        sparsity=dataclasses.replace(student.sparsity, layers=masks) if student.sparsity and masks else None,
        metrics=[],
        file_hash=None,
    )
    build(smaller.architecture, config).load_state_dict(smaller.weights)  # every weight has its place, none is missing
    return smaller


def _renumbered(tensors: Mapping[str, T], kept: Sequence[int]) -> dict[str, T]:
    """Entries of the kept blocks, numbered anew, and all entries of no block; by names such as 'blocks.3.conv1.weight'."""
    place = {str(old): str(new) for new, old in enumerate(kept)}
    result = {}
    for name, value in tensors.items():
        room, _, rest = name.partition(".")
        number, _, inside = rest.partition(".")
        if room != "blocks":
            result[name] = value
        elif number in place:
            result[f"blocks.{place[number]}.{inside}"] = value
    return result


def main(
    student: Path,
    *,
    keep: int,
    out: Path,
    by: Criterion = "loss",
    data: str = DEFAULT_SOURCE,
    patches: int = PATCHES,
    lr_patch: int = LR_PATCH,
    seed: int = 0,
    report: Path | None = None,
) -> None:
    """Takes the least important residual blocks out of a student.

    Args:
        student: a float student.pt with residual blocks (SRResNet, EDSR).
        keep: residual blocks to keep.
        out: the smaller student.pt to write, to be fine-tuned.
        by: how blocks are judged: 'norm' of the branch, 'loss' increase without it, first-order 'taylor' estimate
            of that; or plainly 'last' (the last ones go) or 'near_zero' (those with most weights near 0 go).
        data: folder of photographs to judge on, or 'skimage' for those that scikit-image installs.
        patches: number of patches to judge on.
        lr_patch: side of the LR patches in pixels.
        seed: of the drawing of the patches.
        report: JSON file for criterion, scores and kept blocks.
    """
    given = load_student(student)
    check_prunable(given, keep)
    drawn = None
    if by not in WITHOUT_PATCHES:
        drawn = judging_patches(data, given.scale, count=patches, lr_patch=lr_patch, seed=seed)
    pruned = prune_blocks(given, keep, by, drawn)
    save_student(pruned, out)
    done = pruned.provenance["pruned_blocks"]
    if report:
        write_text(report, json.dumps(done, indent=1) + "\n")
    table = Table("block", by, "")
    for i, score in enumerate(done["scores"]):
        table.add_row(str(i), f"{score:.6g}", "kept" if i in done["kept"] else "removed")
    Console().print(table)
    print(f"wrote {out}: {keep} of {len(done['scores'])} residual blocks, to be fine-tuned")


if __name__ == "__main__":
    command_line(main)
