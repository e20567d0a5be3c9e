"""The page in a real headless Chromium: what it looks like is in build/screenshots/ afterwards.

The browser is the machine's own, or Debian's, unpacked without root into build/chromium (100 MB, once).
"""

import dataclasses
import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from compress.checkpoint import load_student
from compress.data.benchmarks import Benchmark, open_benchmark
from compress.errors import BadInput
from runtime.debian import own_architecture, unpack
from runtime.parity.gate import check
from runtime.report.data import Comparison, Curve, Point, ReportData
from runtime.report.gather import gather
from runtime.report.page import write_report
from tests.runtime.chromium import BINARY, PACKAGE, Chromium, find_chromium, unpacked_environment
from tests.runtime.conftest import SCALE

BUILD = Path(__file__).resolve().parents[2] / "build"
SHOTS = BUILD / "screenshots"
LONG = "IMG_20261121_a_name_that_somebody_made_of_all_the_options_0123456789abcdef0123456789abcdef"
AA = 4.5  # contrast that WCAG 2.1 asks of text, level AA
CONTRAST = """
(() => {
  const probe = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    probe.clearRect(0, 0, 1, 1); probe.fillStyle = colour; probe.fillRect(0, 0, 1, 1);
    return [...probe.getImageData(0, 0, 1, 1).data];
  };
  const light = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; };
  const luminance = ([r, g, b]) => 0.2126 * light(r) + 0.7152 * light(g) + 0.0722 * light(b);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = rgba(getComputedStyle(one).backgroundColor);
      if (colour[3] > 180) return colour;
    }
    return [255, 255, 255, 255];
  };
  const found = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    const words = walker.currentNode.textContent.trim();
    if (!words || !element.getClientRects().length || element.closest("script, style, .skip")) continue;
    const svg = element.closest("svg");
    const a = luminance(rgba(svg ? style.fill : style.color)), b = luminance(behind(svg ? svg.parentElement : element));
    found.push([(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), words.slice(0, 60)]);
  }
  return found;
})()
"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Chromium]:
    binary, environment = find_chromium(), {}
    if binary is None:
        if platform.machine() not in ("x86_64", "aarch64"):
            pytest.skip("no Chromium on PATH, and Debian's is for x86-64 and arm64")
        root = BUILD / "chromium"
        try:
            unpack([PACKAGE], root, architecture=own_architecture())
        except BadInput as error:
            pytest.skip(f"no Chromium on PATH, and none can be unpacked: {error}")
        binary, environment = root / BINARY, unpacked_environment(root)
    with Chromium(binary, environment) as browser:
        yield browser


@pytest.fixture(scope="module")
def data(tiny) -> ReportData:
    """A report of the tiny student on two photographs, with everything that a report can have."""
    sets = [Benchmark("skimage", SCALE, open_benchmark("skimage", SCALE).pairs[:2])]
    student = load_student(tiny.int8_pt)
    parity = check(student, [tiny.float_tflite, tiny.int8_tflite, tiny.int8_onnx], sets, runs=2)
    data = gather(student, parity, sets, command="python -m runtime.report <somewhere>", runs=2)
    assert data.comparison is not None
    peers = [
        Point(name="A published network", group="peer", integer=False, file_bytes=2_900_000, milliseconds=900, psnr=31),
        Point(name="zoo_x2_int8", group="zoo", integer=True, file_bytes=70_000, milliseconds=5, psnr=30.5),
    ]
    comparison: Comparison = dataclasses.replace(data.comparison, points=(*data.comparison.points, *peers))
    curves = [Curve(name="sum", axis="loss", steps=[1, 2, 3], values=[0.2, 0.1, 0.07])]
    return dataclasses.replace(data, comparison=comparison, curves=curves)


@pytest.fixture(scope="module")
def page(data, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, data)
    return path


@pytest.fixture(scope="module")
def odd_page(data, tmp_path_factory) -> Path:
    """A photograph of 40x36 pixels, and many files, all of them with long names."""
    parity, (scene, other) = data.parity, data.scenes
    files = tuple(
        dataclasses.replace(file, description=dataclasses.replace(file.description, path=Path(f"{LONG}_{i}.tflite")))
        for i, file in enumerate((*parity.files, *parity.files))
    )
    small = tuple(
        dataclasses.replace(
            one, image=one.image[:36, :40], reference=None if one.reference is None else one.reference[:36, :40]
        )
        for one in scene.pictures
    )
    odd = dataclasses.replace(
        data, parity=dataclasses.replace(parity, files=files),
        scenes=(dataclasses.replace(scene, name=LONG, source=LONG, pictures=small), other),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("odd") / "report.html"
    write_report(path, odd)
    return path


def centre(chromium: Chromium, selector: str, across: float = 0.5) -> tuple[float, float]:
    """A point of an element in the window, scrolled into it."""
    chromium.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center', behavior: 'instant'}})")
    box = chromium.run(f"document.querySelector('{selector}').getBoundingClientRect().toJSON()")
    return box["x"] + across * box["width"], box["y"] + box["height"] / 2


def split(chromium: Chromium) -> float:
    """Where the slider's left picture ends, as it is drawn, in percent."""
    clip = chromium.run("getComputedStyle(document.querySelector('.compare .left')).clipPath")
    return 100 - float(clip.split()[1].rstrip("%)").removeprefix("calc(100% - "))


