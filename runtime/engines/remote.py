"""Interpreters of .tflite files in a process of their own, which may crash, hang, or run on another processor.

What happens to it there is a sentence here.
"""

import atexit
import contextlib
import os
import re
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from compress.errors import BadInput
from runtime.engines.frames import receive, send
from runtime.engines.tflite import TfliteEngine

PROGRAM = "runtime.engines.interpreter_process"
ROOT = Path(__file__).resolve().parents[2]  # where `python -m PROGRAM` finds it
TIMEOUT = 600.0  # seconds, of one step
PATIENCE = 5.0  # seconds, for a process that was told to end


class RemoteEngine(TfliteEngine):
    """A .tflite in an interpreter of another process.

    The seconds of its timing are those of that process and of turning pixels into numbers and back here, without the way
    between the two.

    Args:
        path: of the file.
        threads: of the interpreter.
        engine: name in `runtime.engines.ENGINES`.
        version: of the interpreter and of what it runs on.
        child: the process.

    Raises:
        BadInput: see `runtime.engines.open_model`; also later, where the process dies or takes too long.
    """

    def __init__(self, path: str | Path, threads: int, engine: str, version: str, child: "Child"):
        path = Path(path)
        with contextlib.ExitStack() as undone:

            def interpreter() -> RemoteInterpreter:
                return undone.enter_context(contextlib.closing(RemoteInterpreter(child, path, threads)))

            super().__init__(path, threads, engine, version, interpreter)
            undone.pop_all()

    def close(self) -> None:
        self._interpreter.close()

    def _seconds(self) -> float:
        return time.perf_counter() - self._interpreter.on_the_way


class Child:
    """The process of interpreters. Threads that share it wait for each other.

    Args:
        name: of what runs there, for sentences.
        command: that starts `runtime.engines.interpreter_process`.
        cwd: its working folder.
        env: its environment; None is this process's.

    Attributes:
        version: of the package that it imported.
        broken: what the import raised, on one line; '' where it went well.

    Raises:
        BadInput: it dies at once.
    """

    def __init__(self, name: str, command: Sequence[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None):
        self.name, self.owner = name, os.getpid()
        self._lock, self._late = threading.Lock(), False
        self._errors, self._said = tempfile.TemporaryFile(), b""  # noqa: SIM115  # it ends with the process
        self._process = subprocess.Popen(
            command, cwd=cwd, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors
        )
        hello, _ = self.ask(None, b"", f"{name} to start")
        self.version, self.broken = (" ".join(hello.get(key, "").split())[:200] for key in ("version", "broken"))
        if self.broken:
            self.end()
        atexit.register(self.end)

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
        assert self._process.stdout
        with contextlib.suppress(OSError):  # what was not sent is lost
            self._process.stdin.close()
        try:
            code = self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._process.stdout.close()
        if not self._errors.closed:
            self._errors.seek(0)
            self._said = self._errors.read()
            self._errors.close()
        return code

    def _give_up(self) -> None:
        self._late = True
        self._process.kill()

    def _say_how_it_ended(self, what: str) -> NoReturn:
        code = self.end()
        if self._late:
            raise BadInput(
                f"expected {what} within {TIMEOUT:g} s, found that {self.name} takes longer: use a smaller image."
            )
        raise BadInput(
            f"expected {what}, found {self.name}'s process {how_it_ended(code, self._said)}: open the file again, with "
            "another engine if that happens again, or take a smaller image if memory ran out."
        )


class RemoteInterpreter:
    """What `TfliteEngine` uses of `tf.lite.Interpreter`, done by a child.

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
        answer, made = self._child.ask(message, content, f"{self._child.name} to run {self._path}")
        self.on_the_way += time.perf_counter() - start - answer["seconds"]
        if "refused" in answer:
            raise ValueError(answer["refused"])
        return answer, made


def how_it_ended(code: int, said: bytes) -> str:
    """The end of a process: its exit code, negative for a signal, and the last error among what it wrote to standard error."""
    lines = said.decode("utf-8", "replace").splitlines()
    last = next((line.strip() for line in reversed(lines) if re.match(r"qemu|\S*Error", line)), "")
    how = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return f"{how} ({last[:200]})" if last else how
