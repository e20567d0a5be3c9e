"""What a run leaves to look at: a CSV of losses and PSNR, a plot of it, and a strip of sample crops."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from compress.files import write_text, written_atomically

Row = dict[str, str]
CROP = 96
ZOOM = 2


class Logbook:
    """Rows of `log.csv`, one per logged step, kept in memory and rewritten atomically.

    Args:
        path: of the CSV.
        last_step: rows after it belong to steps that a kill undid; they are dropped.
    """

    def __init__(self, path: Path, last_step: int):
        self.path = path
        self.rows: list[Row] = []
        if path.exists():
            with path.open(newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= last_step]

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Adds a row, or columns to the row of the same step."""
        row = {name: f"{value:.6g}" for name, value in values.items()}
        if self.rows and self.rows[-1]["step"] == str(step):
            self.rows[-1].update(row)
        else:
            self.rows.append({"step": str(step), **row})

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Steps and values of one column, where it has a value."""
        present = [row for row in self.rows if row.get(name)]
        return [int(row["step"]) for row in present], [float(row[name]) for row in present]

    def write(self) -> None:
        """Writes all rows."""
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        lines = [",".join(names)] + [",".join(row.get(name, "") for name in names) for row in self.rows]
        write_text(self.path, "\n".join(lines) + "\n")

    def plot(self, path: Path) -> None:
        """Draws the losses and every PSNR column against the step, as a PNG."""
        from matplotlib.figure import Figure

        figure = Figure(figsize=(9, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2)
        names = dict.fromkeys(name for row in self.rows for name in row)
        for name in names:
            axes = left if name.startswith("loss") else right if name.startswith("psnr") else None
            if axes is not None:
                axes.plot(*self.column(name), label=name.partition("_")[2] or "sum", marker="" if axes is left else "o")
        left.set(xlabel="step", ylabel="loss", yscale="log")
        right.set(xlabel="step", ylabel="PSNR on Y, dB")
        for axes in (left, right):
            axes.grid(alpha=0.3)
            if axes.lines:
                axes.legend()
        with written_atomically(path) as part:
            figure.savefig(part, dpi=110, format="png")


def save_strip(path: Path, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
    """Writes the same crop of several pictures side by side, with captions, as a PNG.

    Args:
        pictures: (H, W, 3) of one size each, by caption; the crop is where the last has most detail. End with the
            bicubic one: its detail is what an upscaler has to go by, where the truth's may be hair and noise.
    """
    *_, last = pictures.values()
    top, left = most_detailed(last, CROP)
    strip = Image.new("RGB", (len(pictures) * (CROP * ZOOM + 4), CROP * ZOOM + 18), "white")
    draw = ImageDraw.Draw(strip)
    for i, (caption, picture) in enumerate(pictures.items()):
        crop = Image.fromarray(np.ascontiguousarray(picture[top : top + CROP, left : left + CROP]))
        x = i * (CROP * ZOOM + 4)
        strip.paste(crop.resize((crop.width * ZOOM, crop.height * ZOOM), Image.Resampling.NEAREST), (x, 18))
        draw.text((x + 2, 3), caption, fill="black")
    with written_atomically(path) as part:
        strip.save(part, format="PNG")


def most_detailed(picture: NDArray[np.uint8], side: int) -> tuple[int, int]:
    """Top and left of the square window with the highest mean gradient, on a grid of a quarter of its side."""
    grey = picture.astype(np.float32).mean(axis=2)
    gradient = np.abs(np.diff(grey, axis=0))[:, :-1] + np.abs(np.diff(grey, axis=1))[:-1]
    best = (-1.0, 0, 0)
    for top in range(0, max(1, grey.shape[0] - side), side // 4):
        for left in range(0, max(1, grey.shape[1] - side), side // 4):
            best = max(best, (float(gradient[top : top + side, left : left + side].mean()), top, left))
    return best[1], best[2]
