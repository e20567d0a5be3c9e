"""A private folder on a device, with the runner and models in it, which is gone when this process is.

A shell on the device waits for the end of its standard input and then removes the folder. That end comes
when the folder is closed, when this process ends or is killed, and when the device is unplugged: so nothing stays behind. What
adb was copying just then may still arrive, and makes the folder again; so the shell stays for a while and removes that, too. Only
a device that is switched off meanwhile keeps the folder; the next session there finds that its shell is gone, and removes it.
"""

import contextlib
import hashlib
import json
import secrets
import selectors
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compress.errors import BadInput
from compress.files import sha256
from runtime.device.adb import QUICK, SLOW, Device, Gone, choose
from runtime.device.build import RUNNER, bundle_of
from runtime.device.facts import read_facts
from runtime.device.toolchain import ABIS

PREFIX = "pocketsr-"
RUNNING = "running"  # holds the number of the runner's process
ALL_HERE, GONE = "all here", "gone"  # said to the folder's shell: adb copies nothing any more; and by it
LINGERING = 120  # seconds; adb needs fewer for the runner over the slowest cable
BAD_INPUT = 2  # the runner's exit code
NOT_RUN = (126, 127)  # the shell's
SIGNAL = 128  # and more: ended by that signal
SWEEP = """
for folder in {base}/{prefix}[0-9]*-*; do
  [ -d "$folder" ] || continue
  name=${{folder##*/{prefix}}}
  case "$(cat "/proc/${{name%%-*}}/cmdline" 2>/dev/null)" in
    *"${{name#*-}}"*) ;;
    *) rm -rf "$folder" ;;
  esac
done
"""
KEEP = """
trap '' HUP INT TERM PIPE
folder={base}/{prefix}$$-{token}
mkdir -m 700 "$folder" || exit 1
echo "$folder"
read -r word
[ -f "$folder/{running}" ] && kill -9 "$(cat "$folder/{running}")"
rm -rf "$folder" || {{ sleep 1; rm -rf "$folder"; }}
echo {gone}
[ "$word" ] && exit
second=0
while [ $second -lt {lingering} ]; do
  sleep 1
  rm -rf "$folder"
  second=$((second + 1))
done
"""


@dataclass(frozen=True)
class Report:
    """What one call of the runner cost, measured on the device.

    Attributes:
        open_ms: loading the file, milliseconds.
        prepare_ms: resizing, allocating and writing the input.
        run_ms: the network alone, of every run after the warm-up.
        read_ms: reading the output back.
        peak_bytes: rise of the peak memory over opening, preparing and running; None where the device does not tell.
        version: of LiteRT.
    """

    open_ms: float
    prepare_ms: float
    run_ms: tuple[float, ...]
    read_ms: float
    peak_bytes: int | None
    version: str


