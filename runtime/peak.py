"""Peak memory of one inference, in bytes, measured in a process of its own: `python -m runtime.peak FILE` is that process.

Linux keeps the highest resident size of a process (VmHWM) and sets it back when 5 is written to
/proc/self/clear_refs. The difference over opening the file, running one image and reading the result is what the model
costs the process, without Python itself: proc_pid_status(5), proc_pid_clear_refs(5). An engine that runs in a process of
its own is measured there, and what this one holds of the images is added. Repeats within some kilobytes, on a busy machine
within some hundred.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from compress.errors import BadInput, run_command
from runtime.engines import ENGINE_HELP, opener_of

PROCESSES, CLEAR_REFS = Path("/proc"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
KIBIBYTE = 1024
TIMEOUT = 600.0  # seconds


class NotLinux(BadInput):
    """Peak memory cannot be measured on this system."""


def peak_memory(
    path: str | Path, height: int, width: int, *, engine: str | None = None, threads: int = 1, timeout: float = TIMEOUT
) -> int:
    """Bytes by which one inference raises the peak resident memory of a fresh process.

    Args:
        path: a model file.
        height, width: of the LR image.
        engine, threads: see `runtime.engines.open_model`.
        timeout: seconds after which the measurement is given up.

    Raises:
        NotLinux: another system.
        BadInput: a file or size that cannot be run, or an inference that was killed or took too long.
    """
    _check_linux()
    options = ["--height", str(height), "--width", str(width), "--threads", str(threads)]
    options += ["--engine", engine] if engine else []
    command = [sys.executable, "-m", "runtime.peak", str(Path(path).absolute()), *options]  # a link's own suffix counts
    try:
        child = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, check=False, cwd=_root(), stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(
            f"expected one inference of {width}x{height} pixels within {timeout:.0f} s, found that {path} takes "
            "longer: measure a smaller image."
        ) from error
    if child.returncode == 2:
        raise BadInput(child.stderr.strip().splitlines()[-1].removeprefix("error: "))
    if child.returncode < 0:
        raise BadInput(
            f"expected {path} to run an image of {width}x{height} pixels, found its process killed by signal "
            f"{-child.returncode} (out of memory, most likely): measure a smaller image."
        )
    if child.returncode:
        raise RuntimeError(f"the measuring process failed:\n{child.stderr}")
    return int(child.stdout.split()[-1])


def measure_here(path: Path, height: int, width: int, *, engine: str | None, threads: int) -> int:
    """The measurement itself, which needs a process that has done nothing else."""
    try:
        lr = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    except MemoryError as error:
        raise BadInput(
            f"expected an image that fits into memory, found {width}x{height} pixels: measure a smaller image."
        ) from error
    opener = opener_of(path, engine)  # imports the engine, so that only the model is counted

    def infer() -> None:
        opener(path, threads).upscale(lr)

    return peak_raised_by(infer)


def peak_raised_by(work: Callable[[], object]) -> int:
    """Bytes by which `work` raises the peak resident memory of this process, which should have done nothing else.

    The peaks of processes that it has started before (TensorFlow's) are added, those that `work` starts are not.
    """
    processes = [Path("/proc/self"), *_started()]
    for process in processes:
        (process / CLEAR_REFS.name).write_text(RESET_PEAK)
    before = sum(map(_peak, processes))
    work()
    return sum(map(_peak, processes)) - before


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m runtime.peak", description="Prints bytes.")
    parser.add_argument("file", type=Path, help="a .tflite, .onnx, .pte or .param of this project, or a student.pt")
    parser.add_argument("--height", type=int, default=256, help="of the LR image, in pixels (default: 256)")
    parser.add_argument("--width", type=int, default=256, help="of the LR image, in pixels (default: 256)")
    parser.add_argument("--engine", help=f"{ENGINE_HELP}; default: what the file's suffix says")
    parser.add_argument("--threads", type=int, default=1, help="of the engine (default: 1)")
    given = parser.parse_args()
    _check_linux()
    if given.height < 1 or given.width < 1:
        raise BadInput(f"expected a size of at least 1x1 pixel, found {given.width}x{given.height}: use a larger one.")
    print(measure_here(given.file, given.height, given.width, engine=given.engine, threads=given.threads))


def _check_linux() -> None:
    if not CLEAR_REFS.exists():
        raise NotLinux(
            f"expected Linux, whose /proc/self/clear_refs the peak memory is read with, found {sys.platform}: "
            "measure on Linux, or on the phone with its own profiler."
        )


def _started() -> list[Path]:
    """The processes in /proc that this one has started and that run."""
    found = []
    for status in PROCESSES.glob("[0-9]*/status"):
        with contextlib.suppress(OSError, StopIteration):  # of processes that end meanwhile
            if _value(status, "PPid") == os.getpid() and _value(status, "VmHWM"):
                found.append(status.parent)
    return found


def _peak(process: Path) -> int:
    """VmHWM, the highest resident size since the last reset, in bytes."""
    return _value(process / "status", "VmHWM") * KIBIBYTE


def _value(status: Path, name: str) -> int:
    return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith(f"{name}:"))


def _root() -> Path:
    return Path(__file__).resolve().parents[1]


if __name__ == "__main__":
    run_command(main)
