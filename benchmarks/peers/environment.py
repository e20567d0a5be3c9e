"""Environments of their own for peers whose pins would break ours: below build/peers, made once from a list of versions."""

import os
import subprocess
import venv
from collections.abc import Sequence
from pathlib import Path

from compress.errors import BadInput
from compress.files import sha256

ROOT = Path("build/peers")


def run_peer(peer: str, arguments: Sequence[str | Path], log: Path, folder: Path | None = None) -> None:
    """Runs `python ARGUMENTS` in the environment of a peer, which is made first where it is missing.

    Args:
        peer: name of a list of versions beside this file, without its '.txt'.
        arguments: of its Python.
        log: takes what the program writes.
        folder: to run in; None is the current one.

    Raises:
        BadInput: the environment cannot be made, or the program fails.
    """
    environment = _environment(peer)
    path = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"  # for the tools that a peer calls by name
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": ""}
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [environment / "bin/python", "-P", *arguments], cwd=folder,
            env=os.environ | {"PATH": path} | quiet, stdin=subprocess.DEVNULL, stdout=file, stderr=file, check=False,
        )  # fmt: skip
    if done.returncode:
        raise BadInput(
            f"expected {peer} to write its file, found exit code {done.returncode}: see {log}, it is left out."
        )


def _environment(peer: str) -> Path:
    pins, folder = Path(__file__).with_name(f"{peer}.txt"), (ROOT / peer).absolute()
    ready = folder / "installed"
    if ready.is_file() and ready.read_text() == sha256(pins):
        return folder
    print(f"installing {peer} into {ROOT / peer}, which takes some minutes", flush=True)
    venv.create(folder, with_pip=True, clear=True)
    pip = [folder / "bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, "-r", pins], capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [
            f"exit code {done.returncode}"
        ]
        raise BadInput(f"expected to install {peer} with {pins.name}, found {lines[-1].strip()[:200]}: it is left out.")
    ready.write_text(sha256(pins))
    return folder
