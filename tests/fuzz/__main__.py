"""Spoils files of every kind that is read, and holds the readers to the rules: `python -m tests.fuzz` (`make fuzz`).

The rules: a file is read or refused with one sentence; no traceback, no more than 10 s of processor time, no more than 2 GiB
of memory, and nothing in a file is executed. Only the native code of an engine may crash, since commands contain that.
"""

import argparse
import collections
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from compress.errors import BadInput, run_command
from tests.fuzz.campaign import Case, Ending, Summary, cases_of, run, write_case
from tests.fuzz.seeds import ROOT, make_seeds
from tests.fuzz.targets import TARGETS

KEPT = ROOT / "build" / "fuzz"
SHOWN = 20


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument(
        "--cases", type=int, default=10_000, help="spoilt files, beside the hostile ones (default: 10000)"
    )
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first case; others spoil otherwise (default: 0)"
    )
    parser.add_argument(
        "--targets", nargs="+", default=list(TARGETS), help=f"out of {', '.join(TARGETS)}; default: all"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    given = parser.parse_args()
    if unknown := set(given.targets) - set(TARGETS):
        raise BadInput(f"expected targets out of {', '.join(TARGETS)}, found {', '.join(unknown)}: choose some.")
    seeds = KEPT / "seeds"
    if not (seeds / "sizes.json").exists():  # the last one made
        print("making whole files", file=sys.stderr)
        make_seeds(seeds)
    cases = cases_of({name: TARGETS[name] for name in given.targets}, given.cases, given.first)
    summaries, start = _run_all(cases, seeds, max(1, given.workers)), time.monotonic()
    return report(summaries, seeds, time.monotonic() - start)


def _run_all(cases: list[Case], seeds: Path, workers: int) -> list[Summary]:
    done, start = collections.Counter(), time.monotonic()

    def count(ending: Ending) -> None:
        done["all"] += 1
        if not ending.kept:
            print(f"{ending.outcome}: {ending.case}", file=sys.stderr)
        if done["all"] % 500 == 0:
            left = (time.monotonic() - start) / done["all"] * (len(cases) - done["all"])
            print(f"fuzz: {done['all']}/{len(cases)}, {left:.0f} s left", file=sys.stderr)

    with ThreadPoolExecutor(workers) as pool:
        parts = [cases[i::workers] for i in range(workers)]
        return list(pool.map(lambda part: run(part, seeds, count), parts))


def report(summaries: list[Summary], seeds: Path, seconds: float) -> int:
    """The table, and the cases that broke a rule, kept below build/fuzz; returns the exit code."""
    print(
        f"{'target':<10} {'cases':>6} {'read':>6} {'refused':>8} {'contained':>10} {'broken':>7} {'slowest':>9} {'memory':>9}"
    )
    for target in TARGETS:
        endings = sum((one.endings.get(target, collections.Counter()) for one in summaries), collections.Counter())
        if not endings:
            continue
        broken = sum(endings.values()) - endings["read"] - endings["refused"] - endings["contained"]
        slowest = max(one.slowest.get(target, 0.0) for one in summaries)
        largest = max(one.largest.get(target, 0) for one in summaries)
        print(
            f"{target:<10} {sum(endings.values()):>6} {endings['read']:>6} {endings['refused']:>8} {endings['contained']:>10} "
            f"{broken:>7} {slowest:>7.1f} s {largest / 2**20:>5.0f} MiB"
        )
    broken = [ending for one in summaries for ending in one.broken]
    for number, ending in enumerate(broken[:SHOWN]):
        into = KEPT / "broken" / str(number)
        into.mkdir(parents=True, exist_ok=True)
        path = write_case(ending.case, TARGETS[ending.case.target], seeds, into, into / "canary")
        print(f"\n{ending.outcome}: {path.relative_to(ROOT)} ({ending.case})\n{ending.said.strip()[-1500:]}")
    print(
        f"\n{sum(sum(c.values()) for one in summaries for c in one.endings.values())} cases, {len(broken)} broke a rule"
    )
    return 1 if broken else 0


if __name__ == "__main__":
    run_command(main)
