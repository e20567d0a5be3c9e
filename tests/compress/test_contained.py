"""Commands in a child process: exit codes, crashes in one sentence, signals that go on to the child."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="commands are contained on Linux only")
PROGRAM = """
import ctypes, os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a background job of a shell ignores,
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and what nohup started this
from compress.contained import working_on
from compress.errors import BadInput, run_command
def main():
    working_on("models/a.tflite")
    print(os.getpid(), flush=True)
    {work}
run_command(main, contained=True)
"""


def started(work: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", PROGRAM.format(work=work)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def gone(process: int) -> bool:
    """Whether a process ends soon: nobody may be there to collect the exit code of an orphan."""
    deadline = time.monotonic() + 30
    while not (ended := _ended(process)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return ended


def _ended(process: int) -> bool:
    try:
        return "State:\tZ" in Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


@pytest.mark.parametrize(
    ("work", "code", "sentence"),
    [
        ("return 1", 1, ""),
        ("raise BadInput('expected a, found b: do c.')", 2, "error: expected a, found b: do c."),
        ("ctypes.string_at(0)", 2, "found that it ends in a segmentation fault (SIGSEGV) with models/a.tflite"),
        ("os.abort()", 2, "found that it ends in an abort (SIGABRT) with models/a.tflite"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 2, "found the process killed while it ran models/a.tflite (SIGKILL)"),
        ("os.kill(os.getpid(), signal.SIGUSR1)", -signal.SIGUSR1, ""),
    ],
)
def test_how_the_child_ends(work, code, sentence):
    process = started(work)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert sentence in said
    assert len(said.splitlines()) == bool(sentence)


@pytest.mark.parametrize(
    ("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, -signal.SIGHUP)]
)
def test_a_signal_to_the_parent_alone_ends_both(sent, code):
    process = started("time.sleep(600)")  # longer than anything here waits
    child = int(process.stdout.readline())
    assert child != process.pid
    os.kill(process.pid, sent)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code
    assert gone(child)
    assert ("error: interrupted" in said) == (sent == signal.SIGINT)


def test_the_end_is_seen_where_the_surroundings_ignore_the_end_of_children():
    ignoring = f"import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n{PROGRAM.format(work='return 3')}"
    assert subprocess.run([sys.executable, "-c", ignoring], cwd=ROOT, timeout=60, check=False).returncode == 3


def test_the_child_dies_with_its_parent():
    process = started("time.sleep(600)")  # longer than anything here waits
    child = int(process.stdout.readline())
    process.kill()
    process.wait(60)
    assert gone(child)
    process.stdout.close()
    process.stderr.close()
