"""A folder's upscale, killed at random times: does it come out as if nothing had happened?

`python -m benchmarks.kill_upscale [--kills 100] [--jobs 2]`

Photographs of several kinds are upscaled once undisturbed. Then the same command is started into an empty folder again and
again, each time killed (SIGKILL to it and all its processes) at a moment drawn from the length of the undisturbed run,
until one start ends by itself; then again from an empty folder, until all kills are spent. After every kill, each file
under the name of a result must be that result, byte for byte; at the end of each round there must be all results and
nothing else. Exits with 1 otherwise.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from compress.cli import command_line
from compress.data.sources import skimage_photographs
from compress.errors import BadInput
from compress.progress import progress
from runtime.upscale.journal import NAME

MODEL = Path("zoo/anchor_x4_int8.tflite")
SIDE = 128


@dataclass
class Kills:
    """What came of them.

    Attributes:
        kills: runs that were ended by one.
        rounds: folders that were finished in spite of them.
        seconds: of the undisturbed run.
        unfinished: kills that left an unfinished file for the next start to clear away.
        faults: what was not as it should be, in words.
    """

    kills: int
    rounds: int
    seconds: float
    unfinished: int
    faults: list[str]


def main(*, kills: int = 100, jobs: int = 2, model: Path = MODEL, seed: int = 0) -> int:
    """Kills a folder's upscale at random and compares the result with an undisturbed one.

    Args:
        kills: how many.
        jobs: processes of the upscale.
        model: of the upscale.
        seed: of the moments.
    """
    with tempfile.TemporaryDirectory() as folder:
        photographs = make_photographs(Path(folder) / "photographs")
        found = kill_at_random(photographs, Path(folder), model, kills=kills, jobs=jobs, seed=seed)
    print(
        f"{found.kills} kills within {found.seconds:.1f} s each, {found.unfinished} in the middle of a file; "
        f"{found.rounds} folders finished, {len(found.faults)} faults"
    )
    for fault in found.faults:
        print(f"fault: {fault}", file=sys.stderr)
    return 1 if found.faults else 0


def make_photographs(folder: Path) -> Path:
    """Crops of sample photographs in a tree of folders, of several kinds and formats."""
    saves = {
        "a.png": "RGB",
        "b.jpg": "RGB",
        "deep/c.png": "RGBA",
        "deep/d.png": "P",
        "deep/er/e.jpg": "L",
        "f.webp": "RGB",
    }
    for (name, mode), source in zip(saves.items(), skimage_photographs("train"), strict=False):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(source) as picture:
            crop = picture.convert("RGB").crop((100, 100, 100 + SIDE, 100 + SIDE))
        if mode == "RGBA":
            crop.putalpha(Image.linear_gradient("L").resize(crop.size))
        crop.convert(mode).save(path)
    return folder


def kill_at_random(photographs: Path, scratch: Path, model: Path, *, kills: int, jobs: int, seed: int) -> Kills:
    """Does what the top of this file says, in folders below `scratch`.

    Raises:
        BadInput: the undisturbed run fails.
    """
    draw = random.Random(seed)
    calm, out = scratch / "undisturbed", scratch / "killed"
    command = [sys.executable, "-m", "runtime.upscale", str(photographs), "--model", str(model), "--jobs", str(jobs)]
    start = time.monotonic()
    done = subprocess.run([*command, "--out", str(calm)], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    if done.returncode:
        raise BadInput(f"expected an undisturbed run that ends well, found: {done.stderr.strip()}")
    expected = _results(calm)
    result = Kills(0, 0, seconds, 0, [])
    with progress("kills", kills) as update:
        while result.kills < kills or out.exists():
            ended = _life([*command, "--out", str(out)], draw.uniform(0, seconds) if result.kills < kills else None)
            found = _results(out) if out.exists() else {}
            result.faults += _wrong(found, expected, whole=ended)
            if ended:
                shutil.rmtree(out)
                result.rounds += 1
            else:
                result.kills += 1
                result.unfinished += any(".part." in name for name in found)
            update(result.kills, f"{result.rounds} finished")
    return result


def _life(command: list[str], seconds: float | None) -> bool:
    """Runs a command for so long, then kills it and all that it has started; True where it ended before that.

    Waits until its standard output is closed, so until all that it has started has ended, too.
    """
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return False
    if process.returncode:
        raise BadInput(
            f"expected a run that ends well or is killed, found exit code {process.returncode}: run it by hand."
        )
    return True


def _results(folder: Path) -> dict[str, bytes]:
    """All files below a folder but the journal, by name."""
    files = [file for file in folder.rglob("*") if file.is_file() and NAME not in file.name]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _wrong(found: dict[str, bytes], expected: dict[str, bytes], *, whole: bool) -> list[str]:
    faults = [f"{name} differs" for name in expected.keys() & found.keys() if found[name] != expected[name]]
    if whole:
        faults += [f"{name} is missing" for name in expected.keys() - found.keys()]
        faults += [f"{name} was left behind" for name in found.keys() - expected.keys()]
    return faults


if __name__ == "__main__":
    command_line(main)
