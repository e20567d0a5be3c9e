"""The page stands alone, says what it was given, and escapes it."""

import base64
import dataclasses
import io
import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from compress.checkpoint import load_student
from compress.data.benchmarks import Benchmark, open_benchmark
from compress.errors import BadInput
from compress.files import sha256
from export.folder import folder_sha256
from runtime.names import told_apart
from runtime.parity.gate import check
from runtime.parity.results import ParityReport, Refusal
from runtime.report.compared import compared
from runtime.report.data import Comparison, Curve, Picture, Point, ReportData, Scene, difference
from runtime.report.encoding import heat_levels, jpegs
from runtime.report.figures import read_figures
from runtime.report.headline import headline
from runtime.report.page import write_report
from runtime.report.placing import place_labels
from runtime.report.plots import WIDE, curve_plot, new_figure
from runtime.report.provenance import provenance
from runtime.report.saved import read_parity
from runtime.report.scenes import FLOAT, VIEW, Painter, labels, scenes
from tests.runtime.conftest import SCALE

VOID = {"meta", "img", "input", "br", "link", "wbr"}
DATA = re.compile(r'src="data:image/(png|jpeg);base64,([^"]+)"')


@pytest.fixture(scope="module")
def one() -> Benchmark:
    return Benchmark("one photograph", SCALE, open_benchmark("skimage", SCALE).pairs[:1])


@pytest.fixture(scope="module")
def parity(tiny, one) -> ParityReport:
    return check(load_student(tiny.int8_pt), [tiny.float_tflite, tiny.int8_tflite, tiny.int8_onnx], [one], runs=1)


@pytest.fixture
def data(parity) -> ReportData:
    draw = np.random.default_rng(0)
    base = draw.integers(8, 240, (120, 160, 3), np.uint8)
    shifted = base.copy()
    shifted[30, 40] += 7
    pictures = (
        Picture(name="bicubic", kind="bicubic", image=base[::-1], psnr=28.125),
        Picture(name=FLOAT, kind="student", image=base, psnr=30.5),
        Picture(name="int8.tflite", kind="file", image=shifted, psnr=30.25, reference=base, integer=True),
        Picture(name="int8.onnx", kind="file", image=shifted, psnr=30.25, reference=shifted, integer=True),
        Picture(name="ground truth", kind="truth", image=base[:, ::-1]),
    )
    points = (
        Point(name="int8.tflite", group="here", integer=True, file_bytes=70_000, milliseconds=3.5, psnr=30.25),
        Point(name="SRGAN", group="peer", integer=False, file_bytes=3_000_000, milliseconds=None, psnr=29.5),
    )
    return ReportData(
        title="A <script>alert(1)</script> title",
        summary="Summary & more",
        parity=parity,
        scenes=(Scene(name="cat", source="skimage", pictures=pictures),),
        comparison=Comparison(
            set_name="Set5",
            points=points,
            bicubic=28.5,
            lr_size=(128, 128),
            threads=1,
            note="Hollow ones: <elsewhere>.",
        ),
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


def text_of(page: str) -> str:
    return page.replace("<wbr>", "")


class Structure(HTMLParser):
    """Open elements; every one must be closed in order. Links, names of elements, and the levels of headings."""

    def __init__(self):
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.levels: list[int] = []
        self.without_alt = 0

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.links += [given[name] or "" for name in ("src", "href", "action", "srcset", "xlink:href") if name in given]
        self.ids += [given["id"]] if "id" in given else []
        self.levels += [int(tag[1])] if re.fullmatch("h[1-6]", tag) else []
        self.without_alt += tag == "img" and "alt" not in given
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()


def test_is_whole_well_formed_and_loads_nothing(tmp_path, data):
    page = written(tmp_path, data)
    structure = Structure()
    structure.feed(page)
    assert structure.open == []
    assert structure.links
    assert all(link.startswith(("data:image/", "#")) for link in structure.links)
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert len(structure.ids) == len(set(structure.ids)), "two elements of one name"
    assert {link[1:] for link in structure.links if link.startswith("#")} <= set(structure.ids)
    assert structure.without_alt == 0
    assert structure.levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(structure.levels, structure.levels[1:], strict=False))


def test_crops_are_inside_without_loss(tmp_path, data):
    found = []
    for kind, content in DATA.findall(written(tmp_path, data)):
        if kind == "png":
            found.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB")))
    place = np.s_[0:96, 0:96]  # 96 pixels around (30, 40), where int8 differs
    for picture in data.scenes[0].pictures:
        assert any(np.array_equal(picture.image[place], one) for one in found), picture.name


