"""TensorFlow's own interpreter: a second opinion on .tflite files, in a process of its own.

Its LLVM and that of PyTorch's triton end the process they meet in, so TensorFlow is imported by a child, once: all engines
share it.
"""

import importlib.util
import os
import sys
from pathlib import Path

from compress.errors import Unavailable
from runtime.engines.remote import PROGRAM, Child, RemoteEngine


class TensorflowEngine(RemoteEngine):
    """A .tflite in `tf.lite.Interpreter`, with XNNPACK, on the processor.

    Args:
        path: of the file.
        threads: of the interpreter.

    Raises:
        BadInput: see `runtime.engines.open_model`; also later, where TensorFlow's process dies or takes too long.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        child = preload()
        super().__init__(path, threads, "tensorflow", f"tensorflow {child.version}", child)


_child: Child | None = None


def preload() -> Child:
    """TensorFlow's process, started where there is none, so that memory and time of opening are the model's alone.

    Raises:
        Unavailable: TensorFlow is not installed, or its import fails.
        BadInput: its process dies.
    """
    global _child
    if importlib.util.find_spec("tensorflow") is None:
        raise Unavailable(
            "expected TensorFlow to run a .tflite, found it missing: pip install 'pocketsr[tensorflow]', or use litert."
        )
    if _child is None or _child.owner != os.getpid() or not _child.alive:
        child = Child("TensorFlow", [sys.executable, "-m", PROGRAM, "tensorflow"])
        if child.broken:
            raise Unavailable(
                f"expected TensorFlow to run a .tflite, found one that cannot be imported ({child.broken}): "
                "pip install --force-reinstall 'pocketsr[tensorflow]'."
            )
        _child = child
    return _child
