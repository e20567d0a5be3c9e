"""What converters and interpreters print does not reach the user's terminal. Needs no torch."""

import contextlib
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from compress.errors import BadInput


class StepFailed(Exception):
    """A converter failed; the message names the student's step that it failed at and what it said."""


@contextlib.contextmanager
def logged(log: Path, doing: str) -> Iterator[None]:
    """Sends everything written to standard output and error inside the block, by C++ too, to `log`.

    Raises:
        BadInput: the block raised anything else; the log then holds the converter's own message.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    try:
        log.touch()
    except FileNotFoundError as error:  # of folders like /proc
        raise BadInput(f"expected a folder that takes new files, found {log.parent}: give another --out.") from error
    with log.open("a", encoding="utf-8") as file:
        try:
            with _redirected((1, 2), file), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except BadInput:
            raise
        except Exception as error:
            traceback.print_exc(file=file)
            first = (str(error).splitlines() or [""])[0][:200]
            found = str(error) if isinstance(error, StepFailed) else f"{type(error).__name__} ({first})"
            raise BadInput(f"expected the converter to finish {doing}, found {found}: see {log}.") from error


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drops what native code writes to standard error inside the block (LiteRT announces its delegate there)."""
    with open(os.devnull, "w") as nowhere, _redirected((2,), nowhere):
        yield


@contextlib.contextmanager
def _redirected(numbers: tuple[int, ...], file: TextIO) -> Iterator[None]:
    """Points file descriptors at `file`, which native code follows too, and back."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved = [os.dup(number) for number in numbers]
    try:
        for number in numbers:
            os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip(numbers, saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