def test_large_pictures_keep_to_their_budget(data):
    images = [picture.image for picture in data.scenes[0].pictures]
    best, small = jpegs(images, 10**9), jpegs(images, 150_000)
    assert sum(map(len, small)) <= 150_000 < sum(map(len, best))
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(best[0].partition(",")[2]))))
    assert np.abs(shown.astype(int) - images[0]).mean() < 4


def test_text_is_escaped(tmp_path, data):
    page = written(tmp_path, data)
    assert "<script>alert" not in page
    assert "A &lt;script&gt;alert(1)&lt;/script&gt; title" in page
    assert "PSNR on Y &lt; RGB." in page
    assert "&lt;elsewhere&gt;" in page


def test_says_what_it_was_given(tmp_path, data):
    page = text_of(written(tmp_path, data))
    for words in (
        "float.tflite: PASS", "int8.tflite: PASS", "int8.onnx: PASS", "bicubic, 28.12 dB", "ab12ab12", "Summary &amp; more",
        "int8.tflite = int8.onnx", "SRGAN", "Where int8 differs most from float (7 LSB): column 0, row 0",
        ">identical in every pixel<", "largest 7 LSB",
    ):  # fmt: skip
        assert words in page, words
    assert page.count('class="pass"') == 3
    assert "fail" not in re.findall(r'class="([^"]*)"', page)
    assert page.count("<svg") == 4


def test_headline_says_how_far_engines_agree(parity):
    largest = max(file.agreement.max_lsb for file in parity.files[1:])
    within = "bit for bit" if largest == 0 else f"within {largest:.0f} LSB"
    assert headline(parity).startswith(
        f"The int8 student in TFLite and ONNX Runtime agrees with the PyTorch reference {within} and lost "
    )


def test_failed_file_is_red_says_why_and_is_named_in_the_sum(tmp_path, data, parity):
    bad = dataclasses.replace(parity.files[1], failures=("largest difference 9.00 LSB, limit 2 LSB",))
    files = (parity.files[0], bad, parity.files[2])
    failed = dataclasses.replace(data, parity=dataclasses.replace(parity, files=files))
    page = text_of(written(tmp_path, failed))
    assert re.search(
        r'<li class="fail"><span[^>]*>✗</span> int8\.tflite: FAIL  largest difference 9\.00 LSB, limit 2 LSB<', page
    )
    assert "1 of 3 files fail" in page
    assert 'class="verdict fail"' in page


def test_files_that_could_not_be_judged_fail_and_are_named(tmp_path, data, parity):
    foreign = Refusal(
        name="foreign.tflite",
        path=Path("foreign.tflite"),
        engine="litert",
        reason="expected metadata, found none: export it.",
    )
    refused = dataclasses.replace(parity, files=(), refused=(foreign,))
    page = text_of(written(tmp_path, dataclasses.replace(data, parity=refused)))
    assert "The only file fails the gate: do not ship foreign.tflite." in page
    assert "foreign.tflite: FAIL  expected metadata, found none: export it<" in page


def test_optional_parts_may_be_left_out(tmp_path, data):
    bare = dataclasses.replace(data, comparison=None, curves=(), provenance={}, protocol=())
    whole, page = written(tmp_path, data), written(tmp_path, bare)
    for heading in ("Size, latency and quality", "Training", "Provenance", "How the figures were made"):
        assert f"<h2>{heading}</h2>" in whole
        assert f"<h2>{heading}</h2>" not in page


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


def test_refuses_pictures_that_do_not_fit(tmp_path, data):
    scene = data.scenes[0]
    odd = dataclasses.replace(scene.pictures[1], image=scene.pictures[1].image[:-1])
    with pytest.raises(BadInput, match="expected pictures of one size of cat"):
        write_report(
            tmp_path / "report.html",
            dataclasses.replace(data, scenes=(dataclasses.replace(scene, pictures=(scene.pictures[0], odd)),)),
        )
    with pytest.raises(BadInput, match="expected a scene"):
        write_report(tmp_path / "report.html", dataclasses.replace(data, scenes=()))
    assert list(tmp_path.iterdir()) == []


def test_heat_grows_with_the_difference_and_only_none_is_dark():
    a = np.zeros((1, 5, 3), np.uint8)
    b = np.array([[[0, 0, 0], [0, 1, 0], [0, 2, 1], [5, 0, 0], [0, 0, 255]]], np.uint8)
    values = difference(a, b)
    assert values.tolist() == [[0, 1, 2, 5, 255]]
    levels = heat_levels(values, 64)[0].tolist()
    assert levels == sorted(levels)
    assert levels[0] == 0 < levels[1]


