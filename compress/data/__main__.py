"""`python -m compress.data`: what data there is, and downloads."""

from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column, Table

from compress.cli import command_line
from compress.data.benchmarks import BUILT_IN, data_root, find_benchmarks, hr_images
from compress.data.catalog import CATALOG, TRAIN_ROOT, DataSet, known_set, locate
from compress.data.download import check_room, download, missing_bytes
from compress.errors import BadInput


def main(
    command: Literal["list", "download"] = "list",
    name: str | None = None,
    *,
    to: Path = TRAIN_ROOT,
    data: Path | None = None,
) -> None:
    """Lists the data sets that are known or found here, or downloads one.

    Args:
        command: 'list' (default), or 'download' followed by a name.
        name: the set to download, for example DIV2K.
        to: folder of training sets; a download makes <to>/<name> in it.
        data: folder of benchmark sets; default: the environment's POCKETSR_DATA, else data/eval.
    """
    if command == "list":
        console = Console()
        console.width = max(console.width, 120)  # paths stay readable in a pipe
        console.print(_table(to, data))
        return
    if name is None:
        raise BadInput("expected the name of a data set to download, found nothing: for example `download DIV2K`.")
    _download(known_set(name), to)


def _download(dataset: DataSet, root: Path) -> None:
    if not dataset.archives:
        by_hand = f"put its images into {data_root() / dataset.name / 'HR'} yourself"
        raise BadInput(
            f"expected a data set that can be downloaded ({', '.join(one.name for one in CATALOG if one.archives)}), "
            f"found {dataset.name}: {'pip install scikit-image brings it' if dataset.name == BUILT_IN else by_hand}."
        )
    console = Console(stderr=True)
    folder = root / dataset.name
    needed = missing_bytes(dataset.archives, folder)
    free = check_room(needed, folder)
    room = f"needs {needed / 1e9:.1f} GB in {folder}; {free / 1e9:.1f} GB free"
    console.print(f"{dataset.name} (licence: {dataset.licence}) {room}.")
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        for archive in dataset.archives:
            task = progress.add_task(archive.folder, total=archive.size)
            images = download(archive, folder, lambda done, _, task=task: progress.update(task, completed=done))
            progress.update(task, completed=archive.size)
            print(images)


def _table(train_root: Path, eval_root: Path | None) -> Table:
    table = Table("name", "kind", "images", "size", "LR scales", "licence", Column("where", overflow="fold"))
    for one in CATALOG:
        where = locate(one, train_root=train_root, eval_root=eval_root)
        get = f"not here: download {one.name}" if one.archives else "not here"
        scales = " ".join(f"x{scale}" for scale in one.scales) or "made here"
        table.add_row(one.name, one.kind, str(one.images), one.size, scales, one.licence, str(where or get))
    known = {one.name.lower() for one in CATALOG}
    for name in find_benchmarks(eval_root):
        if name.lower() not in known:
            folder = data_root(eval_root) / name
            table.add_row(name, "eval", str(len(hr_images(folder))), "", "", "unknown", str(folder))
    return table


if __name__ == "__main__":
    command_line(main)
