"""The engines that run a file, by name. Each is imported only when a file is opened with it."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from compress.contained import working_on
from compress.errors import BadInput, Unavailable
from runtime.engines.base import Engine

if TYPE_CHECKING:
    from runtime.engines.litert import Kernels

Opener = Callable[[Path, int], Engine]


def _litert(kernels: "Kernels") -> Opener:
    from runtime.engines import litert

    litert.preload()
    return lambda path, threads: litert.LitertEngine(path, threads, kernels=kernels)


def _tensorflow() -> Opener:
    from runtime.engines import tensorflow

    tensorflow.preload()
    return tensorflow.TensorflowEngine


def _onnxruntime() -> Opener:
    from runtime.engines import onnxruntime

    onnxruntime.preload()
    return onnxruntime.OnnxEngine


def _coreml() -> Opener:
    from runtime.engines import coreml

    coreml.preload()
    return coreml.CoremlEngine


def _executorch() -> Opener:
    from runtime.engines import executorch

    executorch.preload()
    return executorch.ExecutorchEngine


def _ncnn() -> Opener:
    from runtime.engines import ncnn

    ncnn.preload()
    return ncnn.NcnnEngine


def _pytorch() -> Opener:
    if importlib.util.find_spec("torch") is None:
        raise Unavailable(
            "expected PyTorch to run a student.pt, found it missing: export the student, or pip install 'pocketsr[compress]'."
        )
    from runtime.engines.pytorch import PytorchEngine

    return PytorchEngine.open


def _adb(serial: str | None) -> Opener:
    from runtime.engines import adb

    adb.preload()
    return lambda path, threads: adb.AdbEngine(path, threads, serial=serial)


def _arm64(core: str | None) -> Opener:
    from runtime.engines import arm64

    arm64.preload(core)
    return lambda path, threads: arm64.Arm64Engine(path, threads, core=core)


ENGINES: dict[str, Callable[[], Opener]] = {
    "litert": lambda: _litert("litert"),
    "litert-builtin": lambda: _litert("litert-builtin"),
    "litert-reference": lambda: _litert("litert-reference"),
    "tensorflow": _tensorflow,
    "onnxruntime": _onnxruntime,
    "coreml": _coreml,
    "executorch": _executorch,
    "ncnn": _ncnn,
    "pytorch": _pytorch,
}
DEVICES: dict[str, Callable[[str | None], Opener]] = {"adb": _adb, "arm64": _arm64}
"""Engines on other machines than this one: NAME, or NAME:WHICH where there are several. They are asked for by name only."""
BY_SUFFIX = {
    ".tflite": "litert",
    ".onnx": "onnxruntime",
    ".mlpackage": "coreml",
    ".pte": "executorch",
    ".param": "ncnn",
    ".pt": "pytorch",
}

ENGINE_HELP = f"{', '.join(ENGINES)}, or {', '.join(f'{name}[:WHICH]' for name in DEVICES)}"
"""Names of engines, for `--help`."""


def open_model(path: str | Path, *, engine: str | None = None, threads: int = 1) -> Engine:
    """Opens a model file.

    Args:
        path: a .tflite, .onnx, .mlpackage, .pte or .param of this project, or a student.pt.
        engine: 'litert' (with its XNNPACK delegate), 'litert-builtin' (without any delegate: slow, a
            second opinion), 'litert-reference' (plain loops: slowest, no int8 files), 'tensorflow' (its own interpreter, in
            a process of its own), 'onnxruntime', 'coreml' (its operators evaluated in PyTorch where there is no Core
            ML), 'executorch', 'ncnn', 'pytorch' (the reference of parity), 'adb' or 'adb:SERIAL' (a .tflite on a phone
            that is connected; close the engine to leave nothing on it), 'arm64' or 'arm64:CORE' (a .tflite on an emulated
            core of a phone, cortex-a76 unless named); default: what the file's suffix says.
        threads: of the engine.

    Raises:
        BadInput: no such file, a kind or engine that is unknown, a file without our metadata, or one that contradicts its
            metadata.
        Unavailable: the engine is not installed, or its device not here; a BadInput, too.
    """
    opener = opener_of(path, engine)
    working_on(path)
    return opener(Path(path), threads)


def opener_of(path: str | Path, engine: str | None = None) -> Opener:
    """What opens that file, with all its libraries imported. Raises BadInput and Unavailable; see `open_model`."""
    engine = engine or BY_SUFFIX.get(Path(path).suffix.lower())
    if engine is None:
        raise BadInput(f"expected a model file ({', '.join(BY_SUFFIX)}), found {path}: name an exported file.")
    name, colon, which = engine.partition(":")
    if name in DEVICES and not (colon and not which):
        return DEVICES[name](which or None)
    if engine not in ENGINES:
        known = ", ".join((*ENGINES, *(f"{one}, {one}:WHICH" for one in DEVICES)))
        raise BadInput(f"expected an engine out of {known}, found {engine!r}: choose one.")
    return ENGINES[engine]()
