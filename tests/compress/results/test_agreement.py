"""Sentences on what the seed documents found turn with the figures."""

import copy
from typing import Any

import pytest

from compress.results.agreement import agreement
from tests.compress.results.conftest import FOUR, PUBLISHED, forms, park, poster, row_of, seed_of


def _said(name: str, *rows: dict[str, Any], **changes: Any) -> tuple[str, str]:
    said = agreement(seed_of(name, *rows, **changes), PUBLISHED[name])
    return said.verdict, " ".join(said.sentences)


def test_poster_agrees_when_distilling_beats_scratch_and_disagrees_when_the_figures_are_swapped():
    verdict, text = _said("poster", *poster(0.82, 0.80))
    assert verdict == "Agrees"
    assert "`distilled` is ahead of `scratch` by SSIM on Set5 and Set14 (Set5 +0.0200, Set14 +0.0200)" in text
    assert "the poster: 0.5011 against 0.3455" in text
    assert "order by SSIM (`teacher`, `distilled`, `scratch`) holds on Set5 and Set14." in text
    verdict, text = _said("poster", *poster(0.80, 0.82))
    assert verdict == "Disagrees"
    assert "`distilled` is not ahead of `scratch` by SSIM on Set5 and Set14 (Set5 -0.0200" in text
    assert "does not hold on Set5 and Set14." in text


def test_poster_agrees_in_part_when_a_student_passes_the_teacher():
    rows = poster(0.95, 0.80)
    verdict, text = _said("poster", *rows)
    assert verdict == "Agrees in part"
    assert "does not hold on Set5 and Set14." in text


def test_poster_says_on_which_sets_it_holds():
    rows = poster(0.82, 0.80)
    rows[2]["metrics"][1]["ssim"] = 0.5
    verdict, text = _said("poster", *rows)
    assert verdict == "Disagrees"
    assert "by SSIM on Set5 and is not ahead of `scratch` by SSIM on Set14" in text


@pytest.mark.parametrize("best", ["by_norm", "by_loss", "by_taylor", "by_position"])
def test_the_best_block_criterion_is_the_one_with_the_highest_psnr(best):
    names = ("by_norm", "by_loss", "by_taylor", "by_position")
    rows = [row_of(name, 30.5 if name == best else 30.0) for name in names]
    _, text = _said("poster", *poster(0.82, 0.80), *rows)
    assert f"`{best}` is best (mean PSNR: `{best}` 29.00" in text


def test_equal_criteria_are_equally_good():
    rows = [row_of(name, 30.0) for name in ("by_norm", "by_loss")] + [row_of("by_taylor", 29.0)]
    assert "`by_norm` and `by_loss` are equal and best" in _said("poster", *rows)[1]


def test_rows_that_are_not_there_leave_the_question_open():
    verdict, text = _said("poster", row_of("teacher", 31.0))
    assert verdict == "Open"
    assert text.count("Not there yet: distilled, scratch.") == 1
    for name in PUBLISHED:
        assert agreement(seed_of(name), PUBLISHED[name]).verdict == "Open"


def _hussain(student: float, share: float) -> list[dict[str, Any]]:
    rows = [row_of("teacher", 31.5), row_of("srgan", 29.0)]
    for name, weight in (("published", 1e-6), ("lpips", 0.1)):
        for against in ("teacher", "truth"):
            row = row_of(f"{name}_{against}", student, lpips=0.2 if name == "published" else 0.15)
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
    return row_of(name, psnr, nonzero=0.82, storage={"float32": forms(2_000_000, sparse)})


def test_hussain_pruning_counts_the_bytes_and_names_the_form_that_reaches_the_abstract():
    before = row_of("distilled", 30.0, parameters=600_000, storage={"float32": forms(2_000_000)})
    teacher = row_of("teacher", 31.0, parameters=1_500_000)
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
    teacher = row_of("teacher", 34.0, parameters=1_370_000, macs=316)
    mini = row_of("mini", 32.0, parameters=parameters, macs=316 * parameters // 1_370_000)
    rows = [teacher, mini, row_of("mini_scratch", 31.5)]
    sizes = {"sizes": {"density": 0.031, "options": {"channels": 16, "blocks": 8, "scale": 2}}}
    verdict, text = _said(name, *rows, sizes=sizes)
    assert verdict == "Agrees"
    assert "`mini` keeps 75.0% on Set5, 75.0% on Set14" in text
    assert f"{1 - parameters / 1_370_000:.1%} fewer parameters" in text
    assert "so distillation pays" in text
    assert "density of 0.0310 gives the sizes channels 16, blocks 8" in text
    rows[2] = row_of("mini_scratch", 32.5)
    rows[1] = copy.deepcopy(mini) | {"parameters": 700_000}
    verdict, text = _said(name, *rows)
    assert verdict == "Agrees in part"
    assert "distillation does not pay everywhere" in text
    rows[2] = row_of("mini_scratch", 25.0)
    assert "`mini_scratch` keeps nothing, below bicubic, on Set5" in _said(name, *rows)[1]
    assert "48.9% fewer parameters" in text


def test_park_agrees_when_g2g_al_leads_in_the_published_order():
    verdict, text = _said("park", *park(**FOUR))
    assert verdict == "Agrees"
    assert "By mean PSNR `g2g_al` leads (`g2g_al` 28.00, `gan2gan` 27.30" in text
    assert "By mean LPIPS `g2g_al` leads" in text
    assert "By PSNR on Set5 ours are `g2g_al`, `gan2gan`, `gan2g`, `gan2g_al`; Park has the same order." in text
    assert "by mean PSNR: `gan2gan`, `gan2g`, `gan2g_al`, `g2g_al`, of 4." in text


def test_park_disagrees_when_another_leads_and_no_transfer_helps():
    verdict, text = _said("park", *park(gan2gan=27.5, gan2g=27.9, gan2g_al=27.6, g2g_al=26.0))
    assert verdict == "Disagrees"
    assert "`g2g_al` does not lead (`gan2g` 26.40" in text
    assert "Park has another order (`g2g_al`, `gan2gan`, `gan2g`, `gan2g_al`)" in text
    assert "Better than without transfer by mean PSNR: none, of 4." in text


def test_park_without_lpips_says_that_it_was_not_measured():
    rows = park(**FOUR)
    for row in rows:
        for one in row["metrics"]:
            one["lpips"] = None
    assert "LPIPS was not measured." in _said("park", *rows)[1]
