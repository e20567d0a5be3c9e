"""Images/s of the training loop, data pipeline included, beside others in one run.

`python -m benchmarks.train [--data FOLDER] [--quick] [--out runs/bench]`

- the same network, batch and precision in a plain PyTorch loop (`benchmarks.plain_loop`), with 0 and with 2 loader processes;
- two processes of one thread under torchrun, against one process of one thread and one of two;
- BasicSR, where it can be installed.

Every figure comes from the real command in a process of its own, without its first 50 steps. The contestants take turns,
and the ratio is that of the medians, so that a busy machine slows all of them.
"""

import csv
import json
import os
import socket
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from rich.console import Console
from rich.table import Table

from benchmarks.plain_loop import WARM
from compress.cli import command_line
from compress.data.bicubic import crop_to_multiple, imresize
from compress.data.images import find_images, read_image
from compress.data.sources import DEFAULT_SOURCE, skimage_photographs
from compress.errors import BadInput
from compress.files import write_text

SCALE = 4
NETWORKS: dict[str, dict[str, Any]] = {
    "anchor 24x8": {"architecture": "anchor", "options": {"scale": SCALE, "channels": 24, "blocks": 8},
                    "lr_patch": 32, "batch": 16},
    "SRResNet B=4 64 ch": {"architecture": "srresnet", "options": {"scale": SCALE, "blocks": 4}, "lr_patch": 16, "batch": 8},
}  # fmt: skip
QUICK: dict[str, dict[str, Any]] = {
    "anchor 8x2": {"architecture": "anchor", "options": {"scale": SCALE, "channels": 8, "blocks": 2}, "lr_patch": 16, "batch": 4},
}  # fmt: skip
BASICSR = Path("build/basicsr")
Row = dict[str, Any]
Contestants = dict[str, Callable[[], float]]


def main(
    *,
    data: str = DEFAULT_SOURCE,
    quick: bool = False,
    rounds: int = 3,
    steps: int = 50,
    basicsr: bool = True,
    out: Path = Path("runs/bench"),
) -> None:
    """Measures the training loop.

    Args:
        data: folder of images, or 'skimage'.
        quick: one tiny network, one round.
        rounds: in which the contestants take turns.
        steps: measured ones of each training, a multiple of 50.
        basicsr: try to install and run BasicSR.
        out: folder for train.json.
    """
    if steps < WARM or steps % WARM:
        raise BadInput(f"expected --steps as a multiple of {WARM}, found {steps}: our log has a row every {WARM}.")
    networks, rounds = (QUICK, 1) if quick else (NETWORKS, rounds)
    work = out / "train"
    write_pngs(data, work / "data")
    bf16 = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else torch.cpu._is_avx512_bf16_supported()
    rows: list[Row] = []
    for name, network in networks.items():
        settings = Settings(network, work, steps, bf16)
        rows += compare(name, settings.loops(), rounds)
        if name == next(iter(networks)):
            rows += compare(f"{name}, scaling", settings.processes(), rounds)
    if basicsr:
        rows.append({"what": "BasicSR", "who": why_no_basicsr(), "images/s": None, "ratio": None, "rounds": 0})
    write_text(out / "train.json", json.dumps(rows, indent=1))
    show(rows, f"{'bfloat16' if bf16 else 'float32'}, {os.cpu_count()} cores, {steps} steps, {rounds} round(s)")


