"""The results page: deterministic and made of JSON alone; files that it cannot be made of are refused."""

import json
from pathlib import Path

import pytest

from compress.errors import BadInput
from compress.results.__main__ import main, page, read_published
from compress.results.files import SeedResults, find_results, read_results
from compress.results.tables import our_rows
from tests.compress.results.conftest import FOUR, PUBLISHED, forms, park, poster, row_of, seed_of
from tests.conftest import ROOT


def _write(folder: Path, seed: SeedResults) -> Path:
    """A folder as --publish leaves it."""
    folder.mkdir(parents=True)
    files = {f"{name}.json": row for name, row in seed.rows.items()}
    files |= {f"{name}.json": {"stage": name, "sizes": sizes} for name, sizes in seed.sizes.items()}
    files["bicubic.json"] = {"metrics": list(seed.bicubic.values())}
    header = {
        "title": seed.title, "seed_document": seed.seed_document, "variant": seed.variant, "rows": list(seed.rows),
        "labels": seed.labels, "strip": seed.strip, "files": list(files),
    }  # fmt: skip
    for name, content in (files | {"pipeline.json": header}).items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Results of two seeds and of a pipeline of our own."""
    folder = tmp_path / "results"
    ptq = row_of("ptq", 30.1, kind="quantize", precision="int8", steps=0, start="tuned", data=None, batch=None)
    ptq |= {
        "options": {"student": "stage:tuned", "rule": "mse"},
        "storage": {"float32": forms(200_000), "int8": forms(60_000)},
    }
    tuned = row_of("tuned", 30.2, start="slim", steps=500, steps_total=1500, teacher="rlfn_x4.pth")
    labels = {"scratch": "B = 6 | from scratch"}
    masked = row_of("masked", 30.0, nonzero=0.5, storage={"float32": forms(200_000, 110_000)}, pattern="2:4")
    _write(folder / "mobile", seed_of("mobile", tuned, ptq, masked, title="Ours: to a phone", seed_document=""))
    _write(folder / "park", seed_of("park", *park(**FOUR), strip=True))
    _write(folder / "poster", seed_of("poster", *poster(0.82, 0.80), labels=labels, variant="quick"))
    return folder


def _page(results: Path, tmp_path: Path) -> str:
    main([results], out=tmp_path / "docs" / "results.md", published=ROOT / "results" / "published.yaml")
    return (tmp_path / "docs" / "results.md").read_text()


def test_the_page_has_tables_published_figures_verdicts_steps_training_and_protocol(results, tmp_path):
    text = _page(results, tmp_path)
    assert "| bicubic | - | - | - | - | - | - | 26.00 / .7000 / .4000 | 23.00 / .7000 / .4000 |" in text
    assert (
        "| `distilled` | srresnet x4, blocks 6 | supervised | 800,000 | 90.00 | 3,200 | 1,000 | 30.20 / .8200 / .2000 |"
        in text
    )
    assert "| B = 6 \\| from scratch |" in text
    assert "| knowledge distillation, B = 6 | distilled | about 20 MB | .5011 |" in text
    assert "| G2G+AL | g2g_al | 29.63 / .6892 |" in text
    assert "**Agrees.** `distilled` is ahead of B = 6 | from scratch by SSIM" in text
    assert "This is the recipe's variant `quick`" in text
    assert "![The same crop of the truth, of several rows and of bicubic](../results/park/strip.png)" in text
    assert (
        "- `teacher`, B = 6 | from scratch, `distilled`: supervised; DIV2K, 800 images (SHA-256 of the manifest abababa"
        in text
    )
    assert "## Protocol\n\n- colour: Y\n- LR of Set5: its files\n" in text
    assert "| 1,000 (slim) + 500 |" in text
    assert "| quantize: rule mse | 800,000 | 90.00 | float32 200; int8 60 | 1,000 (tuned) + 0 |" in text
    assert "| 800,000 (50.0% not 0) | 90.00 | dense 200, sparse 110, zlib 100, sparse + zlib 10 |" in text
    assert "srresnet x4, blocks 6, 2:4 zeros" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Title of poster", "## Title of park", "## Ours: to a phone", "## Protocol",
    ]  # fmt: skip


def test_steps_of_published_weights_are_unknown_not_none():
    published = row_of("teacher", 31.0, kind="published", steps=0, steps_total=None, data=None)
    published["options"] = {"weights": "srgan.pth", "layout": "leftthomas"}
    tuned = row_of("tuned", 31.0, start="teacher", steps=500, steps_total=None)
    lines = our_rows(seed_of("poster", published, tuned))
    assert "| published: weights srgan.pth, layout leftthomas |" in lines[3]
    assert "| unknown | 31.00" in lines[3]
    assert "| unknown (teacher) + 500 | 31.00" in lines[4]


def test_the_page_is_the_same_every_time_and_whatever_the_order_of_the_folders(results, tmp_path):
    text = _page(results, tmp_path)
    assert text == _page(results, tmp_path)
    seeds = find_results([results / name for name in ("park", "mobile", "poster")])
    again = page([SeedResults(**vars(seed)) for seed in seeds], PUBLISHED, tmp_path / "docs")
    assert again == text


def test_swapping_two_files_of_figures_turns_the_verdict_on_the_page(results, tmp_path):
    before = _page(results, tmp_path)
    poster = results / "poster"
    swapped = (poster / "scratch.json").read_text(), (poster / "distilled.json").read_text()
    (poster / "distilled.json").write_text(swapped[0])
    (poster / "scratch.json").write_text(swapped[1])
    after = _page(results, tmp_path)
    assert "**Agrees.** `distilled` is ahead" in before
    assert "**Disagrees.** `distilled` is not ahead of B = 6 | from scratch by SSIM on Set5 and Set14" in after


def test_every_figure_of_the_seed_documents_is_there():
    park = {row["row"]: row["sets"] for row in PUBLISHED["park"]["rows"]}
    assert park["g2g_al"]["Set5"] == {"psnr": 29.6308, "ssim": 0.6892}
    assert len(park) == 6
    poster = [row["sets"]["its own images"]["ssim"] for row in PUBLISHED["poster"]["rows"]]
    assert poster == [0.6688, 0.5011, 0.3455]
    hussain = PUBLISHED["hussain"]["rows"][1]["sets"]
    assert {name: one["psnr"] for name, one in hussain.items()} == {
        "Set5": 30.41, "Set14": 27.25, "Urban100": 24.37, "BSD100": 26.39,
    }  # fmt: skip
    assert (PUBLISHED["cdism_edsr"]["reduction"], PUBLISHED["cdism_swinir"]["reduction"]) == (0.96, 0.89)


def test_folders_without_results_and_damaged_results_are_refused_in_one_sentence(results, tmp_path):
    with pytest.raises(BadInput, match=r"expected figures of a pipeline \(pipeline.json\)"):
        find_results([tmp_path / "nothing"])
    with pytest.raises(BadInput, match="found 'poster' twice"):
        find_results([results, results / "poster"])
    (results / "poster" / "scratch.json").write_text("{}")
    with pytest.raises(BadInput, match=r"found some without 'architecture in scratch.json'"):
        read_results(results / "poster")
    (results / "poster" / "scratch.json").unlink()
    with pytest.raises(BadInput, match=r"expected figures of a pipeline \(JSON\) in .*scratch.json"):
        read_results(results / "poster")
    (results / "park" / "pipeline.json").write_text("[1]")
    with pytest.raises(BadInput, match="found something else"):
        read_results(results / "park")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("- a", "expected `document` and `rows`"),
        ("poster: {rows: []}", "expected `document`"),
        ("a: [", "does not parse"),
    ],
)
def test_published_figures_that_cannot_be_read_are_refused(tmp_path, text, says):
    path = tmp_path / "published.yaml"
    path.write_text(text)
    with pytest.raises(BadInput, match=says):
        read_published(path)
    with pytest.raises(BadInput, match="found no such file"):
        read_published(tmp_path / "none.yaml")


def test_bad_input_leaves_the_old_page(results, tmp_path):
    before = _page(results, tmp_path)
    (results / "poster" / "scratch.json").write_text("{")
    with pytest.raises(BadInput):
        _page(results, tmp_path)
    assert (tmp_path / "docs" / "results.md").read_text() == before
