"""Processes that torchrun starts, for the tests of trainings in several of them."""

import socket
import subprocess
import time
from pathlib import Path
from typing import Any, TypeAlias

from tests.compress.conftest import start_training

TORCHRUN = ("-m", "torch.distributed.run")
BATCH_NORM = {
    "architecture": "srresnet",
    "options": {"scale": 2, "channels": 8, "blocks": 1, "head_kernel": 3, "tail_kernel": 3},
}
LIMIT = 600  # seconds, on a machine however busy: what takes longer hangs
Launcher: TypeAlias = "subprocess.Popen[str]"


def launcher_of_two() -> tuple[str, ...]:
    """Of two processes on one machine."""
    return (*TORCHRUN, "--nproc_per_node=2", "--master_addr=127.0.0.1", f"--master_port={_free_port()}")


def launcher_of_a_node() -> tuple[str, ...]:
    """Of the one process on each of two nodes."""
    where = f"--rdzv_endpoint=127.0.0.1:{_free_port()}"
    return (*TORCHRUN, "--nnodes=2", "--nproc_per_node=1", "--rdzv_backend=c10d", where)


def two_nodes(recipe: Path, folder: Path, launcher: tuple[str, ...], **options: Any) -> list[Launcher]:
    first = start_training(recipe, folder / "first", launcher=launcher, **options)
    time.sleep(0.5)  # one is always up before the other
    return [first, start_training(recipe, folder / "second", launcher=launcher, **options)]


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def end(process: Launcher, code: int = 0) -> str:
    """Waits for the process; its standard error."""
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == code, errors
    return errors