def test_opens_from_a_file_without_errors_and_asks_for_nothing(chromium, page):
    chromium.open(page)
    chromium.screenshot(SHOTS / "light.png", whole=True)
    assert chromium.console == []
    assert chromium.requests == [page.resolve().as_uri()]
    broken = "[...document.images].filter((one) => one.closest('figure') && !one.naturalWidth).length"
    assert chromium.run(broken) == 0


def test_slider_moves_by_keyboard_and_by_mouse(chromium, page):
    chromium.open(page)
    assert split(chromium) == 50
    chromium.run("document.querySelector('.compare input').focus()")
    chromium.press("ArrowRight", 5)
    assert split(chromium) == 55
    chromium.press("Home")
    assert split(chromium) == 0
    assert "0% bicubic" in chromium.run("document.querySelector('.compare input').getAttribute('aria-valuetext')")
    start, end = centre(chromium, ".compare", 0.1), centre(chromium, ".compare", 0.8)
    chromium.drag(start, end)
    assert split(chromium) == pytest.approx(80, abs=1)
    chromium.run("document.querySelector('.compare input').focus()")
    chromium.press("ArrowLeft")
    assert split(chromium) == pytest.approx(79, abs=1), "the keyboard goes on where the mouse ended"
    outline = chromium.run("getComputedStyle(document.querySelector('.compare')).outlineStyle")
    assert outline == "solid", "the focus is not to be seen"


def test_pictures_and_photographs_can_be_chosen(chromium, page):
    chromium.open(page)
    name = "document.querySelector('.compare .right figcaption').textContent"
    chromium.run("document.querySelector('select[data-side=right]').focus()")
    before = chromium.run(name)
    chromium.press("End")
    assert chromium.run(name) != before
    assert chromium.run(name) == "ground truth"
    shown = "[...document.querySelectorAll('.scene')].map((one) => one.getClientRects().length > 0)"
    assert chromium.run(shown) == [True, False]
    chromium.run("document.querySelector('#choose-0').focus()")
    chromium.press("ArrowRight")
    assert chromium.run(shown) == [False, True]


