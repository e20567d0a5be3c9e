"""Emulated ARM64: LiteRT's build for phones' processors, on a core that qemu emulates (`make arm64`).

Its numbers are what such a core computes; its times are an emulator's and say nothing. Never called on-device.
"""

import dataclasses
import os
from pathlib import Path

from compress.errors import BadInput
from runtime.arm64.cores import DEFAULT, core_named
from runtime.arm64.emulator import Machine
from runtime.engines.base import Description
from runtime.engines.remote import PROGRAM, ROOT, Child, RemoteEngine


class Arm64Engine(RemoteEngine):
    """A .tflite in LiteRT with XNNPACK on an emulated ARM64 core. All engines of one core share a process.

    Args:
        path: of the file.
        threads: of the interpreter.
        core: see `runtime.arm64.cores.CORES`; None is cortex-a76.

    Raises:
        BadInput: see `runtime.engines.open_model`; also later, where qemu dies or takes too long.
    """

    def __init__(self, path: str | Path, threads: int = 1, *, core: str | None = None):
        child, machine = preload(core)
        super().__init__(path, threads, f"arm64:{core}" if core else "arm64", machine.label, child)

    def describe(self) -> Description:
        return dataclasses.replace(super().describe(), native=False)


_children: dict[str, tuple[Child, Machine]] = {}


def preload(core: str | None = None) -> tuple[Child, Machine]:
    """The process of a core, started where there is none, and the machine that it emulates.

    Raises:
        Unavailable: `make arm64` was not run.
        BadInput: an unknown core, or LiteRT does not start on it.
    """
    model = core_named(core or DEFAULT)
    child, machine = _children.get(model.name, (None, None))
    if child is None or machine is None or child.owner != os.getpid() or not child.alive:
        machine = Machine(model)
        paths = {"PYTHONPATH": f"{machine.environment['PYTHONPATH']}:{ROOT}"}
        command = machine.command("-m", PROGRAM, "litert")
        child = Child(f"emulated ARM64 ({model.name})", command, cwd=machine.folder, env=machine.environment | paths)
        if child.broken:
            raise BadInput(
                f"expected LiteRT to start on an emulated {model.name}, found that it does not ({child.broken}): "
                "make clean arm64 sets it up anew."
            )
        _children[model.name] = child, machine
    return child, machine
