"""Native code that crashes on a damaged file takes its process along: commands run it in a child, and say what happened.

Engines are C++ that trusts the files it is given; a flipped bit can end in a segmentation fault. The child is a fork made
before anything was opened, so it costs milliseconds.
"""

import ctypes
import mmap
import os
import signal
import sys
from pathlib import Path

CRASHES = {
    signal.SIGSEGV: "a segmentation fault",
    signal.SIGBUS: "a bus error",
    signal.SIGABRT: "an abort",
    signal.SIGFPE: "an arithmetic error",
    signal.SIGILL: "an illegal instruction",
}
WATCHED = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD}
SI_USER = 0  # the code of a signal that a process sent, not the kernel for a terminal
NOTE_BYTES = 4096
PR_SET_PDEATHSIG = 1

_note: mmap.mmap | None = None


def working_on(path: str | Path) -> None:
    """Notes which file native code is about to open, so that the sentence after a crash can name it."""
    if _note is not None:
        text = os.fsencode(path)[: NOTE_BYTES - 1]
        _note[: len(text) + 1] = text + b"\0"


def fork_contained() -> int | None:
    """Goes on in a child process and returns None there; in the parent, waits and returns the child's exit code.

    A crash of the child is a sentence on standard error and the exit code 2. The child dies with its parent; Ctrl-C reaches
    both, and what is sent to the parent alone is passed on. Elsewhere than on Linux nothing is forked.
    """
    global _note
    if sys.platform != "linux":
        return None
    _note = mmap.mmap(-1, NOTE_BYTES)
    sys.stdout.flush()
    sys.stderr.flush()
    parent = os.getpid()
    # ignored, as some programs leave it, it would keep the child's end from its parent
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(128 + signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return None
    status = _wait(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else _ended_by(signal.Signals(-code), bytes(_note).partition(b"\0")[0])


def _wait(child: int) -> int:
    """The child's status, when it has ended. Signals that somebody sends here go on to it; the terminal's reach it anyway."""
    while True:
        received = signal.sigwaitinfo(WATCHED)
        if received.si_signo == signal.SIGCHLD:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
        elif received.si_signo != signal.SIGINT or received.si_code == SI_USER:
            os.kill(child, received.si_signo)


def _ended_by(number: signal.Signals, noted: bytes) -> int:
    """Says why the child ended; returns the exit code."""
    name = os.fsdecode(noted)
    if number in CRASHES:
        print(
            f"error: expected a file that its engine can run, found that it ends in {CRASHES[number]} "
            f"({number.name}){f' with {name}' if name else ''}: the file is damaged or hostile, export it again.",
            file=sys.stderr,
        )
        return 2
    if number == signal.SIGKILL:
        print(
            f"error: expected enough memory, found the process killed{f' while it ran {name}' if name else ''} (SIGKILL): "
            "use a smaller image, tile, or number of jobs.",
            file=sys.stderr,
        )
        return 2
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)  # whoever sent it learns that it worked
    return 128 + number
