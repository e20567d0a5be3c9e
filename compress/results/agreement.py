"""Do our figures agree with a seed document? Sentences made of the numbers on both sides, whatever they say."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.results.comparisons import (
    NAMES,
    and_,
    best,
    compare,
    differences,
    listing,
    mean_difference,
    on_sets,
    ranking,
    share_kept,
)
from compress.results.files import Metric, SeedResults
from compress.results.tables import WORDS

Published = Mapping[str, Any]
ACTS_FROM = 0.01  # share of the minimised loss from which a term is said to act
LEVEL = 0.1  # dB within which a student is said to match its teacher
SIZE_OPTIONS = ("channels", "dim", "depths", "blocks")


@dataclass
class Agreement:
    """What is said of one seed.

    Attributes:
        claims: whether each claim of the document holds here.
        sentences: with the figures that decide it.
    """

    claims: list[bool] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)

    @property
    def verdict(self) -> str:
        if not self.claims:
            return "Open"
        return "Agrees" if all(self.claims) else "Agrees in part" if any(self.claims) else "Disagrees"

    def say(self, sentence: str, *claims: bool) -> None:
        self.sentences.append(sentence)
        self.claims += claims

    def has(self, seed: SeedResults, *rows: str) -> bool:
        """Whether all the rows are there; where not, that is said."""
        missing = [row for row in rows if row not in seed.rows]
        sentence = f"Not there yet: {', '.join(missing)}."
        if missing and sentence not in self.sentences:
            self.say(sentence)
        return not missing


def agreement(seed: SeedResults, published: Published) -> Agreement:
    """Holds a seed's rows against its document.

    Args:
        seed: with a name in `JUDGES`.
        published: the document's entry in results/published.yaml.
    """
    said = Agreement()
    JUDGES[seed.name](said, seed, published)
    return said


def poster(said: Agreement, seed: SeedResults, published: Published) -> None:
    """Does distilling beat training from scratch, is the order by SSIM the poster's, which blocks are best kept?"""
    theirs = {row["row"]: next(iter(row["sets"].values()))["ssim"] for row in published["rows"]}
    if said.has(seed, "distilled", "scratch"):
        ahead, by_ssim = compare(seed, "distilled", "scratch", "ssim")
        _, by_psnr = compare(seed, "distilled", "scratch", "psnr")
        said.say(f"{by_ssim}; the poster: {theirs['distilled']:.4f} against {theirs['scratch']:.4f}.", ahead)
        said.say(f"{by_psnr}.")
    order = sorted(theirs, key=lambda row: -theirs[row])
    if said.has(seed, *order):
        sets = seed.sets(order, "ssim")
        holds = [name for name in sets if ranking(seed, order, "ssim", [name]) == order]
        where = on_sets("holds", "does not hold", holds, sets)
        said.say(f"The poster's order by SSIM ({_listed(seed, order)}) {where}.", bool(sets) and holds == sets)
    criteria = [row for row in seed.rows if row.startswith("by_")]
    if criteria and (sets := seed.sets(criteria, "psnr")):
        first = best(seed, criteria, "psnr", sets)
        figures = listing(seed, ranking(seed, criteria, "psnr", sets), "psnr", sets)
        verb = "is" if len(first) == 1 else "are equal and"
        said.say(
            f"Its future work, blocks chosen by importance: {and_([seed.label(row) for row in first])} {verb} best "
            f"(mean PSNR: {figures})."
        )
    for row in ("deep", "narrow"):
        if {row, "distilled"} <= set(seed.rows):
            count = f"{seed.rows[row]['parameters']:,} parameters against {seed.rows['distilled']['parameters']:,}"
            said.say(f"Layer sizes varied: {compare(seed, row, 'distilled', 'psnr')[1]}, with {count}.")


