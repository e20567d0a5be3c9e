"""Times of operators in LiteRT, those within XNNPACK's partitions included.

The Python interpreter does not give them; the C API of the same package does. It comes without headers, and is no promised
interface: the declarations here follow litert/c of the 2.3 sources, and other versions are refused.
"""

import ctypes
import importlib
import importlib.metadata
import re
from collections import Counter
from collections.abc import Iterator
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_bool,
    c_char_p,
    c_int,
    c_int32,
    c_size_t,
    c_uint,
    c_uint32,
    c_uint64,
    c_void_p,
)
from pathlib import Path
from typing import Any

from compress.errors import BadInput, Unavailable
from export.chatter import silenced
from export.metadata import read_tflite
from runtime.bench.profile import Operator, medians
from runtime.engines.base import Image, from_pixels

VERSION = "2.3."
CPU = 1
TYPES = {"float32": 1, "uint8": 3, "int8": 9}
WRITING = 1
OPERATOR, OPERATOR_IN_DELEGATE = 2, 8  # types of events
DELEGATES_OWN = re.compile("TfLite.*Delegate")  # the event of a whole partition, beside those of its operators
PROFILING = b"runtime_options_string", b"enable_profiling = true\n"
WARMUP = 3


class _Layout(Structure):
    _fields_ = (("rank_and_strided", c_uint), ("dimensions", c_int32 * 8), ("strides", c_uint32 * 8))


class _TensorType(Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


class _Event(Structure):
    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("elapsed_us", c_uint64),
        ("memory_before", c_size_t * 3),
        ("memory_after", c_size_t * 3),
        ("index", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int),
    )


_NOTHING_TO_FREE = ctypes.CFUNCTYPE(None, c_void_p)(lambda payload: None)


def profile(path: Path, lr: Image, threads: int, runs: int) -> list[Operator]:
    """Runs a .tflite several times and returns the median of each of its operators.

    Args:
        path: of the file.
        lr: (H, W, 3) uint8.
        threads: of XNNPACK.
        runs: profiled ones, after a warm-up.

    Raises:
        BadInput: a file that LiteRT refuses. Unavailable: a LiteRT without this interface.
    """
    metadata = read_tflite(path)
    if metadata is None:
        raise BadInput(
            f"expected a .tflite that pocketsr exported, found one without its metadata in {path}: export it."
        )
    scale = metadata.scale
    with silenced():
        model = _Model(path, threads)
        model.resize(lr.shape)
        model.write(from_pixels(lr, metadata.input).tobytes(), TYPES[metadata.input.dtype], lr.shape)
        model.make_output(TYPES[metadata.output.dtype], (lr.shape[0] * scale, lr.shape[1] * scale, 3))
        for _ in range(WARMUP):
            model.run()
        model.start()
        for _ in range(runs):
            model.run()
        return medians(_named(model.events()))


def _named(events: Iterator[tuple[str, int, float]]) -> Iterator[tuple[str, str, float]]:
    """Events with names of their own: the place among the operators of one run, as '3'."""
    seen: Counter[tuple[str, int]] = Counter()
    places: dict[tuple[str, int], int] = {}
    for kind, index, milliseconds in events:
        seen[kind, index] += 1
        place = places.setdefault((kind, index), len(places))
        yield str(place), kind, milliseconds


