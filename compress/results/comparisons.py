"""Rows of results held against each other, in words with their figures."""

from collections.abc import Sequence

from compress.results.files import Metric, SeedResults

NAMES: dict[Metric, str] = {"psnr": "PSNR", "ssim": "SSIM", "lpips": "LPIPS"}
DIGITS: dict[Metric, int] = {"psnr": 2, "ssim": 4, "lpips": 4}


def compare(seed: SeedResults, a: str, b: str, metric: Metric) -> tuple[bool, str]:
    """Whether row `a` is ahead of row `b` on every set that both have, and the words for where and by how much."""
    sets = seed.sets([a, b], metric)
    ahead = [name for name in sets if ranking(seed, [b, a], metric, [name])[0] == a]
    other = f"ahead of {seed.label(b)} by {NAMES[metric]}"
    words = f"{seed.label(a)} {on_sets(f'is {other}', f'is not {other}', ahead, sets)}"
    return bool(sets) and ahead == sets, f"{words} ({differences(seed, a, b, metric)})" if sets else words


def ranking(seed: SeedResults, rows: Sequence[str], metric: Metric, sets: Sequence[str]) -> list[str]:
    """Rows by their mean over the sets, best first (LPIPS: the lowest); equal ones stay in the order given."""
    sign = 1 if metric == "lpips" else -1
    return sorted(rows, key=lambda row: sign * seed.mean(row, metric, sets))


def listing(seed: SeedResults, rows: Sequence[str], metric: Metric, sets: Sequence[str]) -> str:
    """Rows with their means over the sets."""
    return ", ".join(f"{seed.label(row)} {seed.mean(row, metric, sets):.{DIGITS[metric]}f}" for row in rows)


def mean_difference(seed: SeedResults, a: str, b: str, metric: Metric) -> float:
    """Mean of row `a` minus mean of row `b` over the sets that both have."""
    sets = seed.sets([a, b], metric)
    return seed.mean(a, metric, sets) - seed.mean(b, metric, sets)


def differences(seed: SeedResults, a: str, b: str, metric: Metric) -> str:
    """Row `a` minus row `b`, set by set."""
    each = [
        f"{name} {seed.mean(a, metric, [name]) - seed.mean(b, metric, [name]):+.{DIGITS[metric]}f}"
        for name in seed.sets([a, b], metric)
    ]
    return ", ".join(each) + (" dB" if metric == "psnr" else "") if each else "an amount that was not measured"


def share_kept(seed: SeedResults, row: str, teacher: str) -> dict[str, float]:
    """By set, what share of the teacher's gain over bicubic in PSNR a row has; sets without such a gain are left out."""
    shares = {}
    for name in seed.sets([row, teacher], "psnr"):
        floor = seed.figure("bicubic", name, "psnr")
        if floor is not None and (gain := seed.mean(teacher, "psnr", [name]) - floor) > 0:
            shares[name] = (seed.mean(row, "psnr", [name]) - floor) / gain
    return shares


def best(seed: SeedResults, rows: Sequence[str], metric: Metric, sets: Sequence[str]) -> list[str]:
    """The rows with the best mean over the sets, several where it is equal in the digits that are shown."""
    shown = {row: f"{seed.mean(row, metric, sets):.{DIGITS[metric]}f}" for row in rows}
    first, *_ = ranking(seed, rows, metric, sets)
    return [row for row in rows if shown[row] == shown[first]]


def on_sets(does: str, does_not: str, some: Sequence[str], sets: Sequence[str]) -> str:
    """'holds on Set5 and Set14 and does not hold on BSD100', and the like; `some` are the sets on which it does."""
    rest = [name for name in sets if name not in some]
    parts = [f"{verb} on {and_(names)}" for verb, names in ((does, some), (does_not, rest)) if names]
    return " and ".join(parts) or f"{does_not} on any set, for none was measured"


def and_(names: Sequence[str]) -> str:
    """'a', 'a and b', 'a, b and c'."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
