"""TensorFlow's own interpreter: a second opinion on .tflite files, in a process of its own.

Its LLVM and that of PyTorch's triton end the process they meet in, so TensorFlow is imported by a child, once: all engines
share it. What a file does to it there is a sentence here.
"""

import atexit
import contextlib
import importlib.util
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from compress.errors import BadInput, Unavailable
from runtime.engines.frames import receive, send
from runtime.engines.tflite import TfliteEngine

PROGRAM = "runtime.engines.tensorflow_process"
ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 600.0  # seconds, of one step
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}
PATIENCE = 5.0  # seconds, for a process that was told to end


class TensorflowEngine(TfliteEngine):
    """A .tflite in `tf.lite.Interpreter`, with XNNPACK, on the processor.

    The seconds of its timing are those of TensorFlow's process and of turning pixels into numbers and back here, without
    the way between the two.

    Args:
        path: of the file.
        threads: of the interpreter.

    Raises:
        BadInput: see `runtime.engines.open_model`; also later, where TensorFlow's process dies or takes too long.
    """

    def __init__(self, path: str | Path, threads: int = 1):
        child = preload()
        path = Path(path)
        with contextlib.ExitStack() as undone:

            def interpreter() -> _Interpreter:
                return undone.enter_context(contextlib.closing(_Interpreter(child, path, threads)))

            super().__init__(path, threads, "tensorflow", child.version, interpreter)
            undone.pop_all()

    def close(self) -> None:
        self._interpreter.close()

    def _seconds(self) -> float:
        return time.perf_counter() - self._interpreter.on_the_way


class Child:
    """The process that runs TensorFlow. Threads that share it wait for each other."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._lock, self._late = threading.Lock(), False
        self._process = subprocess.Popen(
            [sys.executable, "-m", PROGRAM], cwd=ROOT, env=os.environ | QUIET,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        hello, _ = self.ask(None, b"", "TensorFlow's import")
        if "broken" in hello:
            self.end()
            raise Unavailable(
                f"expected TensorFlow to run a .tflite, found one that cannot be imported ({hello['broken'][:200]}): "
                "pip install --force-reinstall 'pocketsr[tensorflow]'."
            )
        self.version = f"tensorflow {hello['version']}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(
        self, message: dict[str, Any] | None, content: bytes | memoryview, what: str
    ) -> tuple[dict[str, Any], bytes]:
        """Sends a message, None for the first answer, which needs none, and returns the answer with its bytes.

        Raises:
            BadInput: the process has died, dies, or does not answer in time; it names `what`.
        """
        assert self._process.stdin
        assert self._process.stdout
        with self._lock:
            if self._process.stdin.closed:
                self._say_how_it_ended(what)
            watch = threading.Timer(TIMEOUT, self._give_up)
            watch.start()
            try:
                if message is not None:
                    send(self._process.stdin, message, content)
                return receive(self._process.stdout)
            except (EOFError, OSError):
                self._say_how_it_ended(what)
            except BaseException:  # half a message is on its way
                self._process.kill()
                raise
            finally:
                watch.cancel()

    def end(self) -> int:
        """Ends the process, with all that it has opened, and returns its exit code."""
        assert self._process.stdin
        with contextlib.suppress(OSError):  # what was not sent is lost
            self._process.stdin.close()
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _say_how_it_ended(self, what: str) -> NoReturn:
        code = self.end()
        if self._late:
            raise BadInput(
                f"expected {what} within {TIMEOUT:g} s, found that TensorFlow takes longer: use a smaller image."
            )
        how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
        raise BadInput(
            f"expected {what}, found TensorFlow's process {how}: open the file again, with another engine if that happens "
            "again, or take a smaller image if memory ran out."
        )


class _Interpreter:
    """What `TfliteEngine` uses of `tf.lite.Interpreter`, done by the child.

    Attributes:
        on_the_way: seconds that messages and images have taken between the processes so far.
    """

    def __init__(self, child: Child, path: Path, threads: int):
        self._child, self._path, self._number = child, path, -1
        self.on_the_way = 0.0
        opened, _ = self._ask("open", path=str(path.resolve()), threads=threads)
        self._number, self._inputs, self._outputs = opened["number"], opened["inputs"], opened["outputs"]

    def get_input_details(self) -> list[dict[str, Any]]:
        return self._inputs

    def get_output_details(self) -> list[dict[str, Any]]:
        return self._outputs

    def resize_tensor_input(self, tensor: int, shape: list[int]) -> None:
        self._ask("resize", tensor=tensor, shape=shape)

    def allocate_tensors(self) -> None:
        self._ask("allocate")

    def set_tensor(self, tensor: int, values: np.ndarray) -> None:
        content = memoryview(np.ascontiguousarray(values)).cast("B")
        self._ask("set", content, tensor=tensor, dtype=values.dtype.name, shape=values.shape)

    def invoke(self) -> None:
        self._ask("invoke")

    def get_tensor(self, tensor: int) -> np.ndarray:
        answer, content = self._ask("get", tensor=tensor)
        return np.frombuffer(bytearray(content), answer["dtype"]).reshape(answer["shape"])

    def _get_ops_details(self) -> list[dict[str, Any]]:
        return self._ask("operators")[0]["nodes"]

    def close(self) -> None:
        if self._number >= 0 and self._child.alive:
            self._ask("close")
        self._number = -1

    def _ask(self, do: str, content: bytes | memoryview = b"", **more: Any) -> tuple[dict[str, Any], bytes]:
        start = time.perf_counter()
        message = {"do": do, "number": self._number, **more}
        answer, made = self._child.ask(message, content, f"TensorFlow to run {self._path}")
        self.on_the_way += time.perf_counter() - start - answer["seconds"]
        if "refused" in answer:
            raise ValueError(answer["refused"])
        return answer, made


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
        _child = Child()
        atexit.register(_child.end)
    return _child