class _Model:
    """A .tflite in the C API, with its profiler."""

    def __init__(self, path: Path, threads: int):
        self._path, self._lib = path, _library()
        environment, options, model = c_void_p(), c_void_p(), c_void_p()
        self._handle, self._profiler, self._input, self._output = c_void_p(), c_void_p(), c_void_p(), c_void_p()
        self._call("LiteRtCreateEnvironment", 0, None, byref(environment))
        self._call("LiteRtCreateOptions", byref(options))
        self._call("LiteRtSetOptionsHardwareAccelerators", options, CPU)
        self._payloads = []
        for name, text in ((b"xnnpack", b"num_threads = %d\n" % threads), PROFILING):
            more, payload = c_void_p(), ctypes.create_string_buffer(text)
            self._payloads.append(payload)
            self._call("LiteRtCreateOpaqueOptions", name, payload, _NOTHING_TO_FREE, byref(more))
            self._call("LiteRtAddOpaqueOptions", options, more)
        self._call("LiteRtCreateModelFromFile", environment, str(path).encode(), byref(model))
        self._call("LiteRtCreateCompiledModel", environment, model, options, byref(self._handle))
        self._call("LiteRtCompiledModelGetProfiler", self._handle, byref(self._profiler))
        self._environment = environment

    def resize(self, shape: tuple[int, ...]) -> None:
        dimensions = (c_int * 4)(1, *shape)
        self._call(
            "LiteRtCompiledModelResizeInputTensorNonStrict",
            self._handle,
            *map(c_size_t, (0, 0)),
            dimensions,
            c_size_t(4),
        )
        layout = _Layout()
        self._call(
            "LiteRtGetCompiledModelOutputTensorLayouts",
            self._handle,
            *map(c_size_t, (0, 1)),
            byref(layout),
            c_bool(True),
        )

    def write(self, content: bytes, element: int, shape: tuple[int, ...]) -> None:
        self._input = self._buffer("LiteRtGetCompiledModelInputBufferRequirements", element, shape)
        address = c_void_p()
        self._call("LiteRtLockTensorBuffer", self._input, byref(address), WRITING)
        ctypes.memmove(address, content, len(content))
        self._call("LiteRtUnlockTensorBuffer", self._input)

    def make_output(self, element: int, shape: tuple[int, ...]) -> None:
        self._output = self._buffer("LiteRtGetCompiledModelOutputBufferRequirements", element, shape)

    def run(self) -> None:
        zero, one = c_size_t(0), c_size_t(1)
        self._call("LiteRtRunCompiledModel", self._handle, zero, one, byref(self._input), one, byref(self._output))

    def start(self) -> None:
        self._call("LiteRtStartProfiler", self._profiler)

    def events(self) -> Iterator[tuple[str, int, float]]:
        """(kind, index in its graph, milliseconds) of all operators that ran; a partition's own time is left out."""
        self._call("LiteRtStopProfiler", self._profiler)
        count = c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, byref(count))
        found = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, found)
        for event in found:
            tag = event.tag.decode(errors="replace")
            if event.kind in (OPERATOR, OPERATOR_IN_DELEGATE) and not DELEGATES_OWN.fullmatch(tag):
                yield tag, event.index, event.elapsed_us / 1000

    def _buffer(self, wanted: str, element: int, shape: tuple[int, ...]) -> c_void_p:
        requirements, buffer, kind = c_void_p(), c_void_p(), _TensorType(element)
        kind.layout.rank_and_strided = 4
        kind.layout.dimensions[:4] = (1, *shape)
        self._call(wanted, self._handle, *map(c_size_t, (0, 0)), byref(requirements))
        create = "LiteRtCreateManagedTensorBufferFromRequirements"
        self._call(create, self._environment, byref(kind), requirements, byref(buffer))
        return buffer

    def _call(self, name: str, *arguments: Any) -> None:
        if status := getattr(self._lib, name)(*arguments):
            raise BadInput(
                f"expected a .tflite that LiteRT can profile, found that {name} fails on {self._path} (status {status}): "
                "run it without --profile."
            )


def _library() -> ctypes.CDLL:
    """Raises Unavailable where LiteRT's library is missing or of another version."""
    try:
        version = importlib.metadata.version("ai-edge-litert")
        package = importlib.import_module("ai_edge_litert")
        if not version.startswith(VERSION):
            raise ImportError(f"ai-edge-litert {version}")
        library = ctypes.CDLL(str(Path(package.__path__[0]) / "libLiteRt.so"))
    except (ImportError, OSError) as error:
        raise Unavailable(
            f"expected ai-edge-litert {VERSION}x, whose C API gives the times of operators, found {error}: install it, or "
            "leave out --profile."
        ) from error
    library.LiteRtGetProfilerEvents.argtypes = (c_void_p, c_int, POINTER(_Event))
    return library