def hussain(said: Agreement, seed: SeedResults, published: Published) -> None:
    """Does the student of four blocks match its teacher, and does the LPIPS term act?"""
    teacher = "srgan"
    students = [row for row in seed.rows if row.startswith(("published_", "lpips_"))]
    if said.has(seed, teacher, *([] if students else ["published_teacher"])):
        for student in students:
            if not seed.sets([student, teacher], "psnr"):
                said.say(f"{seed.label(student)} and {seed.label(teacher)} were not measured on one set.")
                continue
            mean = mean_difference(seed, student, teacher, "psnr")
            verb = "matches" if abs(mean) <= LEVEL else "exceeds" if mean > 0 else "stays behind"
            figures = "; ".join(
                f"{NAMES[m]} {differences(seed, student, teacher, m)}" for m in _measured(seed, student)
            )
            claims = [mean >= -LEVEL] if student.startswith("published_") else []
            said.say(f"{seed.label(student)} {verb} its teacher {seed.label(teacher)} ({figures}).", *claims)
        figures = {row["row"]: row["sets"] for row in published["rows"]}
        theirs, ours = figures[teacher], figures["published_teacher"]
        gains = ", ".join(f"{name} {ours[name]['psnr'] - theirs[name]['psnr']:+.2f}" for name in theirs)
        said.say(f"In the paper the student differs from its teacher by {gains} dB.")
    for against in ("teacher", "truth"):
        _lpips_term(said, seed, f"published_{against}", f"lpips_{against}")


def _lpips_term(said: Agreement, seed: SeedResults, published: str, useful: str) -> None:
    if not said.has(seed, published, useful):
        return
    shares = {}
    for row in (published, useful):
        losses = seed.rows[row].get("losses", {})
        if not losses.get("loss") or "loss_lpips" not in losses:
            said.say(f"What share of its loss LPIPS has in {seed.label(row)} was not recorded.")
            return
        shares[row] = losses["loss_lpips"] / losses["loss"]
    weights = {row: seed.rows[row]["options"]["method"]["options"].get("lpips") for row in shares}
    acts = {row: "acts" if share >= ACTS_FROM else "does not act" for row, share in shares.items()}
    parts = (
        f"at the weight {weights[row]} the LPIPS term {acts[row]}: it is {shares[row]:.2g} of the loss"
        for row in shares
    )
    changes = "; ".join(f"{NAMES[m]} {differences(seed, useful, published, m)}" for m in _measured(seed, useful))
    said.say(
        f"{seed.label(published)} and {seed.label(useful)}: {', '.join(parts)}. From one to the other: {changes}.",
        shares[published] >= ACTS_FROM,
    )


def hussain_pruning(said: Agreement, seed: SeedResults, published: Published) -> None:
    """What do the zeros cost, and in which form do they save bytes?"""
    pruned = [row for row in seed.rows if row.startswith("pruned_")]
    if not said.has(seed, "distilled", *([] if pruned else ["pruned_global"])):
        return
    if "teacher" in seed.rows:
        smaller = 1 - seed.rows["distilled"]["parameters"] / seed.rows["teacher"]["parameters"]
        said.say(
            f"Distillation makes the network {smaller:.0%} smaller; the abstract: {published['distillation_reduction']:.0%}."
        )
    both = ["pruned_global", "pruned_layer"]
    wanted, before = published["pruning_reduction"], seed.rows["distilled"]["storage"]["float32"]
    for row in pruned:
        sizes = seed.rows[row]["storage"]["float32"]
        change = {form: sizes[form] / before[form] - 1 for form in WORDS}
        listed = ", ".join(f"{WORDS[form]} {sizes[form]:,} ({change[form]:+.1%})" for form in WORDS)
        reached = [WORDS[form] for form in WORDS if round(-change[form], 3) >= wanted]
        said.say(
            f"{seed.label(row)}: {1 - seed.rows[row]['nonzero']:.1%} of its parameters are zero, which changes PSNR by "
            f"{differences(seed, row, 'distilled', 'psnr')}. Its weights in bytes, and against the student before in the same "
            f"form: {listed}."
        )
        if row in both:  # others prune to another degree
            forms = f"in the form {and_(reached)}" if reached else "in no form"
            said.say(f"The abstract's {wanted:.0%} less is reached {forms}.", bool(reached))
    if set(both) <= set(pruned) and (sets := seed.sets(both, "psnr")):
        first = best(seed, both, "psnr", sets)
        higher = f"{seed.label(first[0]) if len(first) == 1 else 'neither'} has the higher mean PSNR"
        said.say(f"Of magnitudes compared globally and layer by layer, {higher} ({listing(seed, both, 'psnr', sets)}).")


