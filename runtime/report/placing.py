"""Labels beside the points of a plot, where they cover neither each other nor a point."""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.transforms import Bbox

TEXT = 10
CHARACTER, LINE = 0.58 * TEXT, 1.15 * TEXT  # points that a character and a line take, generously
GAP = 7  # points between a point and its label
Labelled = tuple[str, float, float, str]


def place_labels(axes: Axes, points: Sequence[Labelled]) -> None:
    """Writes the label of each (label, x, y, colour), the first ones where they fit best.

    Every label takes the first free place of those right, left, above, below and further out; where none is
    free, the one that covers least. The figure has been laid out before.
    """
    spots = [axes.transData.transform((x, y)) for _, x, y, _ in points]
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in spots]
    inside = axes.get_window_extent()
    for (label, x, y, colour), (at_x, at_y) in zip(points, spots, strict=True):
        width, height = CHARACTER * len(label), LINE
        boxes = [Bbox.from_bounds(at_x + dx, at_y + dy, width, height) for dx, dy in _places(width, height)]
        best = min(boxes, key=lambda box: _covered(box, taken, inside))
        taken.append(best)
        ends, edge = ("right", best.x1) if best.x1 <= at_x else ("left", best.x0)
        if best.x0 < at_x < best.x1:
            ends, edge = "center", (best.x0 + best.x1) / 2
        offset = (edge - at_x, best.y0 - at_y)
        far = abs(offset[1] + height / 2) > 2 * LINE
        axes.annotate(
            label, (x, y), offset, textcoords="offset points", ha=ends, color=colour, fontsize=TEXT, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkB": 4} if far else None,
        )  # fmt: skip


def _places(width: float, height: float) -> Iterator[tuple[float, float]]:
    """Offsets of a label's lower left corner from its point, the best first."""
    middle = -height / 2
    yield GAP, middle
    yield -GAP - width, middle
    yield -width / 2, GAP - 1
    yield -width / 2, -GAP - height + 1
    for step in (1.0, 2.0, 3.0, 4.0):
        for sign in (1, -1):
            for left in (GAP - 2, -GAP + 2 - width, -width / 2):
                yield left, middle + sign * step * (LINE + 2)


def _covered(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """Area of a box that others cover, or that lies outside the axes."""
    area = box.width * box.height
    kept = Bbox.intersection(box, inside)
    outside = area - (kept.width * kept.height if kept else 0)
    overlaps = (Bbox.intersection(box, other) for other in taken)
    return outside + sum(one.width * one.height for one in overlaps if one)
