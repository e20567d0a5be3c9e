"""What the page's template shows, in its order."""

from collections.abc import Sequence
from typing import Any

from runtime.parity.results import ParityReport
from runtime.parity.verdict import HEADINGS, table_rows
from runtime.report.data import Comparison, Curve, Point, ReportData
from runtime.report.encoding import heat_legend, jpegs
from runtime.report.headline import headline, latency_bars, tiles
from runtime.report.plots import curve_plot, quality_plot
from runtime.report.scene_view import merged, scene_view

BUDGET = 2_600_000  # bytes of the large pictures of a page, encoded
ABREAST = 6  # columns of a table that a page shows without scrolling


def view(data: ReportData) -> dict[str, Any]:
    """Names and values for the template."""
    pictures = [merged(scene.pictures) for scene in data.scenes]
    uris = iter(jpegs([one.image for scene in pictures for one in scene], BUDGET))
    parity = data.parity
    return {
        "data": data,
        "passed": parity.passed,
        "headline": headline(parity),
        "verdicts": [
            *((file.passed, file.verdict()) for file in parity.files),
            *((False, one.verdict()) for one in parity.refused),
        ],
        "tiles": tiles(parity),
        "scenes": [
            scene_view(number, scene, shown, [next(uris) for _ in shown])
            for number, (scene, shown) in enumerate(zip(data.scenes, pictures, strict=True))
        ],
        "legend": heat_legend(),
        "comparison": _comparison(data.comparison),
        "table": _table(data.parity),
        "latency_bars": latency_bars(parity),
        "lr_size": parity.pytorch.lr_size,
        "threads": parity.pytorch.threads,
        "plots": _plots(data.curves),
    }


def _table(parity: ParityReport) -> list[tuple[str, ...]]:
    """The gate's table, head first; one column per file where that is the narrower way."""
    rows = [HEADINGS, *table_rows(parity)]
    return list(zip(*rows, strict=True)) if len(rows) <= ABREAST else rows


def _comparison(comparison: Comparison | None) -> dict[str, Any] | None:
    """The plots that have a point, and the same figures as a table for those who cannot see them."""
    if comparison is None or not comparison.points:
        return None
    timed = any(one.milliseconds is not None for one in comparison.points)
    ordered = sorted(comparison.points, key=lambda one: one.file_bytes)
    return {
        "size": quality_plot(comparison, "size"),
        "latency": quality_plot(comparison, "latency") if timed else None,
        "set": comparison.set_name,
        "note": comparison.note,
        "lr_size": comparison.lr_size,
        "threads": comparison.threads,
        "rows": [_cells(one) for one in ordered],
        "bicubic": f"{comparison.bicubic:.2f} dB",
    }


def _cells(point: Point) -> tuple[str, ...]:
    groups = {"here": "this page", "zoo": "zoo", "peer": "published"}
    return (
        point.name,
        groups[point.group],
        "int8" if point.integer else "float",
        f"{point.file_bytes / 1000:.1f} kB",
        "not run" if point.milliseconds is None else f"{point.milliseconds:.1f} ms",
        f"{point.psnr:.2f} dB",
    )


def _plots(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """(description, SVG) per axis that has curves."""
    titles = {"loss": "Losses against the training step", "psnr": "Validation PSNR against the training step"}
    by_axis = {axis: [curve for curve in curves if curve.axis == axis] for axis in titles}
    return [(titles[axis], curve_plot(of_axis)) for axis, of_axis in by_axis.items() if of_axis]
