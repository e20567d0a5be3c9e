"""Instructions of one pass on emulated ARM64 cores, a figure of cost: `python -m runtime.arm64.count FILE...`"""

import dataclasses
import itertools
import json as json_format
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from compress.cli import command_line
from compress.errors import BadInput
from compress.files import check_writable, write_text
from compress.progress import progress
from export.metadata import read_tflite
from runtime.arm64.cores import core_named
from runtime.arm64.emulator import Machine
from runtime.engines.remote import how_it_ended

PROGRAM = Path(__file__).with_name("passes.py")
REFUSED = 3  # exit code of the program
CORES = ("cortex-a53", "cortex-a76")


@dataclass(frozen=True, kw_only=True)
class Count:
    """What one file costs on one core.

    Attributes:
        file: its path.
        precision: as its metadata says; 'unknown' for a file of another program.
        core: qemu's name.
        machine: 'emulated ARM64 (...)', with versions.
        height, width: of the LR image, of random pixels.
        instructions: of one pass on one thread: all that LiteRT executes from the call of its interpreter to its return.
        passes: of all counted passes; the first, which may still set something up, is not among them.
    """

    file: str
    precision: str
    core: str
    machine: str
    height: int
    width: int
    instructions: int
    passes: tuple[int, ...]


def instructions(path: Path, core: str, *, height: int, width: int, passes: int = 3, timeout: float = 600) -> Count:
    """Counts the instructions of passes over one image.

    Args:
        path: of a .tflite of one image, ours or not.
        core: see `runtime.arm64.cores.CORES`.
        height, width: of the LR image.
        passes: to count, after a first one that is not counted.
        timeout: seconds for all of it, under emulation.

    Raises:
        BadInput: not a .tflite, an unknown core, an emulation that is not set up, that fails or that takes too long, a file
            that does not take that size.
    """
    for name, value in (("height", height), ("width", width), ("passes", passes)):
        if value < 1:
            raise BadInput(f"expected {name} of 1 or more, found {value}: give a positive number.")
    model, metadata = core_named(core), read_tflite(path)
    machine = Machine(model)
    with tempfile.TemporaryDirectory() as folder:
        marks = Path(folder) / "marks"
        program = [str(PROGRAM), str(path.resolve()), str(height), str(width), str(passes + 1)]
        try:
            done = subprocess.run(
                machine.command(*program, counted=marks), env=machine.environment, cwd=folder,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, timeout=timeout,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise BadInput(
                f"expected {passes + 1} passes of {path} on an emulated {core} within {timeout:g} s, found that they take "
                "longer: use a smaller image, or a longer --timeout."
            ) from error
        at = [int(line) for line in marks.read_text().split()] if marks.exists() else []
    if done.returncode == REFUSED:
        said = (done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"])[-1]
        raise BadInput(
            f"expected a .tflite that takes images of {width}x{height} pixels, found that LiteRT refuses {path} "
            f"({said[:200]}): use a size that it was exported for."
        )
    if done.returncode or len(at) != passes + 3:
        raise BadInput(
            f"expected {path} to run on an emulated {core}, found its process {how_it_ended(done.returncode, done.stderr)}: "
            "try another core, or a smaller image."
        )
    between = [after - before for before, after in itertools.pairwise(at)]
    counted = tuple(count - between[0] for count in between[2:])  # less the loop's own
    return Count(
        file=str(path), precision=metadata.precision if metadata else "unknown", core=core, machine=machine.label,
        height=height, width=width, instructions=round(statistics.median(counted)), passes=counted,
    )  # fmt: skip


def count(
    files: list[Path],
    *,
    height: int = 64,
    width: int = 64,
    core: Sequence[str] = CORES,
    passes: int = 3,
    timeout: float = 600,
    json: Path | None = None,
) -> None:
    """Counts the instructions that one pass of a .tflite takes on emulated ARM64 cores.

    A figure of cost that repeats to the last instruction; no time, for cores differ in how many instructions they finish at once.
    With several files each is held against the first. `make arm64` sets the emulation up.

    Args:
        files: .tflite files of one image each, ours or not.
        height: of the image.
        width: of the image.
        core: cores to emulate: cortex-a35, cortex-a53, cortex-a57, cortex-a72, cortex-a76, neoverse-n1.
        passes: to count, after a first one that is not counted.
        timeout: seconds for one file on one core, under emulation.
        json: write the counts there, too.
    """
    cores = list(dict.fromkeys(core))
    for name in cores:
        core_named(name)
    for file in files:
        read_tflite(file)
    check_writable(json)
    counts: list[Count] = []
    with progress("counting", len(files) * len(cores)) as update:
        for file in files:
            for name in cores:
                counts.append(instructions(file, name, height=height, width=width, passes=passes, timeout=timeout))
                update(len(counts), f"{file.name} on {name}")
    Console().print(_table(counts, cores))
    if json:
        write_text(json, json_format.dumps([dataclasses.asdict(one) for one in counts], indent=1) + "\n")


def _table(counts: list[Count], cores: list[str]) -> Table:
    """A row per file, a column per core: millions of instructions, and how they compare with the first file."""
    one = counts[0]
    versions = one.machine.partition("), ")[2]
    title = f"emulated ARM64 ({versions}): millions of instructions of one pass at {one.width}x{one.height}, one thread"
    table = Table(*(Column(name, overflow="fold") for name in ("file", "precision", *cores)), title=title)
    first = {count.core: count.instructions for count in reversed(counts) if count.file == one.file}
    for file in dict.fromkeys(count.file for count in counts):
        row = {count.core: count for count in counts if count.file == file}
        cells = [f"{row[core].instructions / 1e6:.3f} ({row[core].instructions / first[core]:.2f}x)" for core in cores]
        table.add_row(Path(file).name, row[cores[0]].precision, *cells)
    return table


if __name__ == "__main__":
    command_line(count)
