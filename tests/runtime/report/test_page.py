"""The page stands alone, says what it was given, and escapes it."""

import base64
import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.errors import BadInput
from runtime.parity.results import Refusal
from runtime.report.headline import headline
from runtime.report.page import write_report
from tests.runtime.report.conftest import text_of, written

VOID = {"meta", "img", "input", "br", "link", "wbr"}
DATA = re.compile(r'src="data:image/(png|jpeg);base64,([^"]+)"')


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


def test_a_loss_never_reads_as_less_than_nothing(parity):
    better = dataclasses.replace(parity.files[0].sets[0], student=30.0, file=30.001)
    files = (dataclasses.replace(parity.files[0], sets=(better,)),)
    assert "lost 0.00 dB of PSNR at most" in headline(dataclasses.replace(parity, files=files))
