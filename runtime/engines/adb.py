"""A .tflite on a phone over adb: LiteRT on the device's own processor, with its own times and memory."""

import weakref
from pathlib import Path

import numpy as np

from compress.errors import BadInput
from runtime.device.adb import program
from runtime.device.build import PACKAGE
from runtime.device.session import Report, Session, release, session_on
from runtime.engines import litert
from runtime.engines.base import Delegate, Description, Engine, Image, Raw, Result, Timing, from_pixels, to_pixels

WARMUP = 1  # every image starts a fresh process, whose first run is slower than an app's second


class AdbEngine(Engine):
    """A .tflite on a connected device. `Timing` and `peak_memory` are the device's own, without what adb takes.

    The device holds a private folder with the runner and the file until the engine is closed, or this process ends.

    Args:
        path: of the file.
        threads: of LiteRT on the device.
        serial: of adb; None is the only device there is.

    Raises:
        BadInput: see `runtime.engines.open_model` and `runtime.device.session.session_on`.
    """

    def __init__(self, path: str | Path, threads: int = 1, *, serial: str | None = None):
        path = Path(path)
        here = litert.LitertEngine(path)  # holds the file against its metadata
        super().__init__(path, here.metadata, threads)
        self._operators = here.describe().delegate.operators
        self._session: Session = session_on(serial)
        self._release = weakref.finalize(self, release, self._session)  # also when this process ends
        try:
            self._model = self._session.model(path)
        except BaseException:
            self.close()
            raise
        self._lr: Image | None = None
        self._raw: Raw | None = None
        self._report: Report | None = None

    def close(self) -> None:
        self._release()

    def describe(self) -> Description:
        facts, bundle = self._session.facts, self._session.bundle
        return Description(
            path=self.path,
            engine=f"adb:{facts.serial}",
            version=f"{PACKAGE} {bundle.litert} on {facts.name} ({facts.abi})",
            threads=self.threads,
            metadata=self.metadata,
            delegate=Delegate(name="XNNPACK", operators=self._operators),  # the device does not say which it takes
        )

    def prepare(self, lr: Image) -> None:
        self._lr = lr

    def run(self) -> None:
        assert self._lr is not None
        self._raw, self._report = self.measure(self._lr, runs=1, warmup=WARMUP)

    def read(self) -> Raw:
        assert self._raw is not None
        return self._raw

    def upscale(self, lr: Image) -> Result:
        """Super-resolves one image: see `Engine.upscale`. The run is timed after a first one in the same process.

        Raises:
            BadInput: another type or shape, a size that the file does not take, a device that is gone or out of space.
        """
        raw, report = self.measure(lr, runs=1, warmup=WARMUP)
        timing = Timing(report.prepare_ms / 1000, report.run_ms[0] / 1000, report.read_ms / 1000)
        return Result(to_pixels(raw), raw, timing)

    def measure(self, lr: Image, *, runs: int, warmup: int) -> tuple[Raw, Report]:
        """Runs one image several times in one process on the device.

        Args:
            lr: (H, W, 3) uint8 RGB.
            runs, warmup: measured runs, and unmeasured ones before.

        Returns:
            The output, (s*H, s*W, 3), and what it cost.
        """
        self._check(lr)
        if not self._release.alive:
            raise BadInput(f"expected an open engine, found that {self.path} was closed on the device: open it again.")
        height, width, _ = lr.shape
        shape = (height * self.scale, width * self.scale, 3)
        dtype = np.dtype(self.metadata.output.dtype)
        output, report = self._session.run(
            self._model, from_pixels(lr, self.metadata.input).tobytes(), height=height, width=width,
            output_bytes=int(np.prod(shape)) * dtype.itemsize, threads=self.threads, runs=runs, warmup=warmup,
        )  # fmt: skip
        return np.frombuffer(output, dtype).reshape(shape).copy(), report

    def peak_memory(self, height: int, width: int) -> int | None:
        """Bytes that opening the file and one inference add on the device; None where its /proc does not tell."""
        return self.measure(np.zeros((height, width, 3), np.uint8), runs=1, warmup=0)[1].peak_bytes


def preload() -> None:
    """Imports what opening a file needs. Raises Unavailable where adb is not installed."""
    program()
    litert.preload()