def cdism(said: Agreement, seed: SeedResults, published: Published) -> None:
    """How much smaller are the minis, and what share of their teacher's gain over bicubic do they keep?"""
    if not said.has(seed, "teacher", "mini"):
        return
    wanted, teacher = published["reduction"], seed.rows["teacher"]
    fewer = {key: 1 - seed.rows["mini"][key] / teacher[key] for key in ("parameters", "macs")}
    said.say(
        f"{seed.label('mini')} has {fewer['parameters']:.1%} fewer parameters and {fewer['macs']:.1%} fewer "
        f"multiply-accumulates than its teacher; the paper: {wanted:.0%} of both.",
        *(round(share, 2) >= wanted for share in fewer.values()),
    )
    for row in ("mini", "mini_derived", "mini_scratch"):
        if row in seed.rows:
            shares = share_kept(seed, row, "teacher")
            words = {name: f"{share:.1%}" if share > 0 else "nothing, below bicubic," for name, share in shares.items()}
            listed = ", ".join(f"{kept} on {name}" for name, kept in words.items())
            said.say(
                f"Of its teacher's gain in PSNR over bicubic, {seed.label(row)} keeps "
                f"{listed or 'nothing that could be counted, for there was none on any set'}."
            )
    if "mini_scratch" in seed.rows:
        ahead, words = compare(seed, "mini", "mini_scratch", "psnr")
        said.say(f"{words}, so distillation {'pays' if ahead else 'does not pay everywhere'}.", ahead)
    if "sparse" in seed.rows:
        said.say(
            f"Sparsified, {seed.rows['sparse']['nonzero']:.1%} of the teacher's parameters are not zero, and PSNR changes "
            f"by {differences(seed, 'sparse', 'teacher', 'psnr')}."
        )
    for sizes in seed.sizes.values():
        options = ", ".join(f"{key} {sizes['options'][key]}" for key in SIZE_OPTIONS if key in sizes["options"])
        said.say(f"A density of {sizes['density']:.4f} gives the sizes {options}.")


def park(said: Agreement, seed: SeedResults, published: Published) -> None:
    """Does G2G+AL lead, in what order are the four, and is each transfer better than none?"""
    figures = {row["row"]: row["sets"] for row in published["rows"]}
    four = [row for row in figures if row not in ("srgan", "student")]
    if said.has(seed, *four):
        for metric in ("psnr", "lpips"):
            sets = seed.sets(four, metric)
            ranked = ranking(seed, four, metric, sets)
            if not sets:
                said.say(f"{NAMES[metric]} was not measured.")
                continue
            leads = ranked[0] == "g2g_al"
            said.say(
                f"By mean {NAMES[metric]} {seed.label('g2g_al')} {'leads' if leads else 'does not lead'} "
                f"({listing(seed, ranked, metric, sets)}).",
                leads,
            )
        for name in seed.sets(four, "psnr"):
            if all(name in figures[row] for row in four):
                theirs = sorted(four, key=lambda row, name=name: -figures[row][name]["psnr"])
                ours = ranking(seed, four, "psnr", [name])
                words = "the same order" if ours == theirs else f"another order ({_listed(seed, theirs)})"
                said.say(f"By PSNR on {name} ours are {_listed(seed, ours)}; Park has {words}.", ours == theirs)
    there = [row for row in four if row in seed.rows]
    if there and said.has(seed, "student"):
        for metric in ("psnr", "lpips"):
            if sets := seed.sets(["student", *there], metric):
                better = [row for row in there if ranking(seed, ["student", row], metric, sets)[0] == row]
                names = _listed(seed, better) or "none"
                said.say(
                    f"Better than without transfer by mean {NAMES[metric]}: {names}, of {len(there)}.", better == there
                )


def _listed(seed: SeedResults, rows: Sequence[str]) -> str:
    return ", ".join(seed.label(row) for row in rows)


def _measured(seed: SeedResults, row: str) -> list[Metric]:
    return [metric for metric in NAMES if seed.sets([row], metric)]


JUDGES: dict[str, Callable[[Agreement, SeedResults, Published], None]] = {
    "poster": poster,
    "hussain": hussain,
    "hussain_pruning": hussain_pruning,
    "cdism_edsr": cdism,
    "cdism_swinir": cdism,
    "park": park,
}
