"""The report: one HTML page that needs no other file and no network."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from compress.errors import BadInput
from compress.files import write_text
from compress.logbook import most_detailed
from export.metadata import INTEGER
from runtime.engines.base import Image
from runtime.figures import Curve, data_uri, difference, heat_legend, heat_map, plot
from runtime.verdict import HEADINGS, MEBIBYTE, FileParity, ParityReport, table_rows

TEMPLATES = Path(__file__).parent / "templates"
CROP, ZOOM = 56, 4
HEAT_TOP = 8  # LSB of the brightest colour, unless differences are larger


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One version of the photograph.

    Attributes:
        name: such as 'bicubic' or 'student, int8'.
        image: (H, W, 3) uint8 RGB; all pictures of a report have one size.
        psnr: dB on Y against the ground truth, or None where there is none to compare with.
    """

    name: str
    image: Image
    psnr: float | None = None

    @property
    def caption(self) -> str:
        if self.psnr is None:
            return self.name
        return f"{self.name}, {'identical' if math.isinf(self.psnr) else f'{self.psnr:.2f} dB'}"


@dataclass(frozen=True, kw_only=True)
class ReportData:
    """What a report shows.

    Attributes:
        title: of the page.
        summary: what was done, in a sentence or two.
        parity: of the exported files; its verdicts head the page.
        photograph: name of the photograph that the pictures show.
        pictures: in the order of quality; the first (bicubic, say) is at the left of the slider.
        opposite: name of the picture at the right of the slider.
        floating, integer: the float and the int8 student's picture, for the heat map; None leaves it out.
        curves: of the training; none leaves the plot out.
        provenance: names and values: hashes, recipe, versions.
        protocol: how the figures were made, one sentence each.
    """

    title: str
    summary: str
    parity: ParityReport
    photograph: str
    pictures: Sequence[Picture]
    opposite: str
    floating: Image | None = None
    integer: Image | None = None
    curves: Sequence[Curve] = ()
    provenance: Mapping[str, str] = field(default_factory=dict)
    protocol: Sequence[str] = ()


def write_report(path: str | Path, data: ReportData) -> None:
    """Writes the page, atomically.

    Raises:
        BadInput: no pictures, pictures of several sizes, or an `opposite` that is not among them.
    """
    sizes = {picture.image.shape for picture in data.pictures}
    if len(sizes) != 1:
        found = ", ".join(map(str, sorted(sizes))) or "none"
        raise BadInput(f"expected pictures of one size for a report, found {found}: resize them first.")
    names = [picture.name for picture in data.pictures]
    if data.opposite not in names:
        raise BadInput(f"expected one of the pictures {', '.join(names)}, found {data.opposite!r}: name one of them.")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template("report.html.j2").render(_view(data)))


def _view(data: ReportData) -> dict[str, Any]:
    """What the template shows, in its order."""
    height, width = data.pictures[0].image.shape[:2]
    heat = _heat(data)
    return {
        "data": data,
        "tiles": _tiles(data.parity),
        "pictures": [(picture, data_uri(picture.image)) for picture in data.pictures],
        "height": height,
        "width": width,
        "strips": _strips(data, heat),
        "zoom": ZOOM,
        "crop": CROP,
        "heat": heat,
        "headings": HEADINGS,
        "rows": table_rows(data.parity),
        "latency_bars": _bars(data.parity),
        "lr_size": data.parity.pytorch.lr_size,
        "threads": data.parity.pytorch.threads,
        "plots": _plots(data.curves),
    }


def _plots(curves: Sequence[Curve]) -> list[tuple[str, str]]:
    """(description, SVG) per axis that has curves."""
    titles = {"loss": "Losses against the training step", "psnr": "Validation PSNR against the training step"}
    by_axis = {axis: [curve for curve in curves if curve.axis == axis] for axis in titles}
    return [(titles[axis], plot(of_axis)) for axis, of_axis in by_axis.items() if of_axis]


def _tiles(parity: ParityReport) -> list[tuple[str, str]]:
    """The few figures that matter, of the smallest int8 file, or else of the smallest file: (figure, meaning)."""
    integer = [file for file in parity.files if file.description.precision in INTEGER]
    best = min(integer or parity.files, key=lambda file: file.file_bytes)
    largest = max(parity.files, key=lambda file: file.file_bytes)
    tiles = [(f"{best.file_bytes / 1000:.0f} kB", f"{best.name} on disk{_ratio(largest, best)}")]
    agreement = best.agreement
    if best.description.precision in INTEGER:
        tiles.append(
            (f"{agreement.max_lsb:.0f} LSB", f"largest difference to PyTorch; {agreement.identical:.2%} identical")
        )
    else:
        same = "identical" if math.isinf(agreement.psnr) else f"{agreement.psnr:.0f} dB"
        tiles.append((same, "output against PyTorch's"))
    tiles.append((f"{round(best.loss, 2) + 0.0:.2f} dB", "lost against the float student, on ground truth"))
    if best.latency:
        height, width = best.latency.lr_size
        tiles.append((f"{best.latency.median:.1f} ms", f"median for {width}x{height} pixels in, on this machine"))
    if best.peak_bytes is not None:
        tiles.append((f"{best.peak_bytes / MEBIBYTE:.0f} MiB", "peak memory of that inference"))
    return tiles


def _ratio(largest: FileParity, best: FileParity) -> str:
    ratio = largest.file_bytes / best.file_bytes
    return f", {ratio:.1f} times smaller than {largest.name}" if ratio >= 1.1 else ""


def _bars(parity: ParityReport) -> list[tuple[str, float, str]]:
    """(name, share of the longest in percent, words) of every median latency."""
    named = [(file.name, file.latency.median) for file in parity.files if file.latency]
    named.append(("student in PyTorch", parity.pytorch.median))
    longest = max(value for _, value in named)
    return [(name, 100 * value / longest, f"{value:.2f} ms") for name, value in named]


def _heat(data: ReportData) -> dict[str, Any] | None:
    if data.floating is None or data.integer is None:
        return None
    values = difference(data.floating, data.integer)
    top = max(HEAT_TOP, int(np.percentile(values, 99.9)))
    shares = [(str(step), float(np.mean(values == step))) for step in range(4)]
    return {
        "image": heat_map(values, top),
        "uri": data_uri(heat_map(values, top)),
        "top": top,
        "legend": heat_legend(),
        "mean": float(values.mean()),
        "largest": int(values.max()),
        "shares": [*shares, ("4 or more", float(np.mean(values >= 4)))],
        "values": values,
    }


def _strips(data: ReportData, heat: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Crops of all pictures at one place each: where there is most detail, and where int8 differs most."""
    first = data.pictures[0].image
    side = min(CROP, *first.shape[:2])
    places = [("Where the LR photograph has most detail", *most_detailed(first, side))]
    if heat:
        top, left = np.unravel_index(int(heat["values"].argmax()), heat["values"].shape)
        corner = (_inside(int(top), side, first.shape[0]), _inside(int(left), side, first.shape[1]))
        places.append((f"Where int8 differs most from float ({heat['largest']} LSB)", *corner))
    strips = []
    for title, top, left in places:
        window = np.s_[top : top + side, left : left + side]
        crops = [(picture.name, data_uri(picture.image[window])) for picture in data.pictures]
        if heat:
            crops.append(("int8 against float", data_uri(heat["image"][window])))
        strips.append({"title": title, "left": left, "top": top, "side": side, "crops": crops})
    return strips


def _inside(centre: int, side: int, length: int) -> int:
    """Start of a window around `centre` that stays within 0..length."""
    return max(0, min(centre - side // 2, length - side))
