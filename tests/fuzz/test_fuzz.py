"""A few hundred spoilt files of every kind, and the rules that readers keep; `make fuzz` takes 10,000."""

import pytest

from tests.fuzz import breaking
from tests.fuzz.campaign import Case, cases_of, run
from tests.fuzz.targets import TARGETS

CASES = 300  # beside the hostile ones


@pytest.fixture(scope="module")
def summary(seeds):
    return run(cases_of(TARGETS, CASES), seeds)


def test_every_reader_keeps_the_rules(summary):
    assert not summary.broken, "\n\n".join(f"{one.outcome}: {one.case}\n{one.said}" for one in summary.broken)


@pytest.mark.parametrize("target", TARGETS)
def test_damage_reaches_every_reader(summary, target):
    assert summary.endings[target]["read" if TARGETS[target].tolerant else "refused"] > 0


def test_a_campaign_notices_every_broken_rule(seeds, monkeypatch):
    monkeypatch.setattr("tests.fuzz.campaign.SECONDS_MOST", 5.0)
    monkeypatch.setattr("tests.fuzz.campaign.SECONDS_FIRST", 5.0)
    monkeypatch.setattr("tests.fuzz.campaign.BYTES_MOST", 2**27)
    cases = [Case(name, "sizes.json", 0) for name in breaking.TARGETS if name != "ran code"]
    cases.append(Case("ran code", "code.txt", -1))
    found = []
    run(cases, seeds, found.append, module=breaking)
    assert [ending.outcome for ending in found] == [case.target for case in cases]
    assert [ending.case.target for ending in found if ending.kept] == ["contained"]
