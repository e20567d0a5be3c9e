"""Real devices for tests: Debian's adbd, the daemon of Android itself, in a network of its own that only these tests reach.

A device sees this machine's files but has its own /data/local/tmp, and may call other programs than this machine's.
The user's adb server, port 5037, is never touched.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from compress.errors import BadInput
from runtime.debian import own_architecture, unpack
from runtime.device.toolchain import ROOT

FOLDER = ROOT / "build" / "adb" / "system"
PORT = 15037  # of adb's server, in the tests' own network
WAIT = 30.0  # seconds; a busy machine is slow
HOLDER = """
import fcntl, os, socket, struct, sys
with socket.socket() as one:
    fcntl.ioctl(one, 0x8914, struct.pack("16sH14s", b"lo", 1, bytes(14)))  # SIOCSIFFLAGS, IFF_UP
print(os.readlink("/proc/self"), flush=True)
sys.stdin.read()
"""
DEVICE = """
set -e
root=$1 storage=$2 size=$3 pid=$4 adbd=$5 path=$6 shell=$7
mount -t tmpfs tmpfs "$root"
for one in /*; do
  if [ -L "$one" ]; then cp -P "$one" "$root/"
  elif [ "$one" = /proc ]; then mkdir "$root/proc"; mount -t proc proc "$root/proc"
  elif [ -d "$one" ] && [ "$one" != /data ]; then mkdir "$root$one"; mount --rbind "$one" "$root$one"
  fi
done
mkdir -p "$root/data/local/tmp"
if [ "$size" ]; then mount -t tmpfs -o "size=$size" tmpfs "$root/data/local/tmp"
else mount --bind "$storage" "$root/data/local/tmp"
fi
[ -z "$shell" ] || mount --bind "$shell" "$(readlink -f "$root/bin/sh")"
echo $$ > "$pid"
exec chroot "$root" /usr/bin/env "PATH=$path" "$adbd"
"""


class Network:
    """A network namespace in which devices and adb's server run; all end with it.

    Raises:
        BadInput: Debian's packages cannot be had, or the kernel gives users no namespaces.
    """

    def __init__(self, folder: Path):
        for program in ("unshare", "nsenter", "chroot"):
            if not shutil.which(program):
                raise BadInput(f"expected {program}, found it missing: install util-linux.")
        unpack(
            ["adb", "adbd", "mksh", "toybox"],
            FOLDER,
            architecture=own_architecture(),
            suite="bookworm-backports",
            say=lambda line: None,
        )
        self.folder, self._tools = folder, FOLDER / "usr" / "lib" / "android-sdk" / "platform-tools"
        libraries = next((FOLDER / "usr" / "lib").glob("*-linux-gnu/android"))
        self._environment = os.environ | {
            "LD_LIBRARY_PATH": f"{libraries}:{libraries.parent}",
            "ANDROID_ADB_SERVER_PORT": str(PORT),
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5553",  # looks for no emulators
            "HOME": str(folder),
            "TMPDIR": str(folder),  # of adb's log
        }
        command = ["unshare", "--map-root-user", "--net", "--mount", "--pid", "--fork", "--kill-child", sys.executable]
        self._holder = subprocess.Popen(
            [*command, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        assert self._holder.stdout
        holder = self._holder.stdout.readline().strip()
        if not holder:
            _, said = self._holder.communicate()
            raise BadInput(f"expected a network namespace, found that the kernel gives none ({said.strip()}).")
        self._enter = ["nsenter", "--target", holder, "--user", "--net", "--preserve-credentials"]
        mounted = subprocess.run(
            self._inside("unshare", "--mount", "mount", "-t", "proc", "proc", "/proc"), capture_output=True, text=True
        )
        if mounted.returncode:
            self._end()
            raise BadInput(
                f"expected to mount a /proc for devices, found that the kernel refuses ({mounted.stderr.strip()})."
            )
        self.bin = folder / "bin"
        self.bin.mkdir()
        exports = "".join(
            f"export {name}='{self._environment[name]}'\n"
            for name in ("LD_LIBRARY_PATH", "ADB_LOCAL_TRANSPORT_MAX_PORT", "HOME")
        )
        _script(
            self.bin / "adb",
            f"{exports}export ANDROID_ADB_SERVER_PORT=${{TEST_ADB_PORT:-{PORT}}}\n"
            f"exec {' '.join(self._enter)} '{self._tools / 'adb'}' \"$@\"\n",
        )
        self._devices: list[Device] = []
        self.start_server()

    def start_server(self, port: int = PORT) -> None:
        """adb's server, which ends with the network."""
        environment = self._environment | {"ANDROID_ADB_SERVER_PORT": str(port)}
        subprocess.run(
            self._inside(self._tools / "adb", "start-server"), env=environment, check=True, capture_output=True
        )

    def device(
        self, port: int, *, size: str = "", programs: dict[str, str] | None = None, android: bool = False
    ) -> "Device":
        """A device that is plugged in.

        Args:
            port: of its own.
            size: of its storage ('2m'); default: as much as there is.
            programs: shell scripts that it finds before this machine's programs, by name.
            android: with Android's shell and toybox instead of this machine's programs.
        """
        device = Device(self, port, size, programs or {}, android)
        self._devices.append(device)
        device.plug()
        return device

    def adb(self, *arguments: str) -> str:
        return subprocess.run([self.bin / "adb", *arguments], capture_output=True, text=True, timeout=WAIT).stdout

    def close(self) -> None:
        for device in self._devices:
            device.ended()
        self._end()

    def _end(self) -> None:
        assert self._holder.stdin
        self._holder.stdin.close()
        self._holder.wait()

    def _inside(self, *command: str | Path) -> list[str | Path]:
        return [*self._enter, "--mount", "--pid", *command]


class Device:
    """One adbd."""

    def __init__(self, network: Network, port: int, size: str, programs: dict[str, str], android: bool):
        self.network, self._port, self._size, self._android = network, port, size, android
        self.serial = f"127.0.0.1:{port}"
        self._folder = network.folder / f"device-{port}"
        self.storage = self._folder / "storage"
        for one in (self.storage, self._folder / "bin", self._folder / "root"):
            one.mkdir(parents=True)
        for name, text in programs.items():
            _script(self._folder / "bin" / name, text)
        if android:
            toybox = FOLDER / "bin" / "toybox"
            for name in subprocess.run([toybox], capture_output=True, text=True, check=True).stdout.split():
                (self._folder / "bin" / name).symlink_to(toybox)
            (self._folder / "bin" / "sh").symlink_to(toybox.with_name("mksh"))
        self._process: subprocess.Popen[bytes] | None = None

    def plug(self) -> None:
        """Starts the daemon and waits until adb is connected with it."""
        tools, pid = self.network._tools, self._folder / "pid"
        own = str(self._folder / "bin")
        command = self.network._inside(
            "unshare", "--mount", "sh", "-c", DEVICE, "sh",
            self._folder / "root", self.storage, self._size, pid, tools / "adbd",
            own if self._android else f"{own}:/usr/sbin:/usr/bin:/sbin:/bin",
            FOLDER / "bin" / "mksh" if self._android else "",
        )  # fmt: skip
        environment = self.network._environment | {"ADBD_PORT": str(self._port)}
        log = (self._folder / "log").open("ab")
        self._process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        log.close()
        until(lambda: "connected to" in self.network.adb("connect", self.serial))
        until(lambda: self.network.adb("-s", self.serial, "get-state").strip() == "device")

    def unplug(self) -> None:
        """The daemon is gone, without a word."""
        subprocess.run(self.network._inside("kill", "-9", (self._folder / "pid").read_text().strip()), check=True)
        self.ended()

    def forget(self) -> None:
        """The daemon is gone, and adb does not list the device any more."""
        if self._process:
            self.unplug()
        self.network.adb("disconnect", self.serial)

    def ended(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def left(self) -> list[str]:
        """What lies in /data/local/tmp."""
        return self.network.adb("-s", self.serial, "shell", "ls /data/local/tmp").split()


def until(true, seconds: float = WAIT) -> None:
    """Waits for something."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@contextlib.contextmanager
def network(folder: Path) -> Iterator[Network]:
    opened = Network(folder)
    try:
        yield opened
    finally:
        opened.close()


def _script(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}")
    path.chmod(0o755)
