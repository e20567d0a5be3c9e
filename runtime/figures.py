"""Pictures and plots of a report, as data URIs that need no other file."""

import base64
import io
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Pillow

from runtime.engines.base import Image

COLOURS = "magma"
NEUTRAL = "#808890"  # readable on white and on black
SMALLEST_SPAN = 0.1  # of a PSNR axis, in dB
FEW_POINTS = 12  # of a line, below which they are marked
LINES = ("#3b82f6", "#d97706", "#059669", "#9333ea")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """One line of a plot.

    Attributes:
        name: for the legend.
        axis: 'loss' (logarithmic) or 'psnr' (dB).
        steps, values: of equal length.
    """

    name: str
    axis: str
    steps: Sequence[int]
    values: Sequence[float]


def data_uri(image: Image) -> str:
    """(H, W, 3) uint8 as a lossless PNG."""
    buffer = io.BytesIO()
    Pillow.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def difference(a: Image, b: Image) -> NDArray[np.int16]:
    """Largest absolute difference over the channels, per pixel, in steps of 1/255: (H, W)."""
    return np.abs(a.astype(np.int16) - b.astype(np.int16)).max(axis=2)


def heat_map(values: NDArray[np.int16], top: int) -> Image:
    """(H, W) values as colours of `COLOURS`; 0 is the darkest, `top` and above the brightest."""
    colours = matplotlib.colormaps[COLOURS](np.clip(values / top, 0, 1), bytes=True)
    return np.ascontiguousarray(colours[..., :3])


def heat_legend(steps: int = 9) -> str:
    """The colours of `heat_map` from 0 to its top, as CSS colour stops."""
    stops = matplotlib.colormaps[COLOURS](np.linspace(0, 1, steps), bytes=True)[:, :3]
    return ", ".join(f"rgb({r} {g} {b})" for r, g, b in stops.tolist())


def plot(curves: Sequence[Curve]) -> str:
    """Curves of one axis against the step, as an SVG that suits light and dark pages."""
    logarithmic = curves[0].axis == "loss"
    with matplotlib.rc_context({"svg.hashsalt": "pocketsr", "font.size": 10}):
        figure = Figure(figsize=(4.8, 3.2), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots()
        for curve, colour in zip(curves, itertools.cycle(LINES), strict=False):
            marker = "o" if len(curve.steps) < FEW_POINTS else ""
            axes.plot(curve.steps, curve.values, label=curve.name, color=colour, marker=marker, linewidth=1.8)
        axes.set_xlabel("step", color=NEUTRAL)
        axes.set_ylabel("loss" if logarithmic else "PSNR on Y, dB", color=NEUTRAL)
        if logarithmic:
            axes.set_yscale("log")
        else:
            axes.ticklabel_format(useOffset=False)
            low, high = axes.get_ylim()
            if high - low < SMALLEST_SPAN:  # thousandths of a dB must not look like a cliff
                axes.set_ylim((low + high - SMALLEST_SPAN) / 2, (low + high + SMALLEST_SPAN) / 2)
        axes.patch.set_alpha(0)
        axes.grid(alpha=0.25, color=NEUTRAL)
        axes.tick_params(colors=NEUTRAL, which="both")
        for side, spine in axes.spines.items():
            spine.set(color=NEUTRAL, visible=side in ("left", "bottom"))
        axes.legend(frameon=False, labelcolor=NEUTRAL)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()
