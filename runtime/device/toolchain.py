"""Processors of devices, and compilers for them: this machine's own, or Debian's cross-compiler, unpacked without root."""

import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from compress.errors import BadInput
from runtime.debian import own_architecture, unpack

ROOT = Path(__file__).resolve().parents[2]
GCC = 12  # of Debian bookworm, whose C library is older than that of most systems


@dataclass(frozen=True)
class Abi:
    """A processor, as everybody calls it.

    Attributes:
        name: Android's.
        machine: the kernel's (`uname -m`), and the wheels'.
        debian: Debian's.
        loader: file name of the C library's loader.
        elf: number in the header of its programs.
    """

    name: str
    machine: str
    debian: str
    loader: str
    elf: int

    @property
    def triple(self) -> str:
        return f"{self.machine}-linux-gnu"


ABIS = {
    abi.name: abi
    for abi in (
        Abi("arm64-v8a", "aarch64", "arm64", "ld-linux-aarch64.so.1", 183),
        Abi("x86_64", "x86_64", "amd64", "ld-linux-x86-64.so.2", 62),
    )
}


def compiler_for(abi: Abi) -> list[str]:
    """The command that compiles for `abi`: installed, or unpacked from Debian."""
    if sys.platform == "linux" and platform.machine() == abi.machine:
        names = ("gcc", "cc")
    else:
        names = (f"{abi.triple}-gcc",)
    for name in names:
        if found := shutil.which(name):
            return [found]
    if len(names) > 1:
        raise BadInput("expected a C compiler, found none: install gcc.")
    return _unpacked_compiler(abi)


def _unpacked_compiler(abi: Abi) -> list[str]:
    """Debian's cross-compiler without the C library of the machine that it runs on, which this machine has."""
    triple, cross = abi.triple.replace("_", "-"), f"{abi.debian}-cross"
    packages = [f"gcc-{GCC}-{triple}", f"cpp-{GCC}-{triple}", f"binutils-{triple}", f"libgcc-{GCC}-dev-{cross}"]
    packages += [f"{name}-{cross}" for name in ("libc6-dev", "libc6", "linux-libc-dev", "libgcc-s1", "libstdc++6")]
    packages += ["libisl23", "libmpc3", "libmpfr6", "libgmp10", "libzstd1", "zlib1g", "libjansson4"]
    root = ROOT / "build" / "toolchain" / abi.triple
    unpack(
        packages, root, architecture=own_architecture(), dependencies=False,
        say=lambda line: print(line, file=sys.stderr),
    )  # fmt: skip
    libraries = next((root / "usr" / "lib").glob("*-linux-gnu/libmpc.so.3")).parent
    return [
        "env", f"LD_LIBRARY_PATH={libraries}", f"PATH={root / 'usr' / 'bin'}:/usr/bin:/bin",
        str(root / "usr" / "bin" / f"{abi.triple}-gcc-{GCC}"), f"--sysroot={root}",
    ]  # fmt: skip


def needed_by(file: Path) -> list[str]:
    """Names of the shared libraries that a program or library asks for."""
    text = run(["readelf", "--dynamic", "--wide", str(file)], f"to read {file.name}", "install binutils")
    return re.findall(r"\(NEEDED\).*\[(.+)\]", text)


def runtime_file(compiler: list[str], name: str) -> Path:
    """A library of the C runtime that the compiler links against."""
    text = run([*compiler, f"-print-file-name={name}"], f"to find {name}", "install the compiler again").strip()
    if not Path(text).is_absolute():
        raise BadInput(f"expected {name} beside the compiler {compiler[0]}, found none: build on a Linux with glibc.")
    return Path(text)


def run(command: list[str], what: str, advice: str) -> str:
    """Standard output of a command. Raises BadInput with its last words."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    except FileNotFoundError as error:
        raise BadInput(f"expected {command[0]} {what}, found it missing: {advice}.") from error
    if done.returncode:
        said = next((line for line in reversed(done.stderr.strip().splitlines()) if line), "nothing").rstrip(".")
        raise BadInput(f"expected {Path(command[0]).name} {what}, found that it fails ({said}): {advice}.")
    return done.stdout
