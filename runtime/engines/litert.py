"""LiteRT (formerly TensorFlow Lite): runs .tflite files, through XNNPACK or through its own kernels alone."""

import importlib
import importlib.metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np

from compress.errors import Unavailable
from runtime.engines.tflite import TfliteEngine

OF_NUMPY_1 = "tflite_runtime"  # all its wheels
PACKAGES = ("ai_edge_litert", "tflite_runtime")  # the second is the first's predecessor, on old device images
Kernels = Literal["litert", "litert-builtin", "litert-reference"]
RESOLVERS: dict[Kernels, str] = {
    "litert": "AUTO",
    "litert-builtin": "BUILTIN_WITHOUT_DEFAULT_DELEGATES",
    "litert-reference": "BUILTIN_REF",
}


class LitertEngine(TfliteEngine):
    """A .tflite in the LiteRT interpreter.

    Args:
        path: of the file.
        threads: of the interpreter.
        kernels: 'litert' has the XNNPACK delegate, 'litert-builtin' LiteRT's optimized kernels alone, 'litert-reference'
            its reference kernels alone, which are plain loops and have no DEPTH_TO_SPACE of int8 values. The wheels of
            tflite-runtime run int8 files without XNNPACK in any case.

    Raises:
        BadInput: see `runtime.engines.open_model`.
    """

    def __init__(self, path: str | Path, threads: int = 1, *, kernels: Kernels = "litert"):
        module, version = _interpreter_module()
        resolver = getattr(module.OpResolverType, RESOLVERS[kernels])

        def interpreter() -> Any:
            return module.Interpreter(model_path=str(path), num_threads=threads, experimental_op_resolver_type=resolver)

        super().__init__(Path(path), threads, kernels, version, interpreter)


def preload() -> None:
    """Imports what opening a file needs, so that memory and time of opening are the model's alone."""
    _interpreter_module()


def _interpreter_module() -> tuple[Any, str]:
    """The module with `Interpreter`, and 'package version'."""
    for package in PACKAGES:
        try:
            module = importlib.import_module(f"{package}.interpreter")
        except ModuleNotFoundError as error:
            if error.name not in (package, f"{package}.interpreter"):
                raise
            continue
        name = package.replace("_", "-")
        version = f"{name} {importlib.metadata.version(name)}"
        if package == OF_NUMPY_1 and int(np.__version__.partition(".")[0]) > 1:
            raise Unavailable(
                f"expected numpy below 2 for {version}, found {np.__version__}: pip install ai-edge-litert, or 'numpy<2'."
            )
        return module, version
    raise Unavailable("expected LiteRT to run a .tflite, found it missing: pip install ai-edge-litert.")