class Session:
    """The folder on one device; shared by all who use that device in this process, see `session_on`.

    Args:
        serial: of a device that is ready.

    Raises:
        BadInput: a processor that there is no runner for, nowhere to write, no room, a device that does not run programs.
    """

    def __init__(self, serial: str):
        self.users = 0
        self._device = Device(serial)
        self.facts = read_facts(self._device)
        self.bundle = bundle_of(self.facts.abi)
        self._models: set[str] = set()
        self._copying = False
        names = {"base": self.facts.folder, "prefix": PREFIX}
        self._device.shell(SWEEP.format(**names), doing="old folders are removed")
        script = KEEP.format(**names, token=secrets.token_hex(8), running=RUNNING, gone=GONE, lingering=LINGERING)
        self._keeper = self._device.hold(script)
        try:
            self.folder = self._made_folder()
            self._push_runner()
        except BaseException:
            self.close()
            raise

    @property
    def alive(self) -> bool:
        """Whether the folder is still there: its shell waits."""
        return self._keeper.poll() is None

    def model(self, path: Path) -> str:
        """Puts a .tflite onto the device, unless it is there, and gives its name there."""
        self._check_alive()
        digest = sha256(path)
        name = f"{digest[:16]}.tflite"
        if name not in self._models:
            self._push(path, name)
            self._check_hashes(self.folder, {name: digest})
            self._models.add(name)
        return name

    def run(
        self,
        model: str,
        image: bytes,
        *,
        height: int,
        width: int,
        output_bytes: int,
        threads: int,
        runs: int,
        warmup: int,
    ) -> tuple[bytes, Report]:
        """Runs one image through a model that `model` put there.

        Args:
            image: the bytes of the file's input tensor.
            height, width: of the LR image.
            output_bytes: that the output tensor must have.
            threads, runs, warmup: of the runner; `runs` are measured, after `warmup` that are not.

        Returns:
            The bytes of the output tensor, and what it cost.

        Raises:
            BadInput: the runner refuses the file or the size, is killed, or takes longer than ten minutes; no room.
            Gone: the device is not there any more.
        """
        self._check_alive()
        doing = f"it runs an image of {width}x{height} pixels"
        command = shlex.join([
            *self.bundle.command, f"../{model}", "../input", "../output", "--height", str(height), "--width", str(width),
            "--threads", str(threads), "--runs", str(runs), "--warmup", str(warmup),
        ])  # fmt: skip
        # the runner's number, so that the folder's end can stop a runner that nobody waits for any more
        note = f"sh -c {shlex.quote(f'echo $$ > ../{RUNNING}; exec {command}')}"
        script = f"cd {self.folder}/{self.facts.abi} && {note}\ncode=$?\nrm -f ../{RUNNING} ../input\nexit $code"
        with tempfile.TemporaryDirectory() as scratch:
            given, got = Path(scratch) / "input", Path(scratch) / "output"
            given.write_bytes(image)
            self._push(given, "input")
            answer = self._device.shell(script, doing=doing, timeout=SLOW)
            if answer.code:
                raise BadInput(self._refusal(answer.code, answer.err, doing))
            line = next((line for line in answer.out.splitlines() if line.startswith("{")), "{}")
            self._device.pull(f"{self.folder}/output", got, size=output_bytes)
            output = got.read_bytes()
        self._check_hashes(self.folder, {"output": hashlib.sha256(output).hexdigest()}, "rm -f output")
        if len(output) != output_bytes:
            raise BadInput(
                f"expected an output of {output_bytes} bytes, found {len(output)} from the device {self.facts.serial}: export "
                "the file again."
            )
        fields = json.loads(line)
        return output, Report(**{**fields, "run_ms": tuple(fields["run_ms"])})

    def close(self) -> None:
        """Removes the folder, and waits until that is done or the device is gone."""
        keeper = self._keeper
        if keeper.stdin and not keeper.stdin.closed:
            with contextlib.suppress(OSError):
                if not self._copying:
                    keeper.stdin.write(f"{ALL_HERE}\n")
                keeper.stdin.close()
            if self._copying and self._next_line() == GONE:
                keeper.kill()  # adb's end of it; the shell on the device stays
        try:
            keeper.wait(QUICK)
        except subprocess.TimeoutExpired:
            keeper.kill()
            keeper.wait()
        if keeper.stdout:
            keeper.stdout.close()

    def _check_alive(self) -> None:
        if not self.alive:
            raise Gone(
                f"expected the device {self.facts.serial} to stay connected, found that it was unplugged or adb's server ended "
                "since the file was opened: open it again."
            )

    def _push(self, source: Path, name: str) -> None:
        """Copies a file or folder into the folder."""
        self._copying = True  # until it went well: what was interrupted may still be on its way
        self._device.push(source, f"{self.folder}/{name}")
        self._copying = False

    def _next_line(self) -> str:
        """What the folder's shell says next; '' where it is gone, or says nothing in time."""
        stream = self._keeper.stdout
        assert stream
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            return stream.readline().strip() if selector.select(QUICK) else ""

    def _made_folder(self) -> str:
        """The folder's name, which its shell prints once it exists."""
        line = self._next_line()
        if not line:
            raise BadInput(
                f"expected the device {self.facts.serial} to make a folder, found that it does not: free some space on it, and "
                "see whether it is still connected."
            )
        return line

    def _push_runner(self) -> None:
        folder = f"{self.folder}/{self.facts.abi}"
        self._push(self.bundle.folder, self.facts.abi)
        self._check_hashes(folder, self.bundle.files)
        programs = f"{RUNNER} {ABIS[self.facts.abi].loader}"
        start = (
            f"cd {folder} && chmod 700 {programs} && {shlex.join(self.bundle.command)}"  # without arguments: it refuses
        )
        answer = self._device.shell(start, doing="the runner is tried")
        if answer.code != BAD_INPUT or "expected MODEL" not in answer.err:
            raise BadInput(
                f"expected the device {self.facts.serial} to run programs in {self.folder}, found that it does not "
                f"({_last(answer.err)}): use another device."
            )

    def _check_hashes(self, folder: str, wanted: dict[str, str], after: str = "true") -> None:
        """Holds files on the device against their SHA-256 here."""
        script = f"cd {folder} && sha256sum {shlex.join(wanted)} && {after}"
        answer = self._device.shell(script, doing="its files are checked")
        found = {
            name: digest for digest, name in (line.split()[:2] for line in answer.out.splitlines() if line.strip())
        }
        for name, digest in wanted.items():
            if found.get(name) != digest:
                raise BadInput(
                    f"expected {name} on the device {self.facts.serial} as it is here, found other bytes "
                    f"({_last(answer.err)}): try again, with another cable if it stays so."
                )

    def _refusal(self, code: int, said: str, doing: str) -> str:
        """Why the runner ended with that exit code."""
        serial = self.facts.serial
        if code == BAD_INPUT and (own := next((line for line in said.splitlines() if line.startswith("error: ")), "")):
            if "No space left" in own:
                return f"expected room for the output on the device {serial}, found too little: free some space there."
            return f"{own.removeprefix('error: ').rstrip('.')} (on the device {serial})."
        if code > SIGNAL:
            return (
                f"expected the device {serial} to finish while {doing}, found the runner killed by signal {code - SIGNAL} "
                "(out of memory, most likely): use a smaller image."
            )
        what = "cannot be started" if code in NOT_RUN else f"ends with exit code {code}"
        return f"expected the runner to work on the device {serial}, found that it {what} ({_last(said)}): try again."


_SESSIONS: dict[str, Session] = {}


def session_on(serial: str | None) -> Session:
    """A session on that device, or on the only one; give it back with `release`.

    Raises:
        BadInput: see `choose` and `Session`.
    """
    serial = choose(serial)
    session = _SESSIONS.get(serial)
    if session is None or not session.alive:
        session = _SESSIONS[serial] = Session(serial)
    session.users += 1
    return session


def release(session: Session) -> None:
    """Closes the session when its last user has given it back."""
    session.users -= 1
    if session.users == 0:
        if _SESSIONS.get(session.facts.serial) is session:
            del _SESSIONS[session.facts.serial]
        session.close()


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else "no word of why"
