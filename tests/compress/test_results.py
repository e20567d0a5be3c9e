"""The results page: deterministic, made of JSON alone, and its sentences turn with the figures."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from compress.errors import BadInput
from compress.results.__main__ import main, page, read_published
from compress.results.agreement import agreement
from compress.results.files import SeedResults, find_results, read_results
from compress.results.tables import our_rows

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = read_published(ROOT / "results" / "published.yaml")
SETS = ("Set5", "Set14")
PROTOCOL = {"colour": "Y", "lpips": None, "lr": "files"}
Figures = dict[str, tuple[float, float, float | None]]


def _forms(dense: int, sparse: int | None = None) -> dict[str, int]:
    sparse = dense if sparse is None else sparse
    return {"dense": dense, "sparse": sparse, "compressed": dense - 100_000, "sparse_compressed": sparse - 100_000}


def _row(name: str, psnr: float, *, ssim: float = 0.8, lpips: float | None = 0.2, **changes: Any) -> dict[str, Any]:
    """A result.json as a training stage leaves it; Set14 lies 3 dB below Set5."""
    options = {
        "method": {"name": "supervised", "options": {}},
        "technique": {"name": "none", "options": {}},
        "schedule": {"learning_rate": 1e-4, "kind": "step", "every": 500, "gamma": 0.5, "ema": 0.999, "steps": 1000},
        "data": {"lr_patch": 24},
        "seed": 0,
    }
    metrics = [
        {"set": one, "psnr": psnr - 3 * i, "ssim": ssim - 0.1 * i, "lpips": lpips, "protocol": PROTOCOL, "images": 5}
        for i, one in enumerate(SETS)
    ]
    base = {
        "stage": name, "kind": "train", "options": options, "architecture": "srresnet", "config": {"blocks": 6},
        "scale": 4, "precision": "float32", "pattern": None, "steps": 1000, "steps_total": 1000, "start": None,
        "teacher": None, "seed": 0, "batch": 16, "training_precision": "bf16-mixed", "losses": {},
        "data": {"source": "DIV2K", "images": 800, "manifest_sha256": "ab" * 32},
        "parameters": 800_000, "macs": 90_000_000_000, "nonzero": 1.0, "storage": {"float32": _forms(3_200_000)},
        "metrics": metrics,
    }  # fmt: skip
    return {**base, **changes}


def _seed(name: str, *rows: dict[str, Any], bicubic: float = 26.0, **changes: Any) -> SeedResults:
    floor = {one: {"set": one, "psnr": bicubic - 3 * i, "ssim": 0.7, "lpips": 0.4} for i, one in enumerate(SETS)}
    fields: dict[str, Any] = {
        "name": name, "folder": Path("results") / name, "title": f"Title of {name}", "seed_document": "A paper",
        "variant": None, "labels": {}, "strip": False, "rows": {row["stage"]: row for row in rows}, "sizes": {},
        "bicubic": floor,
    }  # fmt: skip
    return SeedResults(**{**fields, **changes})


def _said(name: str, *rows: dict[str, Any], **changes: Any) -> tuple[str, str]:
    said = agreement(_seed(name, *rows, **changes), PUBLISHED[name])
    return said.verdict, " ".join(said.sentences)


def _poster(distilled: float, scratch: float) -> list[dict[str, Any]]:
    return [
        _row("teacher", 31.0, ssim=0.9),
        _row("scratch", 30.0 + 10 * (scratch - 0.8), ssim=scratch),
        _row("distilled", 30.0 + 10 * (distilled - 0.8), ssim=distilled),
    ]


def test_poster_agrees_when_distilling_beats_scratch_and_disagrees_when_the_figures_are_swapped():
    verdict, text = _said("poster", *_poster(0.82, 0.80))
    assert verdict == "Agrees"
    assert "`distilled` is ahead of `scratch` by SSIM on Set5 and Set14 (Set5 +0.0200, Set14 +0.0200)" in text
    assert "the poster: 0.5011 against 0.3455" in text
    assert "order by SSIM (`teacher`, `distilled`, `scratch`) holds on Set5 and Set14." in text
    verdict, text = _said("poster", *_poster(0.80, 0.82))
    assert verdict == "Disagrees"
    assert "`distilled` is not ahead of `scratch` by SSIM on Set5 and Set14 (Set5 -0.0200" in text
    assert "does not hold on Set5 and Set14." in text


def test_poster_agrees_in_part_when_a_student_passes_the_teacher():
    rows = _poster(0.95, 0.80)
    verdict, text = _said("poster", *rows)
    assert verdict == "Agrees in part"
    assert "does not hold on Set5 and Set14." in text


def test_poster_says_on_which_sets_it_holds():
    rows = _poster(0.82, 0.80)
    rows[2]["metrics"][1]["ssim"] = 0.5
    verdict, text = _said("poster", *rows)
    assert verdict == "Disagrees"
    assert "by SSIM on Set5 and is not ahead of `scratch` by SSIM on Set14" in text


@pytest.mark.parametrize("best", ["by_norm", "by_loss", "by_taylor", "by_position"])
def test_the_best_block_criterion_is_the_one_with_the_highest_psnr(best):
    names = ("by_norm", "by_loss", "by_taylor", "by_position")
    rows = [_row(name, 30.5 if name == best else 30.0) for name in names]
    _, text = _said("poster", *_poster(0.82, 0.80), *rows)
    assert f"`{best}` is best (mean PSNR: `{best}` 29.00" in text


def test_equal_criteria_are_equally_good():
    rows = [_row(name, 30.0) for name in ("by_norm", "by_loss")] + [_row("by_taylor", 29.0)]
    assert "`by_norm` and `by_loss` are equal and best" in _said("poster", *rows)[1]


def test_rows_that_are_not_there_leave_the_question_open():
    verdict, text = _said("poster", _row("teacher", 31.0))
    assert verdict == "Open"
    assert text.count("Not there yet: distilled, scratch.") == 1
    for name in PUBLISHED:
        assert agreement(_seed(name), PUBLISHED[name]).verdict == "Open"


def _hussain(student: float, share: float) -> list[dict[str, Any]]:
    rows = [_row("teacher", 31.5), _row("srgan", 29.0)]
    for name, weight in (("published", 1e-6), ("lpips", 0.1)):
        for against in ("teacher", "truth"):
            row = _row(f"{name}_{against}", student, lpips=0.2 if name == "published" else 0.15)
            row["options"]["method"] = {"name": "perceptual", "options": {"lpips": weight}}
            row["losses"] = {"loss": 0.05, "loss_lpips": 0.05 * (share if name == "published" else 0.4)}
            rows.append(row)
    return rows


@pytest.mark.parametrize(
    ("student", "share", "verdict", "says", "acts"),
    [
        (
            29.5,
            0.02,
            "Agrees",
            "`published_truth` exceeds its teacher `srgan` (PSNR Set5 +0.50, Set14 +0.50 dB",
            "acts",
        ),
        (28.95, 0.02, "Agrees", "`published_truth` matches its teacher `srgan`", "acts"),
        (
            29.5,
            2e-6,
            "Agrees in part",
            "`published_truth` exceeds its teacher",
            "does not act: it is 2e-06 of the loss",
        ),
        (
            28.0,
            2e-6,
            "Disagrees",
            "`published_truth` stays behind its teacher `srgan` (PSNR Set5 -1.00",
            "does not act",
        ),
    ],
)
def test_hussain_turns_with_the_students_psnr_and_the_share_of_the_lpips_term(student, share, verdict, says, acts):
    found, text = _said("hussain", *_hussain(student, share))
    assert found == verdict
    assert says in text
    assert f"at the weight 1e-06 the LPIPS term {acts}" in text
    assert "at the weight 0.1 the LPIPS term acts: it is 0.4 of the loss" in text
    assert "LPIPS Set5 -0.0500" in text
    assert "by Set5 +0.48, Set14 +0.30, Urban100 -0.30, BSD100 +0.29 dB" in text


def test_hussain_without_recorded_losses_says_so():
    rows = _hussain(29.5, 0.02)
    rows[2]["losses"] = {}
    assert "What share of its loss LPIPS has in `published_teacher` was not recorded." in _said("hussain", *rows)[1]


def _pruned(name: str, psnr: float, sparse: int) -> dict[str, Any]:
    return _row(name, psnr, nonzero=0.82, storage={"float32": _forms(2_000_000, sparse)})


def test_hussain_pruning_counts_the_bytes_and_names_the_form_that_reaches_the_abstract():
    before = _row("distilled", 30.0, parameters=600_000, storage={"float32": _forms(2_000_000)})
    teacher = _row("teacher", 31.0, parameters=1_500_000)
    verdict, text = _said("hussain_pruning", teacher, before, _pruned("pruned_global", 29.9, 1_600_000))
    assert verdict == "Agrees"
    assert "60% smaller; the abstract: 40%" in text
    assert "18.0% of its parameters are zero, which changes PSNR by Set5 -0.10, Set14 -0.10 dB" in text
    assert "dense 2,000,000 (+0.0%), sparse 1,600,000 (-20.0%), zlib 1,900,000 (+0.0%), sparse + zlib 1,500,000" in text
    assert "18% less is reached in the form sparse and sparse + zlib." in text
    rows = [before, _pruned("pruned_global", 29.9, 1_900_000), _pruned("pruned_layer", 29.8, 1_900_000)]
    verdict, text = _said("hussain_pruning", *rows)
    assert verdict == "Disagrees"
    assert "reached in no form" in text
    assert "`pruned_global` has the higher mean PSNR" in text
    rows[1], rows[2] = _pruned("pruned_global", 29.7, 1_900_000), _pruned("pruned_layer", 29.8, 1_900_000)
    assert "`pruned_layer` has the higher mean PSNR" in _said("hussain_pruning", *rows)[1]


@pytest.mark.parametrize(("name", "parameters"), [("cdism_edsr", 50_000), ("cdism_swinir", 150_000)])
def test_cdism_computes_what_the_minis_keep(name, parameters):
    teacher = _row("teacher", 34.0, parameters=1_370_000, macs=316)
    mini = _row("mini", 32.0, parameters=parameters, macs=316 * parameters // 1_370_000)
    rows = [teacher, mini, _row("mini_scratch", 31.5)]
    sizes = {"sizes": {"density": 0.031, "options": {"channels": 16, "blocks": 8, "scale": 2}}}
    verdict, text = _said(name, *rows, sizes=sizes)
    assert verdict == "Agrees"
    assert "`mini` keeps 75.0% on Set5, 75.0% on Set14" in text
    assert f"{1 - parameters / 1_370_000:.1%} fewer parameters" in text
    assert "so distillation pays" in text
    assert "density of 0.0310 gives the sizes channels 16, blocks 8" in text
    rows[2] = _row("mini_scratch", 32.5)
    rows[1] = copy.deepcopy(mini) | {"parameters": 700_000}
    verdict, text = _said(name, *rows)
    assert verdict == "Agrees in part"
    assert "distillation does not pay everywhere" in text
    rows[2] = _row("mini_scratch", 25.0)
    assert "`mini_scratch` keeps nothing, below bicubic, on Set5" in _said(name, *rows)[1]
    assert "48.9% fewer parameters" in text


FOUR = {"gan2gan": 28.8, "gan2g": 28.7, "gan2g_al": 28.6, "g2g_al": 29.5}


def _park(**psnr: float) -> list[dict[str, Any]]:
    rows = [_row(name, value, lpips=0.5 - value / 100) for name, value in psnr.items()]
    return [_row("student", 28.0, lpips=0.22), *rows]


def test_park_agrees_when_g2g_al_leads_in_the_published_order():
    verdict, text = _said("park", *_park(**FOUR))
    assert verdict == "Agrees"
    assert "By mean PSNR `g2g_al` leads (`g2g_al` 28.00, `gan2gan` 27.30" in text
    assert "By mean LPIPS `g2g_al` leads" in text
    assert "By PSNR on Set5 ours are `g2g_al`, `gan2gan`, `gan2g`, `gan2g_al`; Park has the same order." in text
    assert "by mean PSNR: `gan2gan`, `gan2g`, `gan2g_al`, `g2g_al`, of 4." in text


def test_park_disagrees_when_another_leads_and_no_transfer_helps():
    verdict, text = _said("park", *_park(gan2gan=27.5, gan2g=27.9, gan2g_al=27.6, g2g_al=26.0))
    assert verdict == "Disagrees"
    assert "`g2g_al` does not lead (`gan2g` 26.40" in text
    assert "Park has another order (`g2g_al`, `gan2gan`, `gan2g`, `gan2g_al`)" in text
    assert "Better than without transfer by mean PSNR: none, of 4." in text


def test_park_without_lpips_says_that_it_was_not_measured():
    rows = _park(**FOUR)
    for row in rows:
        for one in row["metrics"]:
            one["lpips"] = None
    assert "LPIPS was not measured." in _said("park", *rows)[1]


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
    ptq = _row("ptq", 30.1, kind="quantize", precision="int8", steps=0, start="tuned", data=None, batch=None)
    ptq |= {
        "options": {"student": "stage:tuned", "rule": "mse"},
        "storage": {"float32": _forms(200_000), "int8": _forms(60_000)},
    }
    tuned = _row("tuned", 30.2, start="slim", steps=500, steps_total=1500, teacher="rlfn_x4.pth")
    labels = {"scratch": "B = 6 | from scratch"}
    masked = _row("masked", 30.0, nonzero=0.5, storage={"float32": _forms(200_000, 110_000)}, pattern="2:4")
    _write(folder / "mobile", _seed("mobile", tuned, ptq, masked, title="Ours: to a phone", seed_document=""))
    _write(folder / "park", _seed("park", *_park(**FOUR), strip=True))
    _write(folder / "poster", _seed("poster", *_poster(0.82, 0.80), labels=labels, variant="quick"))
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
    published = _row("teacher", 31.0, kind="published", steps=0, steps_total=None, data=None)
    published["options"] = {"weights": "srgan.pth", "layout": "leftthomas"}
    tuned = _row("tuned", 31.0, start="teacher", steps=500, steps_total=None)
    lines = our_rows(_seed("poster", published, tuned))
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
