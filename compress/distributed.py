"""Processes: Lightning Fabric for this one among those that torchrun started, and what to say when one of them dies."""

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy

from compress.errors import BadInput, StoppedRun

Precision = Literal["auto", "bf16", "float32"]
NEW_STORE = "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
PATIENCE = timedelta(hours=12)  # of the processes that wait while the first one validates
PEER_GONE = ("/gloo/transport/", "Gloo connect", "monitoredBarrier")  # gloo has no exception of its own, NCCL does
LOADER_GONE = "DataLoader worker (pid"  # not "Caught ... in DataLoader worker process", which is an error in one


def launch(precision: Precision) -> Fabric:
    """Lightning Fabric for this process: alone, or one of those that torchrun started.

    Args:
        precision: 'bf16' (mixed), 'float32', or 'auto': bf16 where the processor computes it natively.

    Raises:
        BadInput: torchrun is to start dead workers again but could not.
    """
    check_restarts()
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("WORLD_SIZE", "1"))
    native = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    low = precision == "bf16" or (precision == "auto" and native)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="auto",
        devices=local,
        num_nodes=world // local,
        # the run shares the buffers itself, instead of sending the first process's before every forward pass
        strategy=DDPStrategy(timeout=PATIENCE, forward_sync_buffers=False) if world > 1 else "auto",
        precision="bf16-mixed" if low else "32-true",
    )
    fabric.launch()
    return fabric


def leave() -> None:
    """Ends the part of this process in what torchrun started; with gloo the interpreter may otherwise abort on its way out.

    Only where all processes do so: one that another still waits for might wait itself.
    """
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def computes_in_bf16(fabric: Fabric) -> bool:
    """Whether networks that Fabric set up compute in bfloat16."""
    return str(fabric.strategy.precision.precision).startswith("bf16")


def check_restarts() -> None:
    """Raises BadInput where torchrun is to start dead workers again but could not.

    By default, and with a static rendezvous always, it keeps one store for all its attempts, in which new workers find the
    addresses of the dead ones and wait for them (torch 2.13).
    """
    restarts = int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0"))
    if restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        raise BadInput(
            f"expected {NEW_STORE} in torchrun's environment and --rdzv_backend c10d (or --standalone) beside --max-restarts "
            f"{restarts}, found one of them missing: without both, workers that are started again look for the dead ones."
        )


@contextlib.contextmanager
def deaths_in_words(out: Path) -> Iterator[None]:
    """Makes what other processes leave behind when they die a StoppedRun: loaders, and those that torchrun started."""
    again = f"run the same command again to go on from the last save in {out}"
    try:
        yield
    except (RuntimeError, ConnectionResetError, ConnectionRefusedError, EOFError) as error:
        text = str(error)
        if isinstance(error, torch.distributed.DistError) or any(sign in text for sign in PEER_GONE):
            with contextlib.suppress(ValueError):  # outside the main thread
                # torchrun asks this process to end too, which it does now
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise StoppedRun(
                f"another process of the run died or cannot be reached: see what it printed, then {again}; torchrun does so "
                "by itself where --max-restarts says so."
            ) from error
        if not isinstance(error, RuntimeError) or LOADER_GONE in text:
            raise StoppedRun(
                f"a loader process died, as when memory runs out: lower data.workers or data.batch, then {again}."
            ) from error
        raise
