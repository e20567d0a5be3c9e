"""Names of files for tables and pictures."""

from collections.abc import Iterable
from pathlib import Path


def told_apart(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for every path: its last part, and as many folders before it as tell it from the others of that name."""
    different = list(dict.fromkeys(paths))
    return {path: _name(path, [other for other in different if other != path]) for path in different}


def _name(path: Path, others: list[Path]) -> str:
    for count in range(1, len(path.parts)):
        name = path.parts[-count:]
        if all(other.parts[-count:] != name for other in others):
            return "/".join(name)
    return str(path)
