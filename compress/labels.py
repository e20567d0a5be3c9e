"""A deterministic teacher's outputs for the training images, computed once and kept as uint8.

Distillation then costs no teacher forward. An entry is named by teacher, image and scale.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compress.data.cache import Collection, Pair, cache_folder, save_array
from compress.teachers import Teacher


def missing_bytes(collection: Collection, teacher: Teacher) -> int:
    """Disk space that the labels not yet cached will take."""
    return sum(pair.hr.nbytes for pair in collection.pairs if not _file(teacher, pair, collection.scale).exists())


def label(
    collection: Collection, teacher: Teacher, on_progress: Callable[[int, int], None] | None = None
) -> list[NDArray[np.uint8]]:
    """The teacher's output for every image, (scale*h, scale*w, 3) uint8, mapped from the cache; computes what is missing.

    Args:
        on_progress: called with (done, total).
    """
    labels = []
    for done, pair in enumerate(collection.pairs, 1):
        file = _file(teacher, pair, collection.scale)
        if not file.exists():
            save_array(file, _run(teacher, pair))
        labels.append(np.load(file, mmap_mode="r"))
        if on_progress:
            on_progress(done, len(collection.pairs))
    return labels


@torch.no_grad()
def _run(teacher: Teacher, pair: Pair) -> NDArray[np.uint8]:
    lr = torch.from_numpy(np.array(pair.lr)).permute(2, 0, 1)[None].float() / 255
    sr = teacher.network(lr.contiguous(memory_format=torch.channels_last))[0].clamp(0, 1)
    return (sr * 255).round().byte().permute(1, 2, 0).numpy()


def _file(teacher: Teacher, pair: Pair, scale: int) -> Path:
    return cache_folder() / "labels" / teacher.key / f"{pair.file_hash}_x{scale}.npy"
