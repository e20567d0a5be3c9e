"""A campaign: many spoilt files through the readers, in worker processes that may die; the rules, and who breaks them."""

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from tests.fuzz import targets
from tests.fuzz.seeds import ROOT, Seed, random_of
from tests.fuzz.targets import Target, place

SECONDS_MOST = 10.0  # of processor time for one file
SECONDS_FIRST = 60.0  # the same until a reader's libraries are imported
PATIENCE = 120.0  # seconds of the wall clock, on a busy machine
BYTES_MOST = 2 * 2**30
SENTENCE_MOST = 1000  # characters
CASES_PER_WORKER = 400  # leaks of native code are not what is looked for
START = 180.0
HERTZ = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Case:
    """One spoilt file; `number` makes the damage, a name of a hostile file stands for itself."""

    target: str
    seed: str
    number: int

    def __str__(self) -> str:
        return f"{self.target} {self.seed} {self.number}"


@dataclass(frozen=True)
class Ending:
    """How a case ended: 'read', 'refused' or 'contained' keep the rules, everything else breaks one."""

    case: Case
    outcome: str
    said: str
    seconds: float = 0.0
    bytes: int = 0

    @property
    def kept(self) -> bool:
        return self.outcome in ("read", "refused", "contained")


@dataclass
class Summary:
    """What a campaign found, by target."""

    endings: dict[str, Counter[str]] = field(default_factory=dict)
    slowest: dict[str, float] = field(default_factory=dict)
    largest: dict[str, int] = field(default_factory=dict)
    broken: list[Ending] = field(default_factory=list)

    def add(self, ending: Ending) -> None:
        target = ending.case.target
        self.endings.setdefault(target, Counter())[ending.outcome] += 1
        self.slowest[target] = max(self.slowest.get(target, 0.0), ending.seconds)
        self.largest[target] = max(self.largest.get(target, 0), ending.bytes)
        if not ending.kept:
            self.broken.append(ending)


def cases_of(chosen: Mapping[str, Target], count: int, first: int = 0) -> list[Case]:
    """All hostile files of the targets, and `count` damaged ones, spread evenly over their seeds."""
    made = [Case(name, file, -1) for name, target in chosen.items() for file in target.hostile(Path("canary"))]
    seeds = [(name, seed) for name, target in chosen.items() for seed in target.seeds]
    return made + [Case(*seeds[i % len(seeds)], first + i // len(seeds)) for i in range(count)]


def write_case(case: Case, target: Target, seeds: Path, into: Path, canary: Path) -> Path:
    """Makes the file of a case in an empty folder; returns what its reader is given."""
    if case.number < 0:
        (into / case.seed).write_bytes(target.hostile(canary)[case.seed]())
        return into / case.seed
    return place(Seed.of(seeds / case.seed), target, into, random_of(case.target, case.seed, case.number))


def run(
    cases: Sequence[Case],
    seeds: Path,
    on_case: Callable[[Ending], object] = lambda ending: None,
    *,
    module: ModuleType = targets,
) -> Summary:
    """Reads every case in turn with the readers of `module`. Ends with the last one, whatever they do."""
    summary = Summary()
    with tempfile.TemporaryDirectory() as folder:
        for ending in _endings(cases, seeds, Path(folder), module):
            summary.add(ending)
            on_case(ending)
    return summary


def _endings(cases: Sequence[Case], seeds: Path, folder: Path, module: ModuleType) -> Iterator[Ending]:
    worker, read = None, 0
    try:
        for case in cases:
            if worker is None or read >= CASES_PER_WORKER:
                _stop(worker)
                worker, read = _Worker(module.__name__, seeds), 0
            room, canary = folder / "case", folder / "canary"
            room.mkdir()
            target = module.TARGETS[case.target]
            path = write_case(case, target, seeds, room, canary)
            ending = _judged(case, target, worker, path)
            if canary.exists():
                canary.rmdir() if canary.is_dir() else canary.unlink()
                ending = Ending(case, "ran code", ending.said)
            shutil.rmtree(room)
            if not worker.alive:
                worker = None
            read += 1
            yield ending
    finally:
        _stop(worker)


def _judged(case: Case, target: Target, worker: "_Worker", path: Path) -> Ending:
    answer = worker.ask(f"{case.target}\t{path}")
    if answer is None:
        if worker.hung:
            return Ending(case, "hang", f"took longer than {SECONDS_MOST:.0f} s")
        return Ending(case, "contained" if target.native else "crash", f"signal {-worker.code}")
    outcome, said = answer["outcome"], answer["said"]
    if answer["seconds"] > SECONDS_MOST:
        outcome, said = "hang", f"took {answer['seconds']:.1f} s"
    elif answer["bytes"] > BYTES_MOST:
        outcome, said = "memory", f"took {answer['bytes'] / 2**20:.0f} MiB"
    elif outcome == "refused" and ("\n" in said or len(said) > SENTENCE_MOST or "expected" not in said):
        outcome = "sentence"
    return Ending(case, outcome, said, answer["seconds"], answer["bytes"])


class _Worker:
    """A process that reads cases until one kills it."""

    def __init__(self, module: str, seeds: Path) -> None:
        self.hung, self.code = False, 0
        self._warm: set[str] = set()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", module, str(seeds.resolve())],
            cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": ""},
        )  # fmt: skip
        if self._answer(START) != "ready":
            raise RuntimeError("the worker did not start: run `python -m tests.fuzz.worker MODULE SEEDS` to see why")

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, question: str) -> dict | None:
        """The answer; None where the process died, or was killed since it `hung`."""
        try:
            self._process.stdin.write(question.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass
        name = question.partition("\t")[0]
        most = SECONDS_MOST if name in self._warm else SECONDS_FIRST
        self._warm.add(name)
        return self._answer(most)

    def _answer(self, seconds: float) -> object:
        used, waited, line = self._processor_time(), 0.0, b""
        while not line.endswith(b"\n"):
            if select.select([self._process.stdout], [], [], 0.5)[0]:
                piece = os.read(self._process.stdout.fileno(), 1 << 20)
                if not piece:
                    self.code = self._process.wait()
                    return None
                line += piece
                continue
            waited += 0.5
            if self._processor_time() - used > seconds or waited > PATIENCE:
                self.hung = True
                self.stop()
                return None
        return json.loads(line)

    def _processor_time(self) -> float:
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / HERTZ

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()


def _stop(worker: _Worker | None) -> None:
    if worker:
        worker.stop()
