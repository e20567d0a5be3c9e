"""`python -m runtime.device student_int8.tflite`: does it compute on every connected device what it should, and how fast?"""

import dataclasses
import json as json_text
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from compress.cli import command_line
from compress.errors import BadInput
from compress.files import check_writable, sha256, write_text
from export.metadata import Metadata
from runtime.device.adb import READY, Listed, choose, devices
from runtime.device.golden import Golden, compare, read_golden
from runtime.engines.adb import AdbEngine
from runtime.engines.base import check_threads
from runtime.engines.litert import LitertEngine
from runtime.parity.agreement import Agreement
from runtime.parity.judge import MEBIBYTE, differing
from runtime.parity.limits import limits_for

LOG_WIDTH = 130  # columns where there is no terminal to ask
HEADINGS = ("device", "to golden", "0 / 1 / 2 / 3+ LSB", "median", "p90", "prepare", "peak memory")


@dataclass(frozen=True, kw_only=True)
class Checked:
    """One device's result.

    Attributes:
        serial: of adb.
        version: LiteRT's, and the device's name and processor; None where it did not get so far.
        agreement: with the golden vector.
        failures: limits of the gate that it misses.
        run_ms: of every measured run.
        prepare_ms: resizing, allocating and writing the input.
        peak_bytes: of opening the file and one run; None where the device does not tell.
        problem: why there is no result, as a sentence.
    """

    serial: str
    version: str | None = None
    agreement: Agreement | None = None
    failures: tuple[str, ...] = ()
    run_ms: tuple[float, ...] = ()
    prepare_ms: float | None = None
    peak_bytes: int | None = None
    problem: str | None = None

    @property
    def passed(self) -> bool:
        return self.agreement is not None and not self.failures

    @property
    def median(self) -> float:
        return float(np.median(self.run_ms))

    @property
    def p90(self) -> float:
        return float(np.percentile(self.run_ms, 90))

    def verdict(self) -> str:
        """One line for a person."""
        if self.agreement is None:
            return f"{self.serial}: FAIL  {self.problem}"
        if self.failures:
            return f"{self.serial}: FAIL  {'; '.join(self.failures)}"
        return f"{self.serial}: PASS  {_agreed(self.agreement)}"


def check(file: Path, golden: Golden, serial: str, *, threads: int, runs: int, warmup: int) -> Checked:
    """Runs the golden vector on one device. What is wrong with the device becomes its `problem`."""
    try:
        with AdbEngine(file, threads, serial=serial) as engine:
            raw, report = engine.measure(golden.lr, runs=runs, warmup=warmup)
            agreement, precision = compare(raw, golden), engine.metadata.precision
            limits = limits_for("tflite", precision, f"adb:{serial}")
            return Checked(
                serial=serial,
                version=engine.describe().version,
                agreement=agreement,
                failures=tuple(differing(agreement, precision, limits)),
                run_ms=report.run_ms,
                prepare_ms=report.prepare_ms,
                peak_bytes=report.peak_bytes,
            )
    except BadInput as error:
        return Checked(serial=serial, problem=str(error))


def main(
    file: Path,
    *,
    golden: Path | None = None,
    serial: Sequence[str] = (),
    threads: int = 1,
    runs: int = 20,
    warmup: int = 3,
    json: Path | None = None,
) -> int:
    """Runs a .tflite's golden vector on connected devices. Exits with 0 where all agree, 1 where one does not, 2 for bad input.

    Args:
        file: an exported .tflite.
        golden: folder with golden.npz; left out, the file's own.
        serial: of the devices, as `adb devices` prints them; left out, all that are connected.
        threads: of LiteRT on the device.
        runs: measured runs, in one process.
        warmup: runs before those.
        json: file for all figures.
    """
    if runs < 1 or warmup < 0:
        raise BadInput(f"expected at least 1 run and no negative warm-up, found {runs} and {warmup}: use more.")
    check_threads(threads)
    metadata = LitertEngine(file).metadata
    vector = read_golden(golden or file.parent, file, metadata)
    check_writable(json)
    results = []
    for one in _chosen(serial):
        if one.state == READY:
            print(f"{one.serial}: running {file.name}", file=sys.stderr)
            results.append(check(file, vector, one.serial, threads=threads, runs=runs, warmup=warmup))
        else:
            results.append(Checked(serial=one.serial, problem=one.complaint))
    _print(results, file, vector, threads, runs)
    if json:
        write_text(json, to_json(results, file, metadata, vector, threads))
    return 0 if all(one.passed for one in results) else 1


def _chosen(serials: Sequence[str]) -> list[Listed]:
    """The devices that are named, or all. Raises BadInput where one of those is not there, or none is ready."""
    if serials:
        return [Listed(choose(one), READY) for one in dict.fromkeys(serials)]
    listed = devices()
    if not any(one.state == READY for one in listed):
        choose()  # says what is wrong
    return listed


def to_json(results: Sequence[Checked], file: Path, metadata: Metadata, golden: Golden, threads: int) -> str:
    """All figures; those that are not finite (PSNR of identical images) become null."""
    height, width = golden.lr.shape[:2]
    rows: list[dict[str, Any]] = []
    for one in results:
        row = {**dataclasses.asdict(one), "passed": one.passed}
        if one.agreement is not None:
            row |= {"median_ms": one.median, "p90_ms": one.p90}
            row["agreement"] = {
                name: None if isinstance(value, float) and not math.isfinite(value) else value
                for name, value in row["agreement"].items()
            }
        rows.append(row)
    whole = {
        "passed": all(one.passed for one in results),
        "file": file.name,
        "sha256": sha256(file),
        "student_sha256": metadata.student_sha256,
        "lr_size": [height, width],
        "threads": threads,
        "devices": rows,
    }
    return json_text.dumps(whole, indent=1, allow_nan=False) + "\n"


def _print(results: Sequence[Checked], file: Path, golden: Golden, threads: int, runs: int) -> None:
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=LOG_WIDTH)
    table = Table(*HEADINGS, title=str(file))
    for one in results:
        if one.agreement is None:
            table.add_row(one.serial, *["not run"] * (len(HEADINGS) - 1))
            continue
        shares = " / ".join(f"{share:.2%}" for share in one.agreement.distribution)
        memory = "not told" if one.peak_bytes is None else f"{one.peak_bytes / MEBIBYTE:.1f} MiB"
        times = (f"{one.median:.2f} ms", f"{one.p90:.2f} ms", f"{one.prepare_ms:.2f} ms")
        table.add_row(f"{one.serial}\n{one.version}", _agreed(one.agreement), shares, *times, memory)
    console.print(table)
    height, width = golden.lr.shape[:2]
    console.print(f"LR image of {width}x{height} pixels, {threads} thread(s), {runs} runs in one process on the device")
    for one in results:
        console.print(one.verdict(), style="bold green" if one.passed else "bold red", markup=False, soft_wrap=True)


def _agreed(agreement: Agreement) -> str:
    if agreement.max_lsb == 0:
        return "identical"
    return f"{agreement.psnr:.1f} dB, max {agreement.max_lsb:.2g} LSB"


if __name__ == "__main__":
    command_line(main, contained=True)
