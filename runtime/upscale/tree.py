"""The photographs below a folder, and a name for the result of each. Needs no torch."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from compress.files import around_random
from runtime.upscale.photograph import SUFFIXES

RANDOM = "[a-z0-9_]{8}"
PART = re.compile(rf"\..+\.{RANDOM}\.part\.\w+", re.DOTALL)  # as `compress.files.written_atomically` names them


@dataclass
class Tree:
    """What lies below a folder.

    Attributes:
        photographs: paths relative to the folder, sorted.
        others, hidden, links: how many other files, hidden files and folders, and links to folders were passed over.
        closed: folders, and files in them, that could not be looked at, each as a sentence.
    """

    photographs: list[Path] = field(default_factory=list)
    others: int = 0
    hidden: int = 0
    links: int = 0
    closed: list[str] = field(default_factory=list)

    def passed_over(self) -> str:
        """How many of what, in words; empty where nothing was."""
        counts = ((self.others, "other files"), (self.hidden, "hidden"), (self.links, "links to folders"))
        return ", ".join(f"{count} {what}" for count, what in counts if count)


def photographs_below(folder: Path, without: Path | None) -> Tree:
    """Lists the files whose names promise a picture.

    Links to files are followed, links to folders are not: so nothing is found twice, and no walk is endless.

    Args:
        folder: to look into, all the way down.
        without: a folder left out, that of the results, where it may lie inside.
    """
    tree = Tree()

    def closed(error: OSError) -> None:
        tree.closed.append(f"expected a path that can be read, found {error.filename}: {error.strerror}.")

    left_out = os.path.realpath(without) if without else None
    for root, folders, files in os.walk(folder, onerror=closed):
        here = Path(root)
        folders[:] = [name for name in sorted(folders) if _goes_into(tree, here / name, left_out)]
        for name in sorted(files):
            try:
                _take(tree, folder, here / name)
            except OSError as error:  # a folder that may be listed, but not entered; a path that is too long
                closed(error)
    tree.photographs.sort()
    return tree


def _goes_into(tree: Tree, below: Path, left_out: str | None) -> bool:
    """Whether the walk does; counts a folder that is passed over."""
    if below.name.startswith("."):
        tree.hidden += 1
        return False
    if os.path.islink(below):
        tree.links += 1
        return False
    return os.path.realpath(below) != left_out


def _take(tree: Tree, folder: Path, file: Path) -> None:
    if file.name.startswith("."):
        tree.hidden += 1
    elif file.suffix.lower() in SUFFIXES and (file.is_file() or not file.exists()):  # a broken link is worth a word
        tree.photographs.append(file.relative_to(folder))
    else:
        tree.others += 1


def result_names(photographs: Sequence[Path], suffix_of: Callable[[Path], str]) -> dict[Path, Path]:
    """A path for each result, no two of them the same, also where case or Unicode form make no difference.

    a.jpg becomes a.png where results are PNG. Where several would have one name, each keeps its own suffix before the new
    one (a.jpg.png, a.tif.png), and where that is taken, a number follows (a.jpg_2.png).

    Args:
        photographs: relative paths.
        suffix_of: the suffix of the result of a photograph.
    """
    plain = {photo: photo.with_suffix(suffix_of(photo)) for photo in photographs}
    wanted = Counter(_folded(path) for path in plain.values())
    names = {photo: path for photo, path in plain.items() if wanted[_folded(path)] == 1}
    taken = {_folded(path) for path in names.values()}
    for photo in sorted(set(photographs) - set(names)):
        names[photo] = next(path for path in _others(photo, suffix_of(photo)) if _folded(path) not in taken)
        taken.add(_folded(names[photo]))
    return names


def _others(photo: Path, suffix: str) -> Iterator[Path]:
    yield photo.with_name(photo.name + suffix)
    number = 2
    while True:
        yield photo.with_name(f"{photo.name}_{number}{suffix}")
        number += 1


def _folded(path: Path) -> str:
    """The same for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(path)).casefold())


def sweep(folder: Path) -> None:
    """Removes the unfinished files that a killed run left below a folder."""
    for root, _, files in os.walk(folder):
        for name in files:
            if PART.fullmatch(name):
                (Path(root) / name).unlink(missing_ok=True)


def sweep_one(out: Path) -> None:
    """Removes the unfinished files that a killed run left of one result."""
    before, after = map(re.escape, around_random(out))
    if out.parent.is_dir():
        for entry in os.scandir(out.parent):
            if re.fullmatch(f"{before}{RANDOM}{after}", entry.name):
                Path(entry.path).unlink(missing_ok=True)
