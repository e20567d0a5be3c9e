"""Which results of a folder are finished, made from what and how: a file of JSON lines among them. Needs no torch.

A line is added before a result is begun and after it is finished or given up, so a kill at any moment loses at most the
photographs in work. A file that the journal does not know is somebody else's and never replaced.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from compress.errors import BadInput
from compress.files import parse_json, sha256, write_text

NAME = ".pocketsr-upscale.jsonl"


@dataclass(frozen=True)
class Seen:
    """A file as it was: size and time of change tell at once, the hash where only the time differs (a copied folder)."""

    size: int
    changed: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> "Seen":
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, sha256(path))

    def still(self, path: Path) -> bool:
        """Whether the file is there and the same."""
        try:
            stat = path.stat()
            return stat.st_size == self.size and (stat.st_mtime_ns == self.changed or sha256(path) == self.sha256)
        except OSError:
            return False


@dataclass(frozen=True)
class Entry:
    """One result.

    Attributes:
        out, photo: relative to the folders of results and of photographs.
        made_by: what the result depends on beside the photograph, as a hash.
        read: the photograph; None while the result is only begun.
        written: the result; None while it is only begun.
        dropped: nothing came of it: as if the journal did not know it.
    """

    out: str
    photo: str
    made_by: str
    read: Seen | None = None
    written: Seen | None = None
    dropped: bool = False


class Journal:
    """The journal of a folder of results. Raises OSError where the folder cannot be written."""

    def __init__(self, folder: Path):
        self._folder, self._path = folder, folder / NAME
        known = {entry.out: entry for entry in _read(self._path)}
        self._entries = {out: entry for out, entry in known.items() if not entry.dropped}
        self._before: dict[str, Entry | None] = {}  # of results in work
        write_text(self._path, "".join(_line(entry) for entry in self._entries.values()))

    def is_done(self, out: str, photo: str, source: Path, made_by: str) -> bool:
        """Whether the result is there, finished, unchanged, and made of this photograph in this way."""
        entry = self._entries.get(out)
        if entry is None or entry.read is None or entry.written is None:
            return False
        same = (entry.photo, entry.made_by) == (photo, made_by)
        return same and entry.read.still(source) and entry.written.still(self._folder / out)

    def may_write(self, out: str) -> bool:
        """Whether nothing is there, or something that only this command has written."""
        if not os.path.lexists(self._folder / out):
            return True
        entry = self._entries.get(out)
        return entry is not None and (entry.written is None or entry.written.still(self._folder / out))

    def begin(self, out: str, photo: str, made_by: str) -> None:
        """To be called before a result may appear."""
        self._before[out] = self._entries.get(out)
        self._add(Entry(out, photo, made_by))

    def give_up(self, out: str) -> None:
        """To be called where nothing came of a result that was begun: what is put there by hand later is not ours."""
        before, path = self._before.pop(out), self._folder / out
        if before and before.written and before.written.still(path):
            self._add(before)
        elif not os.path.lexists(path):
            self._add(replace(self._entries.pop(out), dropped=True))

    def finish(self, out: str, photo: str, made_by: str, read: Seen) -> None:
        """To be called when the result lies in its place; `read` is the photograph as it was before it was read."""
        self._add(Entry(out, photo, made_by, read, Seen.of(self._folder / out)))
        del self._before[out]

    def _add(self, entry: Entry) -> None:
        if not entry.dropped:
            self._entries[entry.out] = entry
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(entry))
            file.flush()
            os.fsync(file.fileno())


@contextlib.contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Holds a lock on a folder, which ends with the process. Raises BadInput where another run holds it."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows: two runs into one folder would each clear away what the other has begun
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BadInput(
            f"expected a folder for this run alone, found that another run is writing into {folder}: wait for it to end."
        ) from error
    finally:
        os.close(handle)


def _line(entry: Entry) -> str:
    return json.dumps(asdict(entry)) + "\n"


def _read(path: Path) -> Iterator[Entry]:
    """All entries that are whole; a kill or a power cut may have torn the last one."""
    if not path.is_file():
        return
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError):
            found = parse_json(line)
            seen = {name: Seen(**found.pop(name)) if found[name] else found.pop(name) for name in ("read", "written")}
            entry = Entry(**found, **seen)
            if all(isinstance(text, str) for text in (entry.out, entry.photo, entry.made_by)):
                yield entry
