"""Real environments for tests of what runs without ours: made once below build/environments, from pinned versions."""

import fcntl
import functools
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.conftest import ROOT

FOLDER = ROOT / "build" / "environments"
UNREACHABLE = ("connection", "timed out", "temporary failure", "proxy")  # in what pip says of a registry
INHERITED = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


def environment(name: str, *requirements: str) -> Path:
    """The Python of an environment with these packages and what they need.

    Skips the test where the packages cannot be fetched because no registry answers.

    Args:
        name: of its folder.
        requirements: pinned, such as "numpy==1.26.4"; the environment is made again when they change.

    Raises:
        RuntimeError: pip fails otherwise; its message.
    """
    made = _made(name, requirements)
    if isinstance(made, str):
        pytest.skip(f"the environment {name} needs packages that cannot be fetched: {made}")
    return made


def pinned(*names: str) -> list[str]:
    """The requirements of `requirements.lock` for these packages."""
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    versions = {line.partition("==")[0].lower(): line for line in lines}
    return [versions[name] for name in names]


def run_in(python: Path, *arguments: str | Path, folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """Runs that Python in the repository, with nothing of the environment that the tests run in."""
    clean = {key: value for key, value in os.environ.items() if key not in INHERITED}
    return subprocess.run(
        [python, *arguments], cwd=folder, env=clean | {"PYTHONNOUSERSITE": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip


@functools.cache
def _made(name: str, requirements: Sequence[str]) -> Path | str:
    """The Python, or why there is none."""
    folder = FOLDER / name
    python, ready = folder / "bin/python", folder / "installed"
    wanted = hashlib.sha256("\n".join([sys.version, *requirements]).encode()).hexdigest()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two runs of the tests make it once
        if ready.is_file() and ready.read_text() == wanted:
            return python
        venv.create(folder, clear=True)
        pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check", "--retries", "1"]
        done = subprocess.run(
            [*pip, "install", "--quiet", "--only-binary=:all:", *requirements],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            if any(sign in done.stderr.lower() for sign in UNREACHABLE):
                return done.stderr.strip().splitlines()[-1]
            raise RuntimeError(f"{name} cannot be installed:\n{done.stderr}")
        ready.write_text(wanted)
    return python
