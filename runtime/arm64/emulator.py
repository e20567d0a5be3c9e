"""Runs Python on an emulated ARM64 core: qemu, and what lies in the root of the system that it emulates."""

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from compress.errors import Unavailable
from compress.files import write_text
from runtime.arm64.cores import Core

HOME = Path(__file__).resolve().parents[2] / "build" / "arm64"


@dataclass(frozen=True)
class Versions:
    """What was set up, by version."""

    qemu: str
    python: str
    numpy: str
    litert: str


class Machine:
    """An emulated machine of one kind of core, with the system that `make arm64` set up below `home`.

    Attributes:
        label: core and versions, for reports: always 'emulated ARM64'.
        environment: of the process that runs `command`, in full; emulated programs get it, too.
        folder: the root of its file system; a path that is not in there is this machine's own.

    Raises:
        Unavailable: not set up.
    """

    def __init__(self, core: Core, home: Path | None = None):
        self._core, self._home = core, home or HOME
        versions = versions_at(self._home)
        self.label = f"emulated ARM64 ({core.name}), qemu {versions.qemu}, ai-edge-litert {versions.litert}"
        self.environment = {
            "PYTHONPATH": str(self._home / "site"),
            "PYTHONHASHSEED": "0",  # the same instructions in every run
            "LC_ALL": "C.UTF-8",
        }
        self.folder = _file_system(core, os.cpu_count() or 1, self._home)

    def command(self, *arguments: str, counted: Path | None = None) -> list[str]:
        """The command that runs the emulated Python with `arguments`; see count.c for the file of `counted`."""
        plugin = ["-plugin", f"{self._home / 'count.so'},out={counted}"] if counted else []
        python = self._home / "root" / "usr" / "bin" / "python3.11"
        machine = ["-cpu", self._core.name, "-L", str(self.folder), *plugin]
        return [*qemu(self._home / "qemu"), *machine, str(python), "-s", *arguments]


def _file_system(core: Core, count: int, home: Path) -> Path:
    """A folder like home/root with the /proc/cpuinfo of a machine with `count` of that core, made where there is none."""
    folder = home / "cores" / f"{core.name}-{count}"
    if not folder.exists():
        folder.parent.mkdir(exist_ok=True)
        part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part."))
        for entry in (home / "root").iterdir():
            (part / entry.name).symlink_to(Path("..", "..", "root", entry.name))
        # qemu 7.2 shows the host's own otherwise, which LiteRT dies of; and LiteRT wants as many cores as /sys has
        (part / "proc").mkdir()
        (part / "proc" / "cpuinfo").write_text(core.cpuinfo(count))
        with contextlib.suppress(OSError):  # another process made it
            part.rename(folder)
        shutil.rmtree(part, ignore_errors=True)
    return folder


def qemu(folder: Path) -> list[str]:
    """The command of the qemu that was unpacked into a folder: with its own libraries, whatever this machine has."""
    (loader,) = [path for path in folder.glob("lib*/ld-linux*.so.*")]
    libraries = ":".join(str(path) for pattern in ("lib", "usr/lib") for path in folder.glob(f"{pattern}/*-linux-gnu*"))
    return [str(loader), "--library-path", libraries, str(folder / "usr" / "bin" / "qemu-aarch64")]


def versions_at(home: Path) -> Versions:
    """What `make arm64` set up. Raises Unavailable where it did not, or not to the end."""
    try:
        for part in ("qemu", "root", "site", "count.so"):
            (home / part).stat()
        return Versions(**json.loads((home / "ready.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise Unavailable(
            "expected qemu and an ARM64 system to emulate cores with, found them not set up: make arm64."
        ) from error


def write_versions(home: Path, versions: Versions) -> None:
    """The last step of the set-up."""
    write_text(home / "ready.json", json.dumps(asdict(versions), indent=1))
