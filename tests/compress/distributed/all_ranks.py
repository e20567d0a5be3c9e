"""`torchrun tests/compress/distributed/all_ranks.py RECIPE...`: trains several recipes, one after another.

Every process leaves what it holds at the end of a training in OUT/rank<number>.pt: every network, and the moving average.
"""

import os
import sys
from pathlib import Path

import torch

from compress.distributed import leave
from compress.recipe import read_recipe
from compress.run import Run
from compress.train import train

to_the_end = Run.to_the_end


def to_the_end_and_tell(run: Run) -> None:
    to_the_end(run)
    networks = {"student": run.network, "average": run.average, "discriminator": run.method.discriminator}
    tensors = {
        f"{name}.{key}": value
        for name, network in networks.items()
        if network
        for key, value in network.state_dict().items()
    }
    torch.save(tensors, run.recipe.out / f"rank{os.environ.get('RANK', '0')}.pt")


if __name__ == "__main__":
    Run.to_the_end = to_the_end_and_tell
    for recipe in sys.argv[1:]:
        train(read_recipe(Path(recipe)))
    leave()