def test_zoom_opens_flips_and_closes_by_keyboard(chromium, page):
    chromium.open(page)
    image = "document.querySelector('#zoom img')"
    chromium.run("document.querySelector('.crop').focus()")
    chromium.press("Enter")
    assert chromium.run("document.querySelector('#zoom').open")
    assert chromium.run(f"[{image}.width, {image}.alt.endsWith('bicubic')]") == [8 * 96, True]
    assert chromium.run(f"getComputedStyle({image}).imageRendering") == "pixelated"
    chromium.screenshot(SHOTS / "zoom.png")
    chromium.press("-")
    chromium.press("ArrowRight")
    assert chromium.run(f"[{image}.width, {image}.alt.includes('student, float32')]") == [4 * 96, True]
    assert chromium.run("document.querySelector('[aria-pressed=true]').textContent") == "4:1"
    chromium.press("Escape")
    assert not chromium.run("document.querySelector('#zoom').open")
    assert chromium.run("document.activeElement.className") == "crop", "the focus does not come back"
    assert chromium.console == []


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_in_both_schemes(chromium, page, dark):
    chromium.open(page, dark=dark)
    chromium.run("document.querySelector('details').open = true")
    found = chromium.run(CONTRAST)
    assert len(found) > 100
    assert [one for one in found if one[0] < AA] == []
    back = chromium.run("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, back[4:-1].split(","))) < 150) == dark
    if dark:
        chromium.screenshot(SHOTS / "dark.png", whole=True)


@pytest.mark.parametrize("width", [360, 768])
def test_nothing_is_wider_than_the_screen(chromium, page, width):
    chromium.open(page, width=width, height=780)
    assert chromium.run("document.documentElement.scrollWidth") == width
    if width == 360:
        chromium.screenshot(SHOTS / "phone.png", whole=True)
        table = "document.querySelector('#files .scroll')"
        assert chromium.run(f"{table}.scrollWidth > {table}.clientWidth"), "the table scrolls within its box"
        chromium.run(f"{table}.scrollLeft = 150")
        first, box = (f"{what}.getBoundingClientRect().left" for what in (f"{table}.querySelector('th')", table))
        assert chromium.run(f"Math.abs({first} - {box})") < 1, "the first column stays"
        chromium.run("document.querySelector('.crop').click()")
        chromium.screenshot(SHOTS / "phone_zoom.png")
        assert chromium.run("document.querySelector('#zoom').getBoundingClientRect().right") <= width


@pytest.mark.parametrize("width", [360, 1280])
def test_long_names_and_small_pictures_keep_the_page_in_shape(chromium, odd_page, width):
    chromium.open(odd_page, width=width, height=780)
    chromium.screenshot(SHOTS / f"odd_{width}.png", whole=True)
    assert chromium.run("document.documentElement.scrollWidth") == width
    assert chromium.run("document.querySelector('.compare').clientWidth") > 240, "a small picture is shown large"
    bars = chromium.run("[...document.querySelectorAll('.bars i')].map((one) => one.getBoundingClientRect().width)")
    assert max(bars) > 0.3 * width, "names leave the bars no room"
    lines = "[...document.querySelectorAll('#files tbody th')].map((one) => one.clientHeight)"
    assert max(chromium.run(lines)) < 200, "names are a column of letters"


def test_words_stay_whole_on_a_phone(chromium, page):
    chromium.open(page, width=360, height=780)
    broken = """
    [...document.querySelectorAll("#files th:first-child")].flatMap((cell) => {
      const text = cell.firstChild, range = document.createRange();
      return [...text.data.matchAll(/[A-Za-z']+/g)].filter((word) => {
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        return range.getClientRects().length > 1;
      }).map((word) => word[0]);
    })
    """
    assert chromium.run(broken) == []


def test_both_choices_are_above_the_slider_side_by_side(chromium, odd_page):
    chromium.open(odd_page)
    chromium.run("document.querySelector('#choose-1').click()")
    box = "[...document.querySelectorAll('#scene-1 select')].map((one) => one.getBoundingClientRect().toJSON())"
    left, right = chromium.run(box)
    assert left["top"] == right["top"]
    assert left["right"] < right["left"]


def test_every_control_is_reached_and_named(chromium, page):
    chromium.open(page)
    names = chromium.run(
        "[...document.querySelectorAll('input:not([hidden]), select, button, [role=img], [role=region]')]"
        ".map((one) => one.ariaLabel || one.labels?.[0]?.textContent || one.textContent || one.querySelector('img')?.alt)"
    )
    assert len(names) > 20
    assert all(name and name.strip() for name in names)
    chromium.press("Tab")
    assert chromium.run("document.activeElement.className") == "skip"
    seen = set()
    for _ in range(12):
        chromium.press("Tab")
        seen.add(chromium.run("document.activeElement.localName + ' ' + (document.activeElement.type || '')"))
    assert {"input radio", "select select-one", "input range", "button button"} <= seen


def test_pictures_show_without_javascript(chromium, page):
    chromium.open(page, script=False)
    chromium.screenshot(SHOTS / "without_javascript.png", whole=True)
    seen = (
        "[...document.querySelectorAll('#scene-0 .compare img')].every((one) => one.getClientRects()[0]?.width > 100)"
    )
    chromium.call("Emulation.setScriptExecutionDisabled", value=False)
    assert chromium.run(seen)
    assert chromium.run("document.querySelector('.compare input').getClientRects().length") == 0


def test_prints(chromium, page):
    chromium.open(page)
    chromium.pdf(SHOTS / "report.pdf")
    assert (SHOTS / "report.pdf").read_bytes().startswith(b"%PDF-")
    chromium.call("Emulation.setEmulatedMedia", media="print")
    try:
        chromium.resize(794, 1123)
        shown = "[...document.querySelectorAll('.scene')].every((one) => one.getClientRects().length > 0)"
        assert chromium.run(shown), "paper shows all photographs"
        assert chromium.run("document.querySelector('.chooser').getClientRects().length") == 0
        chromium.screenshot(SHOTS / "print.png", whole=True)
    finally:
        chromium.call("Emulation.setEmulatedMedia", media="")


def test_moves_nothing_where_motion_is_to_be_reduced(chromium, page):
    chromium.open(page)
    behaviour = "getComputedStyle(document.documentElement).scrollBehavior"
    assert chromium.run(behaviour) == "smooth"
    chromium.prefer(still=True)
    assert chromium.run(behaviour) == "auto"
