"""The learning rate as a function of the step."""

import pytest

from compress.recipe import ScheduleSpec
from compress.schedule import learning_rate


def test_the_cosine_starts_at_the_top_and_ends_at_the_final_rate():
    schedule = ScheduleSpec(steps=100, learning_rate=1e-2, final_rate=1e-4, warmup=10)
    rates = [learning_rate(schedule, step) for step in range(101)]
    assert rates[0] == pytest.approx(1e-3)
    assert rates[4] == pytest.approx(5e-3)
    assert rates[9] == rates[10] == pytest.approx(1e-2)
    assert rates[55] == pytest.approx((1e-2 + 1e-4) / 2)
    assert rates[100] == pytest.approx(1e-4)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_the_step_schedule_drops_by_gamma_at_every_multiple():
    schedule = ScheduleSpec(steps=10, learning_rate=1.0, kind="step", every=4, gamma=0.1)
    assert [learning_rate(schedule, s) for s in (0, 3, 4, 7, 8)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
