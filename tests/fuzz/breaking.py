"""Readers that break the rules, one each: what a campaign has to notice."""

import os
from pathlib import Path

from compress.errors import BadInput
from tests.fuzz.targets import Target


def _fail(path: Path) -> None:
    raise KeyError("a defect of ours")


def _abort(path: Path) -> None:
    os.abort()


def _never_end(path: Path) -> None:
    while True:
        pass


def _take_memory(path: Path) -> None:
    assert bytearray(b"\1") * 2**28


def _speak_in_riddles(path: Path) -> None:
    raise BadInput("no\nsentence")


def _run_code(path: Path) -> None:
    exec(compile(path.read_text(), "file", "exec"))


def _same(data: bytes, chance: object) -> bytes:
    return data


def _target(read, native: bool = False) -> Target:
    return Target(
        seeds=("sizes.json",), read=read, damage=_same, native=native,
        hostile=lambda canary: {"code.txt": lambda: f"open({str(canary)!r}, 'w')".encode()} if read is _run_code else {},
    )  # fmt: skip


TARGETS = {
    "traceback": _target(_fail),
    "crash": _target(_abort),
    "contained": _target(_abort, native=True),
    "hang": _target(_never_end),
    "memory": _target(_take_memory),
    "sentence": _target(_speak_in_riddles),
    "ran code": _target(_run_code),
}
