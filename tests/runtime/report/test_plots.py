"""The plots of the report: labels, points, and figures of other networks."""

import dataclasses
import itertools
import re

import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from compress.checkpoint import load_student
from compress.errors import BadInput
from runtime.report.compared import compared
from runtime.report.data import Curve
from runtime.report.figures import read_figures
from runtime.report.placing import place_labels
from runtime.report.plots import WIDE, curve_plot, new_figure
from runtime.report.scenes import Painter
from tests.runtime.conftest import SCALE
from tests.runtime.report.conftest import written


def test_losses_are_labelled_in_plain_numbers():
    svg = curve_plot([Curve(name="$a$", axis="loss", steps=[1, 2, 3], values=[0.2, 0.1, 0.03])])
    labels = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"0.05", "0.1", "0.2", "$a$"} <= set(labels)
    assert "math" not in svg


def test_plots_without_a_point_are_left_out(tmp_path, data, recwarn):
    untimed = tuple(dataclasses.replace(one, milliseconds=None) for one in data.comparison.points)
    for points, size, latency in ((data.comparison.points, 1, 1), (untimed, 1, 0), ((), 0, 0)):
        comparison = dataclasses.replace(data.comparison, points=points)
        page = written(tmp_path, dataclasses.replace(data, comparison=comparison))
        assert page.count("PSNR against the size of the file") == size
        assert page.count("PSNR against latency") == latency
    assert not [one for one in recwarn if "legend" in str(one.message)]


@pytest.mark.parametrize(("against", "set_name"), itertools.product(("size", "latency"), ("skimage", "Set5")))
def test_labels_of_the_plots_cover_neither_each_other_nor_a_point(against, set_name):
    """Of the networks that are packaged, and of two files of a page that are the same in all but their names."""
    known = read_figures(4)
    assert known is not None
    named = [(f"anchor_x4_{kind}", 1.0 + i / 3) for i, kind in enumerate(("int8.tflite", "int8.onnx"))]
    rows = [(row.name, row.file_bytes if against == "size" else row.ratio, row.psnr[set_name]) for row in known.rows]
    own = next(row for row in rows if row[0] == "anchor_x4_int8")
    points = [(name, own[1] if against == "size" else own[1] * slower, own[2]) for name, slower in named]
    points += [row for row in rows if row != own]
    figure, axes = new_figure(WIDE)
    axes.set_xscale("log")
    axes.scatter([x for _, x, _ in points], [y for *_, y in points])
    axes.axhline(26)
    axes.margins(x=0.14, y=0.1)
    figure.draw_without_rendering()
    place_labels(axes, [(*point, "#000000") for point in points])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(one) for one in axes.texts]  # an annotation's own includes its line
    assert len(boxes) == len(points)
    for box, other in itertools.combinations(boxes, 2):
        assert not box.padded(-1).overlaps(other.padded(-1))
    spots = [Bbox.from_bounds(*(axes.transData.transform((x, y)) - 3), 6, 6) for _, x, y in points]
    assert not [True for box in boxes for spot in spots if box.padded(-1).overlaps(spot)]


def test_a_name_that_looks_like_a_formula_is_a_name(tmp_path, data):
    odd = dataclasses.replace(data.comparison.points[0], name=r"a$\frac{$b.tflite")
    page = written(tmp_path, dataclasses.replace(data, comparison=dataclasses.replace(data.comparison, points=(odd,))))
    assert page.count(r"a$\frac{$b.tflite") >= 2


def test_latency_of_others_is_left_out_with_several_threads(tiny, parity, one):
    painter = Painter(load_student(tiny.int8_pt), parity, None, 2)
    found = compared(SCALE, parity, painter.engines, painter.names, [one], painter.size, 2, runs=1)
    assert {point.group for point in found.points} == {"here"}, "there are no published figures of this set"
    assert found.set_name == "one photograph"
    assert 20 < found.bicubic < 45
    assert all(point.milliseconds and point.milliseconds > 0 for point in found.points)


def test_figures_of_the_zoo_are_packaged_and_others_refused(tmp_path):
    found = read_figures(4)
    assert found is not None
    assert {row.group for row in found.rows} == {"zoo", "peer"}
    assert all(row.ratio > 0 and 20 < row.psnr["skimage"] < 50 for row in found.rows)
    assert read_figures(7) is None
    assert read_figures(4, tmp_path / "none.json") is None
    (tmp_path / "bad.json").write_text('{"rows": [{"scale": 4}]}')
    with pytest.raises(BadInput, match="expected figures"):
        read_figures(4, tmp_path / "bad.json")
