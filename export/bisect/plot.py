"""The error of every layer as a picture."""

from pathlib import Path

from compress.files import written_atomically
from export.bisect.compare import Comparison, Layer

RIGHT, WRONG, AFTER = "#4c78a8", "#d62728", "#e6a0a0"
TALLEST = 1e6  # of a bar: a value of the wrong shape has an infinite error


def plot(comparison: Comparison, title: str, path: Path) -> None:
    """Writes a PNG: a bar for each layer in order, on a logarithmic axis, the tolerance as a line, the culprit in red."""
    from matplotlib.figure import Figure

    layers, culprit = comparison.layers, comparison.culprit
    width = max(6.0, 0.28 * len(layers) + 1.5)
    figure = Figure(figsize=(width, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    heights = [min(layer.error, TALLEST) for layer in layers]
    bottom = min([comparison.tolerance or TALLEST, *(height for height in heights if height > 0)]) / 30
    axes.bar(range(len(layers)), heights, color=[_colour(layer, culprit) for layer in layers])
    for at, height in enumerate(heights):
        if not height:  # has no place on a logarithmic axis
            axes.text(at, bottom * 1.3, "0", ha="center", fontsize=8, color=RIGHT)
    axes.axhline(
        comparison.tolerance, color="black", linewidth=1, linestyle="--", label=f"tolerance {comparison.tolerance:g}"
    )
    axes.set_yscale("log")
    axes.set_ylim(bottom, max(max(heights, default=1), comparison.tolerance) * 10)
    axes.set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=90, fontsize=8)
    units = sorted({layer.unit for layer in layers})
    axes.set_ylabel(
        "error of the worst channel, " + " or ".join("LSB" if u == "LSB" else "share of range" for u in units)
    )
    axes.set_title(title, fontsize=9)
    if culprit:
        at = layers.index(culprit)
        axes.annotate(
            f"first: {culprit.name}", (at, max(heights[at], bottom * 3)), xytext=(0, 6), textcoords="offset points", ha="center",
            fontsize=9, color=WRONG,
        )  # fmt: skip
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    with written_atomically(path) as part:
        figure.savefig(part, format="png")


def _colour(layer: Layer, culprit: Layer | None) -> str:
    return WRONG if layer is culprit else AFTER if layer.left else RIGHT
