"""The training loop that one writes in an afternoon, to measure ours against: `python -m benchmarks.plain_loop ...`.

A Dataset that opens a pair of PNG files per patch, a DataLoader, Adam on the L1 loss, bfloat16 by autocast where asked.
Prints images/s after the first `WARM` steps.
"""

import random
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from compress.cli import command_line
from compress.models import build

WARM = 50


class PngPatches(Dataset[tuple[Tensor, Tensor]]):
    """Random patches of the PNG files in folder/LR and folder/HR, flipped and turned: (3, p, p) and (3, s*p, s*p)."""

    def __init__(self, folder: Path, lr_patch: int, count: int):
        self.names = sorted(path.name for path in (folder / "HR").iterdir())
        self.folder, self.lr_patch, self.count = folder, lr_patch, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        name, size = random.choice(self.names), self.lr_patch
        lr, hr = (np.asarray(Image.open(self.folder / kind / name).convert("RGB")) for kind in ("LR", "HR"))
        scale = hr.shape[0] // lr.shape[0]
        top, left = (random.randrange(side - size + 1) for side in lr.shape[:2])
        flip, turns = random.random() < 0.5, random.randrange(4)

        def cut(image: np.ndarray, factor: int) -> Tensor:
            y, x, side = top * factor, left * factor, size * factor
            crop = image[y : y + side, x : x + side]
            crop = np.rot90(crop[:, ::-1] if flip else crop, turns)
            return torch.from_numpy(crop.copy()).permute(2, 0, 1).float() / 255

        return cut(lr, 1), cut(hr, scale)


def main(
    folder: Path, *, architecture: str, options: dict[str, int], lr_patch: int, batch: int, steps: int, workers: int,
    bf16: bool = False,
) -> None:  # fmt: skip
    """Trains and prints images/s.

    Args:
        folder: with LR/ and HR/.
        architecture: of the network.
        options: of the network.
        lr_patch: side of the LR patches in pixels.
        batch: patches per step.
        steps: in all.
        workers: of the DataLoader.
        bf16: autocast to bfloat16.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = build(architecture, dict(options)).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    patches = PngPatches(folder, lr_patch, batch * steps)
    loader = DataLoader(patches, batch_size=batch, num_workers=workers, pin_memory=device.type == "cuda")
    start, loss = time.perf_counter(), torch.zeros(())
    for step, (lr, hr) in enumerate(loader, 1):
        lr, hr = (x.to(device, non_blocking=True, memory_format=torch.channels_last) for x in (lr, hr))
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            loss = torch.nn.functional.l1_loss(network(lr).float(), hr)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step == WARM:
            loss.item()
            start = time.perf_counter()
    print(f"loss {loss.item():.4f}")  # waits for the device
    print(batch * (steps - WARM) / (time.perf_counter() - start))


if __name__ == "__main__":
    command_line(main)
