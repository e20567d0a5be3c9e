"""The report stands alone, says what it was given, and escapes it."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from compress.checkpoint import load_student
from compress.data.benchmarks import Benchmark, open_benchmark
from compress.errors import BadInput
from runtime.figures import Curve, difference, heat_map
from runtime.parity import check
from runtime.report import HEAT_TOP, Picture, ReportData, write_report
from runtime.verdict import Limits, ParityReport
from tests.runtime.conftest import SCALE

VOID = {"meta", "img", "input", "br", "link"}
DATA = re.compile(r'src="data:image/(png|svg\+xml);base64,([^"]+)"')


@pytest.fixture(scope="module")
def parity(tiny) -> ParityReport:
    one = Benchmark("one photograph", SCALE, open_benchmark("skimage", SCALE).pairs[:1])
    return check(load_student(tiny.int8_pt), [tiny.float_tflite, tiny.int8_tflite], [one], runs=1)


@pytest.fixture
def data(parity) -> ReportData:
    draw = np.random.default_rng(0)
    base = draw.integers(8, 240, (120, 160, 3), np.uint8)
    shifted = base.copy()
    shifted[30, 40] += 7
    return ReportData(
        title="A <script>alert(1)</script> title",
        summary="Summary & more",
        parity=parity,
        photograph="cat",
        pictures=[Picture(name="bicubic", image=base, psnr=28.125), Picture(name="int8", image=shifted)],
        opposite="int8",
        floating=base,
        integer=shifted,
        curves=[
            Curve(name="sum", axis="loss", steps=[1, 2], values=[0.2, 0.1]),
            Curve(name="Set5", axis="psnr", steps=[2], values=[30.0]),
        ],
        provenance={"student": "ab12" * 16},
        protocol=["PSNR on Y < RGB."],
    )


def written(tmp_path, data: ReportData) -> str:
    write_report(tmp_path / "report.html", data)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


class Structure(HTMLParser):
    """Open elements; every one must be closed in order."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "action", "srcset")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_is_whole_and_loads_nothing(tmp_path, data):
    page = written(tmp_path, data)
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    assert structure.links
    assert all(link.startswith("data:image/") for link in structure.links)
    assert "@import" not in page
    assert "url(" not in page


def test_pictures_are_inside_without_loss(tmp_path, data):
    found = []
    for kind, content in DATA.findall(written(tmp_path, data)):
        if kind == "png":
            found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))))
    for picture in data.pictures:
        assert any(np.array_equal(picture.image, one) for one in found)


def test_text_is_escaped(tmp_path, data):
    page = written(tmp_path, data)
    assert "<script>alert" not in page
    assert "A &lt;script&gt;alert(1)&lt;/script&gt; title" in page
    assert "PSNR on Y &lt; RGB." in page


def test_says_what_it_was_given(tmp_path, data):
    page = written(tmp_path, data)
    for words in ("float.tflite: PASS", "int8.tflite: PASS", "bicubic, 28.12 dB", "ab12ab12", "Summary &amp; more"):
        assert words in page
    assert page.count('class="pass"') == 2
    assert 'class="fail"' not in page
    assert len(re.findall(r"image/svg\+xml", page)) == 2


def test_failed_file_is_red_and_says_why(tmp_path, data, parity):
    bad = dataclasses.replace(parity.files[1], failures=("largest difference 9.00 LSB, limit 2 LSB",))
    failed = dataclasses.replace(data, parity=dataclasses.replace(parity, files=(parity.files[0], bad)))
    page = written(tmp_path, failed)
    assert re.search(r'class="fail">✗ int8\.tflite: FAIL  largest difference 9\.00 LSB, limit 2 LSB<', page)


def test_largest_difference_is_found(tmp_path, data):
    page = written(tmp_path, data)
    assert "Where int8 differs most from float (7 LSB), at column 12, row 2" in page  # 56 pixels around (30, 40)


def test_optional_parts_may_be_left_out(tmp_path, data):
    bare = dataclasses.replace(data, floating=None, integer=None, curves=(), provenance={}, protocol=())
    page = written(tmp_path, bare)
    for heading in ("What quantization changes", "Training", "Provenance", "How the figures were made"):
        assert f"<h2>{heading}</h2>" not in page


def test_slider_can_be_reached_by_keyboard(tmp_path, data):
    page = written(tmp_path, data)
    assert re.search(r'<input type="range"[^>]*aria-label=', page)
    assert 'class="left"' in page
    assert 'class=" right"' in page


def test_small_pictures_are_cropped_to_what_there_is(tmp_path, data):
    small = [dataclasses.replace(picture, image=picture.image[:40, :50]) for picture in data.pictures]
    page = written(tmp_path, dataclasses.replace(data, pictures=small, floating=None, integer=None))
    assert "The same 40x40 pixels" in page


def test_refuses_pictures_that_do_not_fit(tmp_path, data):
    odd = [data.pictures[0], Picture(name="int8", image=data.pictures[1].image[:-1])]
    with pytest.raises(BadInput, match="expected pictures of one size"):
        write_report(tmp_path / "report.html", dataclasses.replace(data, pictures=odd))
    with pytest.raises(BadInput, match="found 'nothing'"):
        write_report(tmp_path / "report.html", dataclasses.replace(data, opposite="nothing"))
    assert list(tmp_path.iterdir()) == []


def test_heat_map_grows_brighter_with_the_difference():
    a = np.zeros((1, 4, 3), np.uint8)
    b = np.array([[[0, 0, 0], [0, 2, 1], [5, 0, 0], [0, 0, 255]]], np.uint8)
    values = difference(a, b)
    assert values.tolist() == [[0, 2, 5, 255]]
    brightness = heat_map(values, HEAT_TOP).astype(int).sum(axis=2)[0]
    assert list(brightness) == sorted(set(brightness.tolist()))


def test_limits_reach_the_verdict(tiny, parity):
    one = Benchmark("one photograph", SCALE, open_benchmark("skimage", SCALE).pairs[:1])
    strict = check(load_student(tiny.int8_pt), [tiny.int8_tflite], [one], Limits(int8_lsb=-1), runs=1)
    assert not strict.passed
    assert parity.passed
