"""The learning rate as a function of the step."""

import math

from compress.recipe import ScheduleSpec


def learning_rate(schedule: ScheduleSpec, step: int) -> float:
    """Learning rate at a step, counted from 0.

    Linear warm-up; then a half cosine from `learning_rate` to `final_rate` (Loshchilov and Hutter, "SGDR", 2017,
    without restarts), or a factor `gamma` every `every` steps.
    """
    if step < schedule.warmup:
        return schedule.learning_rate * (step + 1) / schedule.warmup
    if schedule.kind == "step":
        return schedule.learning_rate * schedule.gamma ** (step // schedule.every)
    progress = (step - schedule.warmup) / max(1, schedule.steps - schedule.warmup)
    drop = (1 + math.cos(math.pi * progress)) / 2
    return schedule.final_rate + (schedule.learning_rate - schedule.final_rate) * drop
