"""Runs Python on an emulated ARM64 core: qemu, and what lies in the root of the system that it emulates."""

import json
import os
import signal
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from compress.errors import BadInput
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
    """An emulated machine of one kind of core, to be closed (`with`). Its files are those of `make arm64` below `home`.

    Attributes:
        label: core and versions, for reports: always 'emulated ARM64'.
        environment: of the process that runs `command`, in full; emulated programs get it, too.
        folder: of its own, gone when it is closed; let the process work in there, so that a core dump goes with it.

    Raises:
        BadInput: not set up.
    """

    def __init__(self, core: Core, home: Path | None = None):
        home = home or HOME
        versions = versions_at(home)
        self.label = f"emulated ARM64 ({core.name}), qemu {versions.qemu}, ai-edge-litert {versions.litert}"
        self._core, self._home = core, home
        self.environment = {
            "PYTHONPATH": str(home / "site"),
            "PYTHONHASHSEED": "0",  # the same instructions in every run
            "PYTHONNOUSERSITE": "1",
            "LC_ALL": "C.UTF-8",
        }
        self._temporary = tempfile.TemporaryDirectory(prefix="pocketsr-arm64-", ignore_cleanup_errors=True)
        self.folder = Path(self._temporary.name)
        for entry in (home / "root").iterdir():
            (self.folder / entry.name).symlink_to(entry)
        # qemu 7.2 shows the host's own otherwise, which LiteRT dies of, and LiteRT must find as many cores as in /sys
        (self.folder / "proc").mkdir()
        (self.folder / "proc" / "cpuinfo").write_text(core.cpuinfo(os.cpu_count() or 1))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._temporary.cleanup()

    def command(self, *arguments: str, counted: Path | None = None) -> list[str]:
        """The command that runs the emulated Python with `arguments`; see count.c for the file of `counted`."""
        plugin = ["-plugin", f"{self._home / 'count.so'},out={counted}"] if counted else []
        python = self._home / "root" / "usr" / "bin" / "python3.11"
        machine = ["-cpu", self._core.name, "-L", str(self.folder), *plugin]
        return [*qemu(self._home / "qemu"), *machine, str(python), "-s", *arguments]


def qemu(folder: Path) -> list[str]:
    """The command of the qemu that was unpacked into a folder: with its own libraries, whatever this machine has."""
    (loader,) = [path for path in folder.glob("lib*/ld-linux*.so.*")]
    libraries = ":".join(str(path) for pattern in ("lib", "usr/lib") for path in folder.glob(f"{pattern}/*-linux-gnu*"))
    return [str(loader), "--library-path", libraries, str(folder / "usr" / "bin" / "qemu-aarch64")]


def versions_at(home: Path) -> Versions:
    """What `make arm64` set up. Raises BadInput where it did not, or not to the end."""
    try:
        for part in ("qemu", "root", "site", "count.so"):
            (home / part).stat()
        return Versions(**json.loads((home / "ready.json").read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            "expected qemu and an ARM64 system to emulate cores with, found them not set up: make arm64."
        ) from error


def write_versions(home: Path, versions: Versions) -> None:
    """The last step of the set-up."""
    write_text(home / "ready.json", json.dumps(asdict(versions), indent=1))


def how_it_ended(code: int, said: str) -> str:
    """The end of qemu's process in words: its exit code, negative for a signal, and the last line on standard error."""
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    last = (said.strip().splitlines() or ["it said nothing"])[-1].strip()
    return f"qemu's process ended with {how} ({last[:200]})"
