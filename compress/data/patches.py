"""Random LR/HR patches, reproducible by their number alone.

Patch i is drawn from a generator seeded with (seed, i). So a run can resume at any step, and N processes that share
the numbers between them see exactly what one process would see.
"""

import os
from collections.abc import Iterator
from typing import NotRequired, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from compress.data.cache import Collection
from compress.errors import BadInput


class Batch(TypedDict):
    """lr (N, 3, p, p), hr and, where a teacher labelled the images, label (N, 3, s*p, s*p); float32 RGB in [0, 1]."""

    lr: Tensor
    hr: Tensor
    label: NotRequired[Tensor]


class Patches(Dataset[dict[str, Tensor]]):
    """Random crops with random flips and rotations by 90 degrees.

    Args:
        collection: images of one scale. Images are drawn in proportion to their area.
        lr_patch: side of an LR patch; the HR patch is `scale` times that.
        seed: of the drawing.
        labels: a teacher's outputs for the images, (s*h, s*w, 3) uint8 each, in the collection's order.
    """

    def __init__(self, collection: Collection, lr_patch: int, seed: int, labels: list[NDArray[np.uint8]] | None = None):
        self.collection, self.lr_patch, self.seed, self.labels = collection, lr_patch, seed, labels
        areas = np.array([pair.lr.shape[0] * pair.lr.shape[1] for pair in collection.pairs], dtype=np.float64)
        self.cumulative = np.cumsum(areas / areas.sum())

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        draw = np.random.default_rng((self.seed, number))
        chosen = min(int(np.searchsorted(self.cumulative, draw.random(), side="right")), len(self.cumulative) - 1)
        pair, size, scale = self.collection.pairs[chosen], self.lr_patch, self.collection.scale
        top = int(draw.integers(pair.lr.shape[0] - size + 1))
        left = int(draw.integers(pair.lr.shape[1] - size + 1))
        flip, turns = bool(draw.integers(2)), int(draw.integers(4))

        def cut(image: NDArray[np.uint8], factor: int) -> Tensor:
            y, x, side = top * factor, left * factor, size * factor
            crop = image[y : y + side, x : x + side]
            crop = np.rot90(crop[:, ::-1] if flip else crop, turns)
            return torch.from_numpy(np.ascontiguousarray(crop)).permute(2, 0, 1)

        patch = {"lr": cut(pair.lr, 1), "hr": cut(pair.hr, scale)}
        if self.labels is not None:
            patch["label"] = cut(self.labels[chosen], scale)
        return patch


class StepSampler(Sampler[int]):
    """Numbers of the patches of one process: step by step, its share of every batch.

    Args:
        first_step, last_step: steps [first, last).
        batch: patches per process and step.
        rank, world: this process among all.
    """

    def __init__(self, first_step: int, last_step: int, batch: int, rank: int = 0, world: int = 1):
        self.first_step, self.last_step, self.batch, self.rank, self.world = first_step, last_step, batch, rank, world

    def __iter__(self) -> Iterator[int]:
        for step in range(self.first_step, self.last_step):
            start = (step * self.world + self.rank) * self.batch
            yield from range(start, start + self.batch)

    def __len__(self) -> int:
        return (self.last_step - self.first_step) * self.batch


def patch_loader(patches: Patches, sampler: StepSampler, workers: int | None = None) -> DataLoader[dict[str, Tensor]]:
    """Batches of uint8 patches. `workers` None suits the machine; see `default_workers`."""
    workers = default_workers() if workers is None else workers
    return DataLoader(
        patches,
        batch_size=sampler.batch,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def default_workers() -> int:
    """0 on a small CPU machine, where the training itself wants every core; else one per four cores, at most 8."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    return 0 if cores <= 4 and not torch.cuda.is_available() else max(2, min(8, cores // 4))


def to_batch(patches: dict[str, Tensor]) -> Batch:
    """uint8 patches to float32 in [0, 1], channels last."""
    floats = {name: t.float().div_(255).contiguous(memory_format=torch.channels_last) for name, t in patches.items()}
    return Batch(**floats)


def check_patch_count(collection: Collection, lr_patch: int, batch: int) -> None:
    """Raises BadInput when a batch asks for more patches than there are positions in the data."""
    positions = sum(
        max(0, p.lr.shape[0] - lr_patch + 1) * max(0, p.lr.shape[1] - lr_patch + 1) for p in collection.pairs
    )
    if batch > positions:
        raise BadInput(
            f"expected a batch no larger than the {positions} patches that the images hold, found {batch}: "
            "use a smaller batch or more images."
        )
