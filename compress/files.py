"""Files written whole or not at all, and hashes of files."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.errors import BadInput

LONGEST_NAME = 255  # bytes, of most file systems


@contextlib.contextmanager
def written_atomically(path: str | Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what was written there replaces `path` when the block ends well.

    The data is on disk (fsync) before the rename, so that a kill or a power cut leaves the old file or the new
    one. On an exception the temporary file is removed and `path` stays as it was.

    Raises:
        BadInput: a folder that takes no files, or a path where there is a device, a pipe or a socket, which the rename
            would replace.
    """
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_writable(*paths: str | Path | None) -> None:
    """Raises what writing there would raise, before the work that is to be written; None is no path."""
    for path in paths:
        if path is not None:
            _beside(Path(path)).unlink()


def _beside(path: Path) -> Path:
    """A new, empty file in the folder of `path`, which is made where it is missing."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise BadInput(f"expected a file to write, found a device, pipe or socket at {path}: name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        before, after = around_random(path)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=before, suffix=after)
    except FileNotFoundError as error:  # of folders like /proc
        raise BadInput(f"expected a folder that takes new files, found {path.parent}: give another one.") from error
    os.close(handle)
    return Path(name)


def around_random(path: Path) -> tuple[str, str]:
    """What stands before and behind the eight random letters in the names of unfinished files for `path`.

    A name that would be too long with them is cut: what can be the name of a file can be written.
    """
    after = f".part{path.suffix}"
    room = LONGEST_NAME - len(os.fsencode(f"..{'x' * 8}{after}"))
    return f".{os.fsencode(path.name)[: max(room, 0)].decode(errors='ignore')}.", after


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, atomically."""
    with written_atomically(path) as part:
        part.write_text(text, encoding="utf-8")


def parse_json(text: str) -> Any:
    """The value that a JSON text is. Raises ValueError for anything else, text that is nested too deeply included."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