class Settings:
    """One network's contestants: each a function that trains and returns images/s.

    Args:
        network: architecture, options, lr_patch, batch.
        work: folder with data/.
        steps: measured ones.
        bf16: precision.
    """

    def __init__(self, network: dict[str, Any], work: Path, steps: int, bf16: bool):
        self.network, self.work, self.steps, self.bf16 = network, work, WARM + steps, bf16

    def loops(self) -> Contestants:
        """Ours with the workers it chooses, and the plain one; every core is theirs."""
        return {
            "ours": self.ours,
            "plain loop, 0 workers": lambda: self.plain(0),
            "plain loop, 2 workers": lambda: self.plain(2),
        }

    def processes(self) -> Contestants:
        """Ours in one and two processes."""
        return {
            "1 process, 1 thread": lambda: self.ours(threads=1),
            "1 process, 2 threads": lambda: self.ours(threads=2),
            "2 processes, 1 thread each": lambda: self.ours(processes=2, threads=1),
        }

    def ours(self, processes: int = 1, threads: int | None = None) -> float:
        """The mean speed in the log of `python -m compress.train`, without its first row."""
        network, run = self.network, self.work / "run"
        recipe = {
            "model": {"architecture": network["architecture"], "options": network["options"]},
            "data": {"folder": str(self.work / "data" / "HR"), "lr_patch": network["lr_patch"], "batch": network["batch"]},
            "schedule": {"steps": self.steps, "learning_rate": 1e-4, "ema": 0, "clip_norm": 0},
            "validation": {"sets": []},
            "precision": "bf16" if self.bf16 else "float32",
            "save_every": self.steps,
        }  # fmt: skip
        write_text(self.work / "recipe.yaml", yaml.safe_dump(recipe))
        for old in run.glob("*"):
            old.unlink()
        torchrun = ["torch.distributed.run", f"--nproc_per_node={processes}", "--master_addr=127.0.0.1",
                    f"--master_port={_free_port()}", "-m"]  # fmt: skip
        _run(
            *(torchrun if processes > 1 else []),
            "compress.train",
            self.work / "recipe.yaml",
            "--out",
            run,
            threads=threads,
        )
        with (run / "log.csv").open(newline="") as file:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
        return statistics.harmonic_mean(speeds[1:])  # windows of equally many images

    def plain(self, workers: int) -> float:
        """The speed that the plain loop prints."""
        network = self.network
        printed = _run(
            "benchmarks.plain_loop", self.work / "data", "--architecture", network["architecture"], "--options",
            json.dumps(network["options"]), "--lr_patch", network["lr_patch"], "--batch", network["batch"],
            "--steps", self.steps, "--workers", workers, *(["--bf16"] if self.bf16 else []),
        )  # fmt: skip
        return float(printed.split()[-1])


def compare(what: str, contestants: Contestants, rounds: int) -> list[Row]:
    """Lets the contestants take turns; a row for each, with its ratio to the first."""
    speeds: dict[str, list[float]] = {who: [] for who in contestants}
    for _ in range(rounds):
        for who, measured in contestants.items():
            speeds[who].append(measured())
            print(f"{what}: {who} {speeds[who][-1]:.1f} images/s", file=sys.stderr, flush=True)
    medians = {who: statistics.median(found) for who, found in speeds.items()}
    first = next(iter(medians.values()))
    return [
        {"what": what, "who": who, "images/s": median, "ratio": median / first, "rounds": rounds}
        for who, median in medians.items()
    ]


def write_pngs(data: str, folder: Path) -> None:
    """The images as pairs of PNG files, HR/ and LR/, which is what plain loops read."""
    paths = skimage_photographs("train") if data == DEFAULT_SOURCE else find_images(data)
    for kind in ("HR", "LR"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for old in (folder / kind).iterdir():
            old.unlink()
    for path in paths:
        hr = crop_to_multiple(read_image(path), SCALE)
        if min(hr.shape[:2]) >= 32 * SCALE:
            Image.fromarray(hr).save(folder / "HR" / f"{path.stem}.png")
            Image.fromarray(imresize(hr, 1 / SCALE)).save(folder / "LR" / f"{path.stem}.png")


def why_no_basicsr() -> str:
    """Installs BasicSR beside our torch in an environment of its own and imports its training; what came of it."""
    python = BASICSR / "bin" / "python"
    if not python.is_file():
        venv.create(BASICSR, with_pip=True)
        (site,) = BASICSR.glob("lib/python*/site-packages")
        write_text(site / "ours.pth", "\n".join(path for path in sys.path if path.endswith("site-packages")) + "\n")
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    commands = {  # its build asks for all of torch in an environment of its own, so it is built in this one
        "prepared": [*pip, "setuptools>=70.1,<81", "wheel", "cython"],
        "installed": [*pip, "--no-build-isolation", "basicsr"],
        "imported": [python, "-c", "import basicsr.train"],
    }
    for what, command in commands.items():
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
        if done.returncode:
            lines = [line for line in done.stderr.splitlines() if "error" in line.lower()] or [
                f"exit code {done.returncode}"
            ]
            return f"cannot be {what}: {lines[-1].strip()}"
    return "can be imported with this torchvision: not measured"


def _run(*arguments: object, threads: int | None = None) -> str:
    chosen = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    kept = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], env=kept | chosen, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{arguments[0]} failed: {done.stderr[-2000:]}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def show(rows: list[Row], title: str) -> None:
    """Prints the table."""
    table = Table(title=title)
    for column in rows[0]:
        table.add_column(column, justify="left" if column in ("what", "who") else "right")
    for row in rows:
        table.add_row(
            *("-" if cell is None else f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row.values())
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    command_line(main)
