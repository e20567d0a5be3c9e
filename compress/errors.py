"""Bad input as one sentence: what was expected, what was found, what to do."""

import errno
import os
import sys
from collections.abc import Callable

from compress.contained import fork_contained


class BadInput(Exception):
    """The user's input cannot be used. The message is one sentence for a person; commands exit with 2."""


class Unavailable(BadInput):
    """A package or a device that was asked for is not here."""


class StoppedRun(Exception):
    """A run could not go on (diverged training, say). The message says at which step and what to try; exit 1."""


def shown(value: object, most: int = 100) -> str:
    """A value in a sentence: on one line, and not endless."""
    text = " ".join(repr(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def run_command(command: Callable[[], int | None], *, contained: bool = False) -> None:
    """Runs a command's main function and turns its outcome into an exit code.

    `contained` is for programs, not for functions of one: the command runs in a child process, whose crash is a sentence
    and exit code 2; see `compress.contained`.

    Exit codes: what `command` returns (None is 0); 1 for StoppedRun; 2 for BadInput and for a full or
    read-only disk or missing permission; 130 for Ctrl-C. None of these prints a traceback; a defect of ours still does.
    """
    if contained and (ended := fork_contained()) is not None:
        sys.exit(ended)
    try:
        code = command() or 0
        sys.stdout.flush()
    except BadInput as error:
        code = _fail(error, 2)
    except StoppedRun as error:
        code = _fail(error, 1)
    except KeyboardInterrupt:
        code = _fail("interrupted; run the same command again to go on where that is supported.", 130)
    except BrokenPipeError:  # the reader went away (`| head`); nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        code = _fail(f"expected a path that can be read and written, found {error.filename!r}: {error.strerror}.", 2)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            code = _fail("expected room for the output, found a full disk: free some space and run again.", 2)
        elif error.errno == errno.EROFS:
            code = _fail(f"expected a path that can be written, found {error.filename!r}: {error.strerror}.", 2)
        elif error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
            code = _fail(f"expected a path that there can be, found {error.filename!r}: {error.strerror}.", 2)
        else:
            raise
    sys.exit(code)


def _fail(message: object, code: int) -> int:
    sys.stderr.write(f"error: {message}\n")  # at once: several processes that torchrun started may end together
    return code
