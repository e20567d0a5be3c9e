"""Plots as inline SVG whose text is text and whose colours are the page's, so that they suit a light and a dark scheme."""

import io
import itertools
import re
from collections.abc import Callable, Sequence
from typing import Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from runtime.report.data import Comparison, Curve, Point
from runtime.report.placing import place_labels

# Drawn in colours that nothing else has, each of which becomes a variable of the page's style.
INK, SOFT, FRAME, HERE, ZOO, PEER = "#010101", "#020202", "#030303", "#040404", "#050505", "#060606"
LINES = ("#0a0a0a", "#0b0b0b", "#0c0c0c", "#0d0d0d")
VARIABLES = {
    INK: "var(--ink)", SOFT: "var(--soft)", FRAME: "var(--line)", HERE: "var(--here)", ZOO: "var(--zoo)",
    PEER: "var(--peer)", **{line: f"var(--line-{i})" for i, line in enumerate(LINES, 1)},
}  # fmt: skip
GROUPS = {"here": (HERE, "this page's files", 4), "zoo": (ZOO, "the zoo", 3), "peer": (PEER, "published networks", 2)}
WIDE, SMALL = (10.4, 5.2), (5.8, 4.0)  # inches at 72 points
TEXT = 11
SMALLEST_SPAN = 0.1  # of a PSNR axis, in dB
FEW_POINTS = 12  # of a line, below which they are marked
AS_WRITTEN = {"text.parse_math": False}  # a file's name may have dollar signs
Against = Literal["size", "latency"]


@matplotlib.rc_context(AS_WRITTEN)
def quality_plot(comparison: Comparison, against: Against) -> str:
    """PSNR against the size or the latency of every file, on a logarithmic axis, with bicubic as a line."""
    points = [one for one in comparison.points if against == "size" or one.milliseconds is not None]
    figure, axes = new_figure(WIDE)
    axes.set_xscale("log")
    axes.axhline(comparison.bicubic, color=SOFT, linewidth=1, linestyle=(0, (4, 3)))
    for group, integer in itertools.product(GROUPS, (True, False)):
        chosen = [one for one in points if one.group == group and one.integer == integer]
        if chosen:
            colour, words, order = GROUPS[group]
            x, y = [_x(one, against) for one in chosen], [one.psnr for one in chosen]
            axes.scatter(
                x, y, s=52, marker="o" if integer else "s", zorder=order, linewidths=1.6, edgecolors=colour,
                facecolors=colour if group == "here" else "none",
                label=f"{words}, {'int8' if integer else 'float'}",
            )  # fmt: skip
    axes.set_xlabel("size of the file" if against == "size" else "latency of one inference", color=SOFT)
    axes.set_ylabel(f"PSNR on Y, {comparison.set_name}, dB", color=SOFT)
    _ticks(axes.xaxis, _bytes if against == "size" else _milliseconds)
    axes.margins(x=0.14, y=0.1)
    axes.legend(
        frameon=False, labelcolor=SOFT, fontsize=TEXT - 1, loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=3
    )
    figure.draw_without_rendering()
    left = axes.get_xlim()[0]
    axes.annotate(
        f"bicubic, {comparison.bicubic:.2f} dB", (left, comparison.bicubic), (5, 4), textcoords="offset points",
        color=SOFT, fontsize=TEXT - 1,
    )  # fmt: skip
    ours = sorted(points, key=lambda one: GROUPS[one.group][2], reverse=True)
    place_labels(axes, [(one.name, _x(one, against), one.psnr, INK if one.group == "here" else SOFT) for one in ours])
    return _svg(figure, f"quality-{against}")


@matplotlib.rc_context(AS_WRITTEN)
def curve_plot(curves: Sequence[Curve]) -> str:
    """Curves of one axis against the training step."""
    logarithmic = curves[0].axis == "loss"
    figure, axes = new_figure(SMALL)
    for curve, colour in zip(curves, itertools.cycle(LINES), strict=False):
        marker = "o" if len(curve.steps) < FEW_POINTS else ""
        axes.plot(curve.steps, curve.values, label=curve.name, color=colour, marker=marker, linewidth=1.8)
    axes.set_xlabel("step", color=SOFT)
    axes.set_ylabel("loss" if logarithmic else "PSNR on Y, dB", color=SOFT)
    if logarithmic:
        axes.set_yscale("log")
        _ticks(axes.yaxis, lambda value: f"{value:g}")
    else:
        axes.ticklabel_format(useOffset=False)
        low, high = axes.get_ylim()
        if high - low < SMALLEST_SPAN:  # thousandths of a dB must not look like a cliff
            axes.set_ylim((low + high - SMALLEST_SPAN) / 2, (low + high + SMALLEST_SPAN) / 2)
    axes.legend(frameon=False, labelcolor=SOFT)
    return _svg(figure, f"curves-{curves[0].axis}")


def new_figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A transparent figure of a size in inches, and its axes."""
    figure = Figure(figsize=size, dpi=72, layout="constrained")
    figure.patch.set_alpha(0)
    axes = figure.subplots()
    axes.patch.set_alpha(0)
    axes.grid(color=FRAME, linewidth=0.8, which="major")
    axes.set_axisbelow(True)
    axes.tick_params(colors=SOFT, which="both", labelsize=TEXT)
    for side, spine in axes.spines.items():
        spine.set(color=SOFT, visible=side in ("left", "bottom"))
    return figure, axes


def _ticks(axis: Axis, words: Callable[[float], str]) -> None:
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: words(value)))
    axis.set_minor_formatter(NullFormatter())


def _x(point: Point, against: Against) -> float:
    if against == "size":
        return point.file_bytes
    assert point.milliseconds is not None
    return point.milliseconds


def _bytes(value: float) -> str:
    return f"{value / 1e6:g} MB" if value >= 1e6 else f"{value / 1e3:g} kB"


def _milliseconds(value: float) -> str:
    return f"{value / 1e3:g} s" if value >= 1e3 else f"{value:g} ms"


def _svg(figure: Figure, name: str) -> str:
    """The <svg> element, its ids made from `name`, its colours replaced by the page's, its font by the page's."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": f"pocketsr-{name}", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    named = set(re.findall(r"#([\w.-]+)", svg))  # names of groups that nothing refers to are the same in every plot
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in named else "", svg)
    svg = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1system-ui, sans-serif", svg)
    width, height = 72 * figure.get_size_inches()
    size = f'viewBox="0 0 {width:g} {height:g}" aria-hidden="true" focusable="false" class="plot"'
    return re.sub(r"<svg[^>]*>", f'<svg xmlns:xlink="http://www.w3.org/1999/xlink" {size}>', svg, count=1)
