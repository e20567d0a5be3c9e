"""What 16-bit and float layers cost: a file's latency beside that of the same layers in int8, in one process."""

import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from compress.checkpoint import Student
from export.chatter import silenced
from export.exporting import parts

RUNS = 10
SIDE = 64  # LR pixels


def price(student: Student, path: Path) -> str:
    """One line for a person.

    Args:
        student: with a quantization that is not int8 alone.
        path: its .tflite.
    """
    assert student.quantization is not None
    found = times_slower(student, path)
    why = ""
    if "int16" in student.quantization.arithmetic.values():
        why = "; XNNPACK has no 16-bit kernels, TFLite's own run those layers"
    return f"price: {found:.1f} times as slow as int8 here, {SIDE}x{SIDE}, one thread{why}"


def times_slower(student: Student, path: Path, runs: int = RUNS) -> float:
    """Latency of the file over that of an int8 file of the same student; the fastest of alternating runs of each."""
    from export.lowering.tflite_mixed import mixed_tflite

    assert student.quantization is not None
    graph, quantization = parts(student, student.quantization.precision)
    plain = dataclasses.replace(quantization, arithmetic={}) if quantization else student.quantization
    with tempfile.TemporaryDirectory() as folder:
        int8 = Path(folder) / "int8.tflite"
        int8.write_bytes(mixed_tflite(graph, plain, (SIDE, SIDE)))
        pair = [_opened(path), _opened(int8)]
        rounds = [[_seconds(interpreter) for interpreter in pair] for _ in range(runs)]
    mine, other = (min(times) for times in zip(*rounds, strict=True))
    return mine / other


def _opened(path: Path) -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with silenced():
        interpreter = Interpreter(str(path), num_threads=1)
        given = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(given, [1, SIDE, SIDE, 3])
        interpreter.allocate_tensors()
        interpreter.set_tensor(given, np.zeros((1, SIDE, SIDE, 3), np.int8))
        interpreter.invoke()  # the first run prepares
    return interpreter


def _seconds(interpreter: Any) -> float:
    start = time.perf_counter()
    interpreter.invoke()
    return time.perf_counter() - start
