"""A deterministic teacher's outputs for the training images, computed once and kept as uint8.

Distillation then costs no teacher forward. An entry is named by teacher, image and scale. Labels are always computed in
float32, whatever the run's precision: in bfloat16 the published BSRN lost 0.01 (x4) and 0.04 dB (x2) against the truth
on 12 photographs, 1 to 2 % of the values moved by two levels or more, and a CPU without matrix units gained at most 1.2
times the speed (RLFN became slower).
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compress.data.cache import Collection, Pair, cache_folder, save_array
from compress.errors import BadInput
from compress.teachers import Teacher

STRIP = 2**22  # output pixels of one pass where an image may be cut: SRGAN's 64 features take 2.7 GiB for them


def missing_bytes(collection: Collection, teacher: Teacher) -> int:
    """Disk space that the labels not yet cached will take."""
    return sum(pair.hr.nbytes for pair in collection.pairs if not _file(teacher, pair, collection.scale).exists())


def label(
    collection: Collection,
    teacher: Teacher,
    *,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.uint8]]:
    """The teacher's output for every image, (scale*h, scale*w, 3) uint8, mapped from the cache; computes what is missing.

    Args:
        device: where to compute; the teacher stays there.
        on_progress: called with (done, total).

    Raises:
        BadInput: an output that is not finite, or an image that is too large for the memory.
    """
    labels = []
    for done, pair in enumerate(collection.pairs, 1):
        file = _file(teacher, pair, collection.scale)
        if not file.exists():
            save_array(file, _run(teacher, pair, collection.scale, torch.device(device)))
        labels.append(np.load(file, mmap_mode="r"))
        if on_progress:
            on_progress(done, len(collection.pairs))
    return labels


def _run(teacher: Teacher, pair: Pair, scale: int, device: torch.device) -> NDArray[np.uint8]:
    try:
        return _compute(teacher, pair, scale, device)
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, (MemoryError, torch.OutOfMemoryError)) and "allocate memory" not in str(error):
            raise
        height, width = pair.lr.shape[:2]
        raise BadInput(
            f"expected memory for the teacher's output for {pair.path} (x{scale} of {width}x{height}), found too little: "
            "leave such large images out, or set data.cache_labels to false."
        ) from error


@torch.no_grad()
def _compute(teacher: Teacher, pair: Pair, scale: int, device: torch.device) -> NDArray[np.uint8]:
    """The image whole; or, where the teacher's reach is known, in strips of rows that overlap by it, which is exact.

    Of known reach are the networks that ship. They may compute at the output's size and then need the most memory. The
    others judge whole images (attention, statistics) or are not known: cutting would change what they say.
    """
    network, reach = teacher.network.to(device), teacher.reach
    lr = torch.tensor(pair.lr, device=device).permute(2, 0, 1)[None]
    height, width = lr.shape[2:]
    label = np.empty((scale * height, scale * width, 3), np.uint8)
    rows = height if reach is None else max(1, 2 * reach, STRIP // (scale**2 * width))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        start, end = max(0, top - (reach or 0)), min(bottom + (reach or 0), height)
        x = (lr[:, :, start:end].float() / 255).contiguous(memory_format=torch.channels_last)
        # float32 even where the caller computes in bfloat16, and not the 10 bits that a GPU's convolutions take for it
        with torch.autocast(device.type, enabled=False), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            sr = network(x)[0, :, scale * (top - start) : scale * (bottom - start)].float()
        if not torch.isfinite(sr).all():
            raise BadInput(
                f"expected finite outputs of the teacher {teacher.description}, found others for {pair.path}: "
                "use another teacher."
            )
        label[scale * top : scale * bottom] = (sr.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    return label


def _file(teacher: Teacher, pair: Pair, scale: int) -> Path:
    return cache_folder() / "labels" / teacher.key / f"{pair.file_hash}_x{scale}.npy"