def test_scenes_show_what_the_files_compute(tiny, parity, one, tmp_path):
    """Every picture of a photograph, and the same window of it where only a piece was computed."""
    painter = Painter(load_student(tiny.int8_pt), parity, None, 1)
    assert painter.names == ["float.tflite", "int8.tflite", "int8.onnx"]
    [scene] = scenes(painter, [one])
    assert all(length <= most for length, most in zip(scene.pictures[0].image.shape, VIEW, strict=False))
    assert [one.kind for one in scene.pictures] == ["bicubic", "student", "file", "file", "file", "truth"]
    assert all(one.psnr is not None and 15 < one.psnr < 60 for one in scene.pictures[:-1])
    reference = scene.pictures[3].reference
    assert reference is not None
    assert difference(scene.pictures[3].image, reference).max() <= 2

    _, lr, _ = next(iter(one))
    Image.fromarray(lr).save(tmp_path / "photo.png")
    [photo, *_] = scenes(painter, [], tmp_path / "photo.png")
    assert photo.truth is None
    for whole, piece in zip(scene.pictures[1:5], photo.pictures[1:], strict=True):
        assert difference(whole.image, piece.image).max() <= 1, "a piece of a photograph is not what the whole gives"


def test_photographs_are_the_first_of_every_set_in_turn_under_the_sets_own_name(tiny, parity):
    pairs = open_benchmark("skimage", SCALE).pairs
    sets = [Benchmark("first", SCALE, pairs[:2]), Benchmark("second", SCALE, pairs[2:3])]
    with Painter(load_student(tiny.int8_pt), parity, None, 1) as painter:
        found = [(one.name, one.source) for one in scenes(painter, sets)]
    assert found == [(pairs[0].name, "first"), (pairs[2].name, "second"), (pairs[1].name, "first")]


def test_files_of_one_name_are_told_apart(parity):
    first, second, other = parity.files
    moved = [
        dataclasses.replace(one, description=dataclasses.replace(one.description, path=Path(path)))
        for one, path in ((first, "/a/old/x.tflite"), (second, "/a/new/x.tflite"), (other, "y.onnx"))
    ]
    assert labels(moved) == ["old/x.tflite", "new/x.tflite", "y.onnx"]
    twice = [*moved, dataclasses.replace(moved[0], engine="tensorflow")]
    assert labels(twice) == ["old/x.tflite on litert", "new/x.tflite", "y.onnx", "old/x.tflite on tensorflow"]
    assert told_apart([Path("x"), Path("a/x"), Path("b/a/x"), Path("x")]) == {
        Path("x"): "x", Path("a/x"): "a/x", Path("b/a/x"): "b/a/x",
    }  # fmt: skip


def test_provenance_has_the_hash_of_every_file_and_folder(tiny, parity, tmp_path):
    folder, pair = tmp_path / "x.mlpackage", tmp_path / "y.param"
    folder.mkdir()
    for path in (folder / "part", pair, tmp_path / "y.bin", tmp_path / "z.bin"):
        path.write_text(path.name)
    refused = tuple(
        Refusal(name=path.name, path=path, engine="any", reason="expected more.") for path in (folder, pair)
    )
    found = provenance(load_student(tiny.int8_pt), dataclasses.replace(parity, files=(), refused=refused), "command")
    assert found["x.mlpackage"].endswith(folder_sha256(folder))
    assert (found["y.param"], found["y.param's .bin"]) == (
        f"SHA-256 {sha256(pair)}",
        f"SHA-256 {sha256(tmp_path / 'y.bin')}",
    )


def test_a_loss_never_reads_as_less_than_nothing(parity):
    better = dataclasses.replace(parity.files[0].sets[0], student=30.0, file=30.001)
    files = (dataclasses.replace(parity.files[0], sets=(better,)),)
    assert "lost 0.00 dB of PSNR at most" in headline(dataclasses.replace(parity, files=files))


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


def test_gates_result_is_read_back(tiny, parity, one, tmp_path):
    student = load_student(tiny.int8_pt)
    files = [tiny.float_tflite, tiny.int8_tflite, tiny.int8_onnx]
    (tmp_path / "parity.json").write_text(parity.to_json())
    again = read_parity(tmp_path / "parity.json", student, files, [one.name])
    assert json.loads(again.to_json()) == json.loads(parity.to_json())
    with pytest.raises(BadInput, match=r"found one for float\.tflite, int8\.onnx, int8\.tflite"):
        read_parity(tmp_path / "parity.json", student, files[:1], [one.name])
    with pytest.raises(BadInput, match="expected the gate's result for the student"):
        read_parity(tmp_path / "parity.json", load_student(tiny.float_pt), files, [one.name])
    with pytest.raises(BadInput, match="expected the gate's result on Set5, found one on one photograph"):
        read_parity(tmp_path / "parity.json", student, files, ["Set5"])
    (tmp_path / "other.json").write_text(json.dumps({"passed": True}))
    with pytest.raises(BadInput, match="found something else"):
        read_parity(tmp_path / "other.json", student, files, [one.name])


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
