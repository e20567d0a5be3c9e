"""Labels beside the points of a plot, where they cover neither each other nor a point as far as there is room."""

from collections.abc import Iterator, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

TEXT = 10
LINE = 1.15 * TEXT  # points that a line takes
GAP = 7  # points between a point and its label
MARK = 5  # half the width of a point
FAR = 2 * LINE  # above or below, from where a thin line leads to the point
TOUCHING = 40  # square points that the least overlap counts besides its area
ORDERS = 40  # in which labels are placed, of which the best is kept
ROUNDS = 8  # of looking again; most need two or three
LONGEST = 34  # characters of a label
Labelled = tuple[str, float, float, str]
Floats = NDArray[np.float64]


def place_labels(axes: Axes, points: Sequence[Labelled]) -> None:
    """Writes the label of each (label, x, y, colour). The figure has been laid out before.

    Every label has places right, left, above, below and further out. It takes the one where it and its line cover least,
    then each looks again, now that it knows the others, until none moves; of several orders, always the same ones, the best
    end is kept. Widths are those of DejaVu Sans, the widest of the fonts that a browser is likely to take.
    """
    if not points:
        return
    names = [shortened(label) for label, *_ in points]
    spots = np.array([axes.transData.transform((x, y)) for _, x, y, _ in points])
    offsets = [np.array(list(_offsets(_width(name)))) for name in names]
    corners = np.concatenate([spot + one for spot, one in zip(spots, offsets, strict=True)])
    label = np.repeat(np.arange(len(points)), [len(one) for one in offsets])
    widths = np.array([_width(name) for name in names])[label]
    boxes = np.column_stack([corners, corners[:, 0] + widths, corners[:, 1] + LINE])
    frame = np.array(axes.get_window_extent().extents)
    for number, place in enumerate(_chosen(boxes, spots, label, frame)):
        name, (_, x, y, colour) = names[number], points[number]
        (left, low, right, _), at = boxes[place], spots[number]
        ends, edge = ("right", right) if right <= at[0] else ("left", left)
        if left < at[0] < right:
            ends, edge = "center", (left + right) / 2
        led = abs(low + LINE / 2 - at[1]) > FAR
        axes.annotate(
            name, (x, y), (edge - at[0], low - at[1]), textcoords="offset points", ha=ends, va="bottom", color=colour,
            fontsize=TEXT, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 4} if led else None,
        )  # fmt: skip


def shortened(label: str) -> str:
    """A label of `LONGEST` characters at most: its two ends, which tell files apart."""
    if len(label) <= LONGEST:
        return label
    kept = LONGEST - 1
    return f"{label[: kept // 2]}…{label[-(kept - kept // 2) :]}"


def _chosen(boxes: Floats, spots: Floats, label: NDArray[np.int64], frame: Floats) -> list[int]:
    """For every label the index of its place among `boxes`, rows of left, low, right and high; `label` says whose they are."""
    alone, together = _costs(boxes, spots, label, frame)
    places = [np.flatnonzero(label == number) for number in range(len(spots))]
    chance, best, least = np.random.default_rng(0), [0], np.inf
    for turn in range(ORDERS):
        order = chance.permutation(len(spots)) if turn else np.arange(len(spots))
        now: dict[int, int] = {}
        for _ in range(ROUNDS):
            before = dict(now)
            for number in order.tolist():
                others = [place for other, place in now.items() if other != number]
                costs = alone[places[number]] + together[np.ix_(places[number], others)].sum(1)
                now[number] = int(places[number][costs.argmin()])
            if now == before:
                break
        found = [now[number] for number in range(len(spots))]
        cost = alone[found].sum() + together[np.ix_(found, found)].sum() / 2
        if cost < least - 1e-6:
            best, least = found, cost
    return best


def _costs(boxes: Floats, spots: Floats, label: NDArray[np.int64], frame: Floats) -> tuple[Floats, Floats]:
    """What a place costs by itself, and with each other place, in square points."""
    starts, middles = spots[label], (boxes[:, :2] + boxes[:, 2:]) / 2
    led = np.abs(middles[:, 1] - starts[:, 1]) > FAR
    marks = np.column_stack([spots - MARK, spots + MARK])
    of_others = label[:, None] != np.arange(len(spots))
    on_marks = _shared(boxes, marks) + LINE * led[:, None] * of_others * _through(starts, middles, marks)
    outside = (boxes[:, 2] - boxes[:, 0]) * LINE - _shared(boxes, frame[None])[:, 0]
    distance = np.abs(middles[:, 1] - starts[:, 1]) + np.clip(
        np.maximum(boxes[:, 0] - starts[:, 0], starts[:, 0] - boxes[:, 2]), 0, None
    )
    lines = LINE * led[:, None] * _through(starts, middles, boxes)
    overlap = _shared(boxes, boxes) + lines + lines.T
    crowded = on_marks + TOUCHING * (on_marks > 0)
    margin = 3 * outside + 5 * TOUCHING * (outside > 1)
    return margin + 4 * crowded.sum(1) + 0.5 * distance, 2 * (overlap + TOUCHING * (overlap > 0))


def _offsets(width: float) -> Iterator[tuple[float, float]]:
    """Offsets of a label's lower left corner from its point, the best first."""
    middle = -LINE / 2
    yield GAP, middle
    yield -GAP - width, middle
    yield -width / 2, GAP - 1
    yield -width / 2, -GAP - LINE + 1
    for step in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0):
        for sign in (1, -1):
            for left in (GAP - 2, -GAP + 2 - width, *(-width * k / 8 for k in (1, 2, 4, 6, 7))):
                yield left, middle + sign * step * (LINE + 2)


def _width(name: str) -> float:
    return text_to_path.get_text_width_height_descent(name, FontProperties(size=TEXT), ismath=False)[0] + 3


def _shared(boxes: Floats, others: Floats) -> Floats:
    """(N, M): the area that each of the boxes shares with each of the others."""
    across, up = (
        np.minimum(boxes[:, None, k + 2], others[None, :, k + 2]) - np.maximum(boxes[:, None, k], others[None, :, k])
        for k in (0, 1)
    )
    return np.clip(across, 0, None) * np.clip(up, 0, None)


def _through(starts: Floats, ends: Floats, boxes: Floats) -> Floats:
    """(N, M): the length of the part of each line that lies in each box (Liang and Barsky, 1984)."""
    way = ends - starts
    steps = np.where(np.abs(way) < 1e-9, 1e-9, way)
    first, last = np.zeros(()), np.ones(())
    for k in (0, 1):
        low, high = ((boxes[None, :, side] - starts[:, None, k]) / steps[:, None, k] for side in (k, k + 2))
        first, last = np.maximum(first, np.minimum(low, high)), np.minimum(last, np.maximum(low, high))
    return np.clip(last - first, 0, None) * np.hypot(*way.T)[:, None]
