"""Sets up the emulation of ARM64 below build/arm64, without root: `make arm64`."""

import fcntl
import importlib.metadata
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from typing import Any

from compress.cli import command_line
from compress.errors import BadInput
from compress.files import written_atomically
from runtime.arm64.cores import CORES, DEFAULT
from runtime.arm64.emulator import HOME, Machine, Versions, qemu, write_versions
from runtime.debian import own_architecture, unpack
from runtime.engines.remote import how_it_ended

PACKAGES = ["python3.11", "libstdc++6"]
WHEELS = ("ai-edge-litert", "numpy")  # of the versions that run here, so that nothing but the processor differs
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in (28, 27, 17)]
PLUGIN = Path(__file__).with_name("count.c")
IMPORTS = "import ai_edge_litert.interpreter, numpy; print(*__import__('os').uname())"
STAMP = ".wheels.json"
PATIENCE = 300  # seconds


def setup() -> None:
    """Sets up emulated ARM64 cores below build/arm64: qemu 7.2 and a small ARM64 system of Debian's packages, LiteRT's
    wheel for ARM64, and a plugin that counts instructions. Needs Debian or Ubuntu, a network and a C compiler, no root.

    What is there already is kept; after a kill, run it again.
    """
    start = time.monotonic()
    HOME.mkdir(parents=True, exist_ok=True)
    with (HOME / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        set_up(HOME)
    print(f"emulated ARM64 is set up in {HOME} ({time.monotonic() - start:.0f} s)")


def set_up(home: Path) -> None:
    """Does what `setup` does below any folder. Raises BadInput; see there."""
    unpack(["qemu-user"], home / "qemu", architecture=own_architecture())
    system = unpack(PACKAGES, home / "root", architecture="arm64")
    wheels = {name: _installed(name) for name in WHEELS}
    if _stamp(home / "site") != wheels:
        _fetch_wheels(wheels, home / "site")
    _compile(PLUGIN, home / "count.so")
    said = _output([*qemu(home / "qemu"), "--version"], "qemu-aarch64")
    version = re.search(r"version (\S+)", said)
    python = system["python3.11"].partition("-")[0]
    write_versions(home, Versions(version[1] if version else said, python, wheels["numpy"], wheels["ai-edge-litert"]))
    _check(home)


def _installed(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise BadInput(
            f"expected {package}, whose version the emulated system gets, found none: pip install {package}."
        ) from error


def _stamp(site: Path) -> dict[str, str] | None:
    try:
        return json.loads((site / STAMP).read_text())
    except (OSError, ValueError):
        return None


def _fetch_wheels(wheels: dict[str, str], site: Path) -> None:
    """Downloads wheels for ARM64 and unpacks them into a folder, which is there whole or not at all."""
    wanted = [f"{name}=={version}" for name, version in wheels.items()]
    print(f"fetching {' and '.join(wanted)} for ARM64")
    part = site.with_name(".site.part")
    shutil.rmtree(part, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=site.parent, prefix=".wheels.") as folder:
        target = ["--python-version", "3.11", "--implementation", "cp", "--abi", "cp311", "--dest", folder]
        target += [part for platform in PLATFORMS for part in ("--platform", platform)]
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *target, *wanted]
        done = _run(pip)
        if done.returncode:
            said = next((line for line in reversed(done.stderr.splitlines()) if "ERROR" in line), "nothing")
            raise BadInput(
                f"expected pip to fetch {' and '.join(wanted)} for ARM64, found that it cannot ({said}): check the network."
            )
        for wheel in Path(folder).glob("*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(part)
    (part / STAMP).write_text(json.dumps(wheels))
    shutil.rmtree(site, ignore_errors=True)
    part.rename(site)


def _compile(source: Path, library: Path) -> None:
    compiler = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
    if compiler is None:
        raise BadInput(
            "expected a C compiler for the plugin that counts instructions, found none: sudo apt install gcc."
        )
    with written_atomically(library) as part:
        _output([compiler, "-O2", "-shared", "-fPIC", "-o", str(part), str(source)], compiler)


def _check(home: Path) -> None:
    """Imports LiteRT on the oldest and the usual core, which also leaves Python's compiled modules behind."""
    for name in ("cortex-a53", DEFAULT):
        print(f"trying {name}")
        machine = Machine(CORES[name], home)
        done = _run(machine.command("-c", IMPORTS), env=machine.environment, cwd=machine.folder)
        if done.returncode or "aarch64" not in done.stdout:
            (home / "ready.json").unlink()
            raise BadInput(
                f"expected LiteRT to be imported on an emulated {name}, found its process "
                f"{how_it_ended(done.returncode, done.stderr.encode())}: make clean arm64 sets it up anew."
            )


def _output(command: list[str], what: str) -> str:
    done = _run(command)
    if done.returncode:
        raise BadInput(
            f"expected {what} to run, found that it does not ({done.stderr.strip()[:300]}): run make arm64 again."
        )
    return done.stdout


def _run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, **options)
    except subprocess.TimeoutExpired as error:
        raise BadInput(
            f"expected {Path(command[0]).name} to end within {PATIENCE} s, found that it does not: run make arm64 again."
        ) from error


if __name__ == "__main__":
    command_line(setup)
