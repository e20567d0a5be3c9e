"""The patches of a training run: images decoded and, where a teacher labels them, labelled, each once."""

import shutil
import sys

from lightning_fabric import Fabric

from compress import labels
from compress.data.cache import Collection, collect
from compress.data.images import find_images
from compress.data.patches import Patches, check_patch_count
from compress.data.sources import DEFAULT_SOURCE, skimage_photographs
from compress.errors import BadInput
from compress.progress import progress
from compress.recipe import Recipe
from compress.teachers import Teacher

GIGABYTE = 1e9


def prepare_patches(fabric: Fabric, recipe: Recipe, scale: int, teacher: Teacher | None, silent: bool) -> Patches:
    """Decodes the images and has the teacher label them, or finds both in the cache.

    One process of every machine works while the others wait: machines may or may not share the cache.
    """
    data = recipe.data
    paths = skimage_photographs("train") if data.folder == DEFAULT_SOURCE else find_images(data.folder)
    with fabric.rank_zero_first(local=True), progress("images", len(paths), silent=silent) as update:
        collection = collect(paths, scale, data.lr_patch, on_progress=lambda done, total: update(done, ""))
    if not silent:
        for skipped in collection.skipped:
            print(f"skipped {skipped.path}: {skipped.reason}", file=sys.stderr)
    check_patch_count(collection, data.lr_patch, data.batch * fabric.world_size)
    if teacher is None or not data.cache_labels:
        return Patches(collection, data.lr_patch, recipe.seed)
    with (
        fabric.rank_zero_first(local=True),
        progress("teacher's labels", len(collection.pairs), silent=silent) as update,
    ):
        _say_space(collection, teacher, silent)
        made = labels.label(collection, teacher, device=fabric.device, on_progress=lambda done, total: update(done, ""))
    return Patches(collection, data.lr_patch, recipe.seed, made)


def _say_space(collection: Collection, teacher: Teacher, silent: bool) -> None:
    needed = labels.missing_bytes(collection, teacher)
    folder = labels.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed and not silent:
        print(f"the teacher's labels take {needed / GIGABYTE:.2f} GB in {folder}", file=sys.stderr)
    if needed > free:
        raise BadInput(
            f"expected {needed / GIGABYTE:.2f} GB for the teacher's labels in {folder}, found {free / GIGABYTE:.2f} GB free: "
            "free some space, set POCKETSR_CACHE to a larger disk, or set data.cache_labels to false."
        )
