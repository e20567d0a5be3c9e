"""Processes that upscale photographs, each with an engine of its own. Needs no torch.

A crash of native code ends one process: its photograph is named, another process takes its place. They end with the
process that started them, however that ends.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path

from compress.errors import BadInput
from runtime.engines import open_model
from runtime.upscale.enlarge import Enlarged, Settings, enlarge


@dataclass(frozen=True)
class Opening:
    """What every process opens; see `runtime.engines.open_model`."""

    model: Path
    engine: str | None = None
    threads: int = 1


@dataclass(frozen=True)
class Ready:
    """A process has opened its model: its scale, and the engine's name and version."""

    scale: int
    engine: str


@dataclass(frozen=True)
class Job:
    """A photograph and the file to write."""

    photo: Path
    out: Path


@dataclass(frozen=True)
class Step:
    """The share of a job that is done."""

    job: Job
    share: float


@dataclass(frozen=True)
class Finished:
    job: Job
    enlarged: Enlarged


@dataclass(frozen=True)
class Failed:
    """A job that ended without a result, and why, as a sentence."""

    job: Job
    sentence: str


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    connection: Connection
    ready: bool = False
    job: Job | None = None


class Crew:
    """Up to `jobs` processes; a context manager, which ends them.

    Raises:
        BadInput: the model cannot be opened.
        OSError: a full disk (ENOSPC), which the next photograph would meet, too.
    """

    def __init__(self, opening: Opening, settings: Settings, jobs: int):
        self._opening, self._settings, self._jobs = opening, settings, jobs
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Crew":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Ends all processes, whatever they do."""
        for worker in self._workers:
            worker.process.kill()
        for worker in self._workers:
            worker.process.join()
            worker.connection.close()
        self._workers.clear()

    def open(self) -> Ready:
        """Starts the first process and waits until its model is open."""
        worker = self._start()
        try:
            message = worker.connection.recv()
        except EOFError:
            raise self._unopened(worker) from None
        worker.ready = True
        return _opened(message)

    def run(self, jobs: Iterable[Job], begun: Callable[[Job], None]) -> Iterator[Step | Finished | Failed]:
        """Does all jobs, in order where there is one process, and tells what happens; calls `begun` before each."""
        waiting = deque(jobs)
        while len(self._workers) < min(self._jobs, len(waiting)):
            self._start()
        while waiting or any(worker.job for worker in self._workers):
            for worker in self._workers:
                if waiting and worker.ready and worker.job is None:
                    worker.job = waiting.popleft()
                    begun(worker.job)
                    with contextlib.suppress(OSError):  # it died waiting, which is heard next
                        worker.connection.send(worker.job)
            ready = wait([worker.connection for worker in self._workers])
            for worker in [worker for worker in self._workers if worker.connection in ready]:
                event = self._heard(worker, bool(waiting))
                if event is not None:
                    yield event

    def _heard(self, worker: _Worker, more: bool) -> Step | Finished | Failed | None:
        """What a process says, or that it is gone."""
        try:
            message = worker.connection.recv()
        except (EOFError, OSError):  # it is gone
            if not worker.ready:
                raise self._unopened(worker) from None
            self._workers.remove(worker)
            worker.process.join()
            worker.connection.close()
            if more or not self._workers:
                self._start()
            return Failed(worker.job, _died(worker.job, worker.process.exitcode)) if worker.job else None
        if not worker.ready:
            _opened(message)
            worker.ready = True
            return None
        if isinstance(message, OSError):
            raise message
        if not isinstance(message, Step):
            worker.job = None
        return message

    def _start(self) -> _Worker:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(target=_work, args=(theirs, self._opening, self._settings), daemon=True)
        try:
            with _deaf_to_ctrl_c():
                process.start()
        except OSError as error:
            raise BadInput(
                f"expected room for another process, found that the system refuses one ({error.strerror}): use fewer --jobs."
            ) from error
        theirs.close()
        worker = _Worker(process, mine)
        self._workers.append(worker)
        return worker

    def _unopened(self, worker: _Worker) -> BadInput:
        worker.process.join()
        return BadInput(
            f"expected a model that its engine opens, found that {self._opening.model} makes it crash "
            f"({_ending(worker.process.exitcode)}): export it again."
        )


@contextlib.contextmanager
def _deaf_to_ctrl_c() -> Iterator[None]:
    """What is started meanwhile ignores Ctrl-C, which reaches all processes of a terminal: the first one decides."""
    if threading.current_thread() is not threading.main_thread():  # only that one may set it, and only it gets Ctrl-C
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(connection: Connection, opening: Opening, settings: Settings) -> None:
    """What a process does: opens the model, then takes one job after another."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        engine = open_model(opening.model, engine=opening.engine, threads=opening.threads)
        settings.check(engine.metadata)
        description = engine.describe()
    except BadInput as error:
        connection.send(error)
        return
    connection.send(Ready(engine.scale, f"{description.engine}, {description.version}"))
    for job in iter(connection.recv, None):
        try:
            enlarged = enlarge(
                job.photo, engine, job.out, settings, step=lambda share, job=job: connection.send(Step(job, share))
            )
        except BadInput as error:
            connection.send(Failed(job, str(error)))
        except OSError as error:  # a full disk
            connection.send(OSError(error.errno, error.strerror, str(job.out)))
            return
        else:
            connection.send(Finished(job, enlarged))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "runs in a process that another one started"
    wait([parent.sentinel])
    os._exit(1)


def _opened(message: Ready | BadInput) -> Ready:
    if isinstance(message, BadInput):
        raise message
    return message


def _died(job: Job, code: int | None) -> str:
    hint = "set --memory, or fewer --jobs" if code == -signal.SIGKILL else "try another --engine"
    return f"expected a photograph that can be upscaled, found that its process crashed ({_ending(code)}) at {job.photo}: {hint}."


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        return signal.Signals(-code).name
    return f"exit code {code}"
