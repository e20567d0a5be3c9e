"""Builds the runner for a device: `python -m runtime.device.build --abi arm64-v8a` writes build/device/arm64-v8a.

The folder holds the runner, LiteRT's shared library as the Python wheel of that processor brings it, and the C library with its
loader. So it needs nothing of the system that it runs on, Android or any Linux:

    ./LOADER --library-path . ./pocketsr_run MODEL INPUT OUTPUT --height H --width W

The compiler is this machine's own, or for the other processor Debian's cross-compiler: the one that is installed,
or else unpacked into build/toolchain without root.
"""

import argparse
import contextlib
import dataclasses
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import platform
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from compress.errors import BadInput, run_command
from compress.files import check_writable, sha256
from runtime.device.toolchain import ABIS, ROOT, Abi, compiler_for, needed_by, run, runtime_file

SOURCE = Path(__file__).with_name("runner.c")
FLAGS = ("-std=gnu11", "-O2", "-Wall", "-Wextra")
RUNNER, LIBRARY, STAMP = "pocketsr_run", "libLiteRt.so", "bundle.json"
PACKAGE, MODULE = "ai-edge-litert", "ai_edge_litert"
GLIBC_TAGS = (17, 27, 28, 31, 34)  # of wheels, newest last: pip takes what it finds


@dataclass(frozen=True)
class Bundle:
    """A built folder.

    Attributes:
        folder: holds `files` and the stamp that says so.
        abi: name of the processor.
        litert: version of the library.
        key: hash of what it was built from.
        files: SHA-256 of each, by name.
    """

    folder: Path
    abi: str
    litert: str
    key: str
    files: dict[str, str]

    @property
    def command(self) -> tuple[str, ...]:
        """Starts the runner, from within the folder."""
        return f"./{ABIS[self.abi].loader}", "--library-path", ".", f"./{RUNNER}"


def bundle_of(abi: str, out: str | Path | None = None) -> Bundle:
    """Builds the runner, unless `out` holds the one of this source and this version of LiteRT.

    Args:
        abi: 'arm64-v8a' or 'x86_64'.
        out: a folder; default: build/device/ABI of the repository. What an earlier build wrote there is replaced, whole or
            not at all.

    Raises:
        BadInput: an unknown ABI, no LiteRT, no compiler and no way to get one, a folder of other things.
    """
    if abi not in ABIS:
        raise BadInput(
            f"expected an ABI out of {', '.join(ABIS)}, found {abi!r}: use a device with one of these processors."
        )
    out = Path(out) if out else ROOT / "build" / "device" / abi
    version = _litert_version()
    key = hashlib.sha256("\n".join((sha256(SOURCE), sha256(__file__), version, abi)).encode()).hexdigest()
    check_writable(out)
    with _alone(out):
        kept = _read(out)
        if kept and kept.key == key:
            return kept
        if out.exists() and not (out / STAMP).is_file() and any(out.iterdir()):
            raise BadInput(
                f"expected a new folder, or an earlier build, found other things in {out}: give another --out."
            )
        part = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.", suffix=".part"))
        try:
            _build(ABIS[abi], version, part)
            files = {file.name: sha256(file) for file in sorted(part.iterdir())}
            built = Bundle(out, abi, version, key, files)
            fields = {name: value for name, value in dataclasses.asdict(built).items() if name != "folder"}
            (part / STAMP).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")
            part.chmod(0o755)
            if out.exists():
                shutil.rmtree(out)
            part.rename(out)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    return built


def _build(abi: Abi, version: str, folder: Path) -> None:
    compiler = compiler_for(abi)
    _library(abi, version, folder / LIBRARY)
    command = [
        *compiler, *FLAGS, f'-DLITERT_VERSION="{version}"', "-o", str(folder / RUNNER), str(SOURCE), f"-L{folder}", "-lLiteRt",
        "-Wl,--allow-shlib-undefined",
    ]  # fmt: skip
    run(command, f"to compile {SOURCE.name} for {abi.name}", "install gcc with the headers of the C library")
    unread = [RUNNER, LIBRARY]
    while unread:  # what they need, what that needs...
        for needed in needed_by(folder / unread.pop()):
            if not (folder / needed).exists():
                shutil.copyfile(runtime_file(compiler, needed), folder / needed)
                unread.append(needed)
    for name in (RUNNER, abi.loader):
        (folder / name).chmod(0o755)
        header = (folder / name).read_bytes()[:20]
        if header[:4] != b"\x7fELF" or int.from_bytes(header[18:20], "little") != abi.elf:
            raise BadInput(
                f"expected a compiler for {abi.machine}, found that {compiler[0]} makes programs of another processor: "
                f"install gcc-{abi.triple.replace('_', '-')}."
            )


def _library(abi: Abi, version: str, target: Path) -> None:
    """Copies libLiteRt.so of that processor: out of the installed package, or out of the wheel that pip downloads."""
    spec = importlib.util.find_spec(MODULE)
    if sys.platform == "linux" and platform.machine() == abi.machine and spec and spec.origin:
        installed = Path(spec.origin).with_name(LIBRARY)
        if installed.is_file():
            shutil.copyfile(installed, target)
            return
    with tempfile.TemporaryDirectory() as scratch:
        tags = [f"manylinux_2_{glibc}_{abi.machine}" for glibc in GLIBC_TAGS] + [f"manylinux2014_{abi.machine}"]
        platforms = [word for tag in tags for word in ("--platform", tag)]
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--only-binary=:all:", *platforms, "--dest", scratch, f"{PACKAGE}=={version}"]
        run(command, f"to download {PACKAGE} {version} for {abi.machine}", "check the network")
        with zipfile.ZipFile(next(Path(scratch).glob("*.whl"))) as wheel:
            target.write_bytes(wheel.read(f"{MODULE}/{LIBRARY}"))


def _litert_version() -> str:
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise BadInput(
            f"expected {PACKAGE}, whose version the device gets, found it missing: pip install {PACKAGE}."
        ) from error


def _read(folder: Path) -> Bundle | None:
    """What `bundle_of` wrote; None where it did not, or where a file of it is gone or another."""
    try:
        fields = json.loads((folder / STAMP).read_text(encoding="utf-8"))
        bundle = Bundle(folder=folder, **fields)
        return bundle if all(sha256(folder / name) == digest for name, digest in bundle.files.items()) else None
    except (OSError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """One build of a folder at a time."""
    with (out.parent / f".{out.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m runtime.device.build", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--abi", choices=tuple(ABIS), required=True, help="the device's processor, as Android names it")
    parser.add_argument("--out", type=Path, help="folder to write (default: build/device/ABI of the repository)")
    given = parser.parse_args()
    bundle = bundle_of(given.abi, given.out)
    size = sum((bundle.folder / name).stat().st_size for name in bundle.files)
    print(f"{bundle.folder}: {len(bundle.files)} files, {size / 1e6:.1f} MB, LiteRT {bundle.litert}")


if __name__ == "__main__":
    run_command(main)
