"""How much faster one file of a format runs than another, on this machine: runs take turns, one thread."""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from export.chatter import silenced
from export.mlpackage import import_coremltools

PAIRS, FEWEST = 60, 9
WARMUP = 2
SECONDS = 10.0  # after which no further pair is begun
LEAST = 0.03  # two loads of the same file differ by as much, for its weights lie at other addresses
SIDE = 64  # LR pixels, where the file does not name a size
NOT_RUN = "not run"
NONE = "none"


def speed_up(dense: Path, sparse: Path) -> str:
    """Such as '1.24x': the median over pairs of runs of the dense file's time over the sparse one's.

    'none' where the 99 % interval of that median holds 1, or where it is within 3 % of 1; 'not run' for an .mlpackage on
    a system without Core ML.
    """
    if dense.suffix == ".mlpackage" and sys.platform != "darwin":
        return NOT_RUN
    with silenced():
        runs = [RUNNERS[path.suffix](path) for path in (dense, sparse)]
    for run in runs * WARMUP:
        run()
    ratios: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(ratios) < FEWEST or (len(ratios) < PAIRS and time.perf_counter() < end):
        first = len(ratios) % 2  # who goes first takes turns too
        seconds = [0.0, 0.0]
        for one in (first, 1 - first):
            seconds[one] = _seconds(runs[one])
        ratios.append(seconds[0] / seconds[1])
    return said(ratios)


def said(ratios: list[float]) -> str:
    """The median of ratios as `speed_up` gives it; its interval by ranks: n / 2 - 1.29 sqrt(n) from either end."""
    ordered, median = sorted(ratios), statistics.median(ratios)
    rank = max(0, int(len(ordered) / 2 - 1.29 * len(ordered) ** 0.5))
    if ordered[rank] <= 1 <= ordered[-1 - rank] or abs(median - 1) < LEAST:
        return NONE
    return f"{median:.2f}x"


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def _pixels(shape: tuple[int, ...], dtype: Any) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, shape)
    return (pixels / 255).astype(dtype) if np.issubdtype(dtype, np.floating) else pixels.astype(dtype)


def _litert(path: Path) -> Callable[[], object]:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    given = interpreter.get_input_details()[0]
    interpreter.set_tensor(given["index"], _pixels(tuple(given["shape"]), given["dtype"]))
    return interpreter.invoke


def _onnxruntime(path: Path) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    batch, channels, *sides = given.shape
    shape = (1 if isinstance(batch, str) else batch, channels, *(SIDE if isinstance(n, str) else n for n in sides))
    lr = _pixels(shape, np.uint8 if given.type == "tensor(uint8)" else np.float32)
    return lambda: session.run(None, {given.name: lr})


def _coreml(path: Path) -> Callable[[], object]:
    from PIL import Image

    model = import_coremltools().models.MLModel(str(path))
    (given,) = model.get_spec().description.input
    picture = given.type.imageType
    lr = {given.name: Image.fromarray(_pixels((picture.height, picture.width, 3), np.uint8))}
    return lambda: model.predict(lr)


RUNNERS: dict[str, Callable[[Path], Callable[[], object]]] = {
    ".tflite": _litert,
    ".onnx": _onnxruntime,
    ".mlpackage": _coreml,
}
