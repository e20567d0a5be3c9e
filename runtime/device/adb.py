"""Android's adb: which devices it sees, and commands and files for one of them. Every call ends in time.

What a device answers is only believed if its shell's exit code came back: `adb shell` itself exits with 0 when the device
goes away in the middle of a command.
"""

import re
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.errors import BadInput, Unavailable
from runtime.engines.base import first_line

QUICK, SLOW = 20.0, 600.0  # seconds: for questions, for runs
BYTES_PER_SECOND = 200_000  # slower than any cable
SETTLING = 3.0  # seconds that a device just plugged in gets to say who it is
READY = "device"
PASSING = ("offline", "connecting", "authorizing")
ADVICE = {
    "offline": "unplug it and plug it in again, or run `adb kill-server`",
    "unauthorized": "unlock it, and allow USB debugging from this computer where it asks",
    "authorizing": "unlock it, and allow USB debugging from this computer where it asks",
    "connecting": "wait a moment",
    "no permissions": "let your user use USB devices (on Debian and Ubuntu: apt install android-sdk-platform-tools-common)",
    "recovery": "restart it into Android",
    "sideload": "restart it into Android",
    "rescue": "restart it into Android",
    "bootloader": "restart it into Android",
    "host": "restart it into Android",
    "detached": "run `adb attach`",
    "unknown": "unplug it and plug it in again",
}
LINE = re.compile(rf"(?P<serial>\S.*?)\s+(?P<state>{'|'.join((READY, *ADVICE))})\b(?P<rest>.*)")
INSTALL = "install Android's platform tools (Debian and Ubuntu: apt install adb)"


@dataclass(frozen=True)
class Listed:
    """A line of `adb devices -l`: a serial number, and 'device' if it takes commands or else why not."""

    serial: str
    state: str

    @property
    def complaint(self) -> str:
        """Why it cannot be used, as a sentence."""
        return f"expected the device {self.serial} to be ready, found it {self.state}: {ADVICE[self.state]}."


@dataclass(frozen=True)
class Answer:
    """Of a device's shell: exit code, standard output, standard error."""

    code: int
    out: str
    err: str


class Gone(Unavailable):
    """The device was there, and is not any more."""


def devices() -> list[Listed]:
    """All devices that adb sees, ready or not; starts adb's server where it does not run.

    Raises:
        Unavailable: no adb, or its server cannot start.
    """
    return _settled(lambda listed: False)


def choose(serial: str | None = None) -> str:
    """The serial number of the device to use: that one, or else the only one there is.

    Raises:
        Unavailable: no such device, several to choose from, or one that takes no commands; no adb.
    """
    listed = _settled(lambda found: any(one.state == READY and serial in (None, one.serial) for one in found))
    known = ", ".join(one.serial for one in listed)
    if serial is not None:
        found = next((one for one in listed if one.serial == serial), None)
        if found is None:
            raise Unavailable(
                f"expected a device {serial}, found {known or 'none'}: connect it, and see `adb devices` for its serial number."
            )
    elif not listed:
        raise Unavailable(
            "expected a device, found none: connect one with a cable, switch on its developer options and USB debugging."
        )
    else:
        ready = [one for one in listed if one.state == READY]
        if len(ready) > 1:
            raise Unavailable(f"expected one device, found {known}: choose one as adb:SERIAL.")
        found = (ready or listed)[0]
    if found.state != READY:
        raise Unavailable(found.complaint)
    return found.serial


def parse_devices(text: str) -> list[Listed]:
    """What `adb devices -l` prints."""
    lines = [LINE.match(line) for line in text.splitlines() if not line.startswith("*")]
    return [Listed(line["serial"], line["state"]) for line in lines if line]


