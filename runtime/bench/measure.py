"""Files on engines and numbers of threads, timed in turns."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from runtime.engines import open_model
from runtime.engines.base import Description, Engine, Image
from runtime.latency import Latency, latencies_of, timings_in_turns
from runtime.names import told_apart
from runtime.selection import Choice


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """One file on one engine with one number of threads.

    Attributes:
        name: of the file, with as many of its folders as tell it from the others.
        engine: as it was asked for, such as 'litert' or 'adb:SERIAL'.
        description: what the file says about itself and what ran it.
        file_bytes: size on disk.
        latency: of preparing, running and reading back; None for a file that is only evaluated or emulated.
        runs_ms: milliseconds of the network alone, of every measured run, in the order of the turns.
        peak_bytes: that opening and one inference add to the memory of a fresh process; None where it is not measured.
    """

    name: str
    engine: str
    description: Description
    file_bytes: int
    latency: Latency | None
    runs_ms: tuple[float, ...]
    peak_bytes: int | None

    @property
    def threads(self) -> int:
        return self.description.threads

    @property
    def megapixels_per_second(self) -> float | None:
        """Of output, by the medians of all three parts."""
        if self.latency is None:
            return None
        height, width = self.latency.lr_size
        pixels = height * width * self.description.metadata.scale**2
        parts = self.latency.prepare.median + self.latency.run.median + self.latency.read.median
        return pixels / 1e3 / parts


def measure(
    choices: Sequence[Choice],
    lr: Image,
    *,
    threads: Sequence[int] = (1,),
    runs: int,
    memory: bool = True,
    on_done: Callable[[str], object] = lambda name: None,
) -> list[Measurement]:
    """Times every choice with every number of threads, A B C A B C ..., so that a busy moment falls on all of them.

    Args:
        choices: from `runtime.selection.choose`.
        lr: (H, W, 3) uint8, which every file must take.
        threads: of the engines.
        runs: timed ones of each.
        memory: measure peak memory, too, which takes a process each.
        on_done: called with the name of each file that is finished.

    Raises:
        BadInput: a file that cannot be opened, or does not take that image.
    """
    with ExitStack() as opened:
        engines = [
            (one, opened.enter_context(open_model(one.path, engine=one.engine, threads=count)))
            for one in choices
            for count in dict.fromkeys(threads)
        ]
        descriptions = [engine.describe() for _, engine in engines]
        native = [engine for (_, engine), about in zip(engines, descriptions, strict=True) if about.native]
        timings = timings_in_turns(native, lr, runs=runs) if native else []
        latencies = dict(zip(map(id, native), latencies_of(native, timings, lr), strict=True))
        rows = dict(zip(map(id, native), zip(*timings, strict=True), strict=True)) if timings else {}
        names = told_apart(one.path for one in choices)
        results = []
        for (choice, engine), about in zip(engines, descriptions, strict=True):
            results.append(
                Measurement(
                    name=names[choice.path],
                    engine=choice.engine,
                    description=about,
                    file_bytes=engine.file_bytes(),
                    latency=latencies.get(id(engine)),
                    runs_ms=tuple(1000 * timing.run for timing in rows.get(id(engine), ())),
                    peak_bytes=_peak(engine, lr) if memory and about.native else None,
                )
            )
            on_done(about.path.name)
        return results


def _peak(engine: Engine, lr: Image) -> int | None:
    return engine.peak_memory(lr.shape[0], lr.shape[1])


def plain(one: Measurement) -> dict[str, Any]:
    """For JSON."""
    latency = one.latency
    spreads = {name: vars(getattr(latency, name)) for name in ("prepare", "run", "read")} if latency else None
    about = one.description
    return {
        "file": str(about.path), "engine": one.engine, "version": about.version, "precision": about.precision,
        "scale": about.metadata.scale, "threads": one.threads, "bytes": one.file_bytes, "milliseconds": spreads,
        "runs_ms": list(one.runs_ms), "peak_bytes": one.peak_bytes, "native": about.native,
        "megapixels_per_second": one.megapixels_per_second,
    }  # fmt: skip
