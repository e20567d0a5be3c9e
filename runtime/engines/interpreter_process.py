"""The program that `runtime.engines.remote` runs in another process: interpreters of .tflite files, asked over standard input.

    python -m runtime.engines.interpreter_process tensorflow|litert

One message in, one out (`runtime.engines.frames`). An answer has the seconds that the work took here, and `refused` where
the interpreter raised. The program ends when standard input does, so that it never outlives who started it.
"""

import importlib.metadata
import os
import sys
import time
from collections.abc import Callable
from typing import Any, BinaryIO

import numpy as np

from runtime.engines.frames import receive, send

Answer = tuple[dict[str, Any], bytes | memoryview]
NOTHING: Answer = {}, b""


class Interpreters:
    """Interpreters by number; every method answers one kind of message."""

    def __init__(self, make: Callable[..., Any]):
        self._make, self._next = make, 0
        self._opened: dict[int, Any] = {}

    def open(self, message: dict[str, Any], content: bytes) -> Answer:
        opened = self._make(model_path=message["path"], num_threads=message["threads"])
        number, self._next = self._next, self._next + 1
        self._opened[number] = opened
        details = {"inputs": opened.get_input_details(), "outputs": opened.get_output_details()}
        return {"number": number} | {end: [_plain(one) for one in ends] for end, ends in details.items()}, b""

    def resize(self, message: dict[str, Any], content: bytes) -> Answer:
        self._of(message).resize_tensor_input(message["tensor"], message["shape"])
        return NOTHING

    def allocate(self, message: dict[str, Any], content: bytes) -> Answer:
        self._of(message).allocate_tensors()
        return NOTHING

    def set(self, message: dict[str, Any], content: bytes) -> Answer:
        values = np.frombuffer(content, message["dtype"]).reshape(message["shape"])
        self._of(message).set_tensor(message["tensor"], values)
        return NOTHING

    def invoke(self, message: dict[str, Any], content: bytes) -> Answer:
        self._of(message).invoke()
        return NOTHING

    def get(self, message: dict[str, Any], content: bytes) -> Answer:
        values = np.ascontiguousarray(self._of(message).get_tensor(message["tensor"]))
        return {"dtype": values.dtype.name, "shape": values.shape}, memoryview(values).cast("B")

    def operators(self, message: dict[str, Any], content: bytes) -> Answer:
        nodes = self._of(message)._get_ops_details()
        ends = ("inputs", "outputs")
        return {
            "nodes": [{"op_name": node["op_name"]} | {end: node[end].tolist() for end in ends} for node in nodes]
        }, b""

    def close(self, message: dict[str, Any], content: bytes) -> Answer:
        del self._opened[message["number"]]
        return NOTHING

    def _of(self, message: dict[str, Any]) -> Any:
        if message["number"] not in self._opened:
            raise ValueError("the file was closed")
        return self._opened[message["number"]]


def _plain(tensor: dict[str, Any]) -> dict[str, Any]:
    scale, zero_point = tensor["quantization"]
    return {
        "index": int(tensor["index"]),
        "dtype": np.dtype(tensor["dtype"]).name,
        "shape": [int(n) for n in tensor["shape"]],
        "quantization": [float(scale), int(zero_point)],
    }


def serve(interpreters: Interpreters, asked: BinaryIO, answered: BinaryIO) -> None:
    """Answers messages until there are no more."""
    while True:
        try:
            message, content = receive(asked)
        except EOFError:
            return
        start = time.perf_counter()
        try:
            answer, made = getattr(interpreters, message["do"])(message, content)
        except (ValueError, RuntimeError) as error:
            answer, made = {"refused": str(error)}, b""
        send(answered, answer | {"seconds": time.perf_counter() - start}, made)


def main(package: str) -> None:
    answered = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what the libraries print is no answer
    try:
        make, version = MAKERS[package]()
    except Exception as error:  # a package that does not fit the others can raise anything
        send(answered, {"broken": f"{type(error).__name__}: {error}"})
        return
    send(answered, {"version": version})
    serve(Interpreters(make), sys.stdin.buffer, answered)


def _tensorflow() -> tuple[Callable[..., Any], str]:
    import tensorflow

    return tensorflow.lite.Interpreter, tensorflow.__version__


def _litert() -> tuple[Callable[..., Any], str]:
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter, importlib.metadata.version("ai-edge-litert")


MAKERS = {"tensorflow": _tensorflow, "litert": _litert}


if __name__ == "__main__":
    main(sys.argv[1])
    os._exit(0)  # TensorFlow's own end takes a while and has nothing to do