class Device:
    """A device by its serial number. All methods raise `Gone` where it is not connected any more."""

    def __init__(self, serial: str):
        self.serial = serial

    def shell(self, script: str, *, doing: str, timeout: float = QUICK) -> Answer:
        """Runs a script in the device's POSIX shell.

        Args:
            script: several lines, if need be.
            doing: for messages: 'while it ...'.
            timeout: seconds.

        Raises:
            BadInput: no end within the timeout.
        """
        mark = f"end-{secrets.token_hex(8)}:"
        done = self._adb(["shell", f"(\n{script}\n)\ncode=$?; echo; echo {mark}$code"], doing, timeout)
        out, found, code = done.stdout.replace("\r\n", "\n").rpartition(f"\n{mark}")
        if not found:
            raise self._gone(doing, done)
        return Answer(int(code), out, done.stderr)

    def push(self, source: Path, target: str) -> None:
        """Copies a file or folder onto the device. Raises BadInput where there is no room for it."""
        files = [source] if source.is_file() else [file for file in source.rglob("*") if file.is_file()]
        size = sum(file.stat().st_size for file in files)
        doing = f"it gets {source.name}"
        done = self._adb(["push", str(source), target], doing, QUICK + size / BYTES_PER_SECOND)
        if done.returncode:
            if "No space left" in done.stdout + done.stderr:
                raise BadInput(
                    f"expected {size / 1e6:.1f} MB of free space for {source.name} on the device {self.serial}, found too "
                    "little: free some."
                )
            raise self._failed(doing, done)

    def pull(self, source: str, target: Path, *, size: int) -> None:
        """Copies a file of about `size` bytes from the device."""
        doing = "its output is fetched"
        done = self._adb(["pull", source, str(target)], doing, QUICK + size / BYTES_PER_SECOND)
        if done.returncode:
            raise self._failed(doing, done)

    def hold(self, script: str) -> "subprocess.Popen[str]":
        """Starts a script whose standard input ends when this process does, however it ends."""
        command = [program(), "-s", self.serial, "shell", script]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, start_new_session=True
        )  # a session of its own: Ctrl-C at the terminal is ours to handle

    def ready(self) -> bool:
        """Whether it takes commands."""
        return any(one.serial == self.serial and one.state == READY for one in _listed())

    def _adb(self, arguments: Sequence[str], doing: str, timeout: float) -> "subprocess.CompletedProcess[str]":
        try:
            return _call(["-s", self.serial, *arguments], timeout)
        except subprocess.TimeoutExpired as error:
            raise BadInput(
                f"expected the device {self.serial} to answer within {timeout:.0f} s while {doing}, found that it does not: "
                "see whether it is awake, and try again."
            ) from error

    def _failed(self, doing: str, done: "subprocess.CompletedProcess[str]") -> BadInput:
        if not self.ready():
            return self._gone(doing, done)
        return BadInput(
            f"expected the device {self.serial} to work while {doing}, found that adb fails ({_said(done)}): try again."
        )

    def _gone(self, doing: str, done: "subprocess.CompletedProcess[str]") -> Gone:
        return Gone(
            f"expected the device {self.serial} to stay connected while {doing}, found it gone ({_said(done)}): plug it in "
            "again, and run again."
        )


def _settled(enough: Callable[[list[Listed]], bool]) -> list[Listed]:
    """What adb lists, after some time for those that were just plugged in, unless there is enough already."""
    listed = _listed()
    end = time.monotonic() + SETTLING
    while not enough(listed) and any(one.state in PASSING for one in listed) and time.monotonic() < end:
        time.sleep(0.2)
        listed = _listed()
    return listed


def _listed() -> list[Listed]:
    try:
        done = _call(["devices", "-l"], QUICK)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(
            f"expected adb's server to answer within {QUICK:.0f} s, found that it does not: run `adb kill-server`."
        ) from error
    if done.returncode:
        raise Unavailable(
            f"expected adb's server to run, found that it does not start ({_said(done)}): run `adb kill-server`, or choose "
            "another port with ANDROID_ADB_SERVER_PORT."
        )
    return parse_devices(done.stdout)


def program() -> str:
    """Where adb is. Raises Unavailable where it is not installed."""
    found = shutil.which("adb")
    if found is None:
        raise Unavailable(f"expected adb, which talks to phones, found it missing: {INSTALL}.")
    return found


def _call(arguments: Sequence[str], timeout: float) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(
            [program(), *arguments], capture_output=True, encoding="utf-8", errors="replace", timeout=timeout, check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except OSError as error:
        raise Unavailable(f"expected adb to start, found that it does not ({first_line(error)}): {INSTALL}.") from error


def _said(done: "subprocess.CompletedProcess[str]") -> str:
    """adb's last word, after its progress."""
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    words = [line for line in lines if not re.match(r"\*|\[ *\d+%\]", line)] or ["no word of why"]
    return re.sub(r"^(adb: )?(error: )?", "", words[-1]).rstrip(".")
