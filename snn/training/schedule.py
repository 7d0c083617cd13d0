"""Learning rate over a run, as a pure function of the optimiser step."""

import math

from snn.training.recipe import ScheduleOptions


def learning_rate_factor(step: int, step_count: int, warmup_steps: int, options: ScheduleOptions) -> float:
    """Return the factor on the optimiser's learning rate at one step.

    Warm-up: (step + 1) / warmup_steps while step < warmup_steps. Then, with p the share of the remaining steps taken,
    cosine: final_fraction + (1 - final_fraction) * (1 + cos(pi * p)) / 2; constant: 1.

    Args:
        step: optimiser steps taken so far, 0 for the first.
        step_count: optimiser steps of the whole run.
        warmup_steps: of these, steps of the linear rise.
        options: the recipe's schedule.

    >>> cosine = ScheduleOptions("cosine")
    >>> [round(learning_rate_factor(step, 6, 2, cosine), 3) for step in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    if options.name == "constant":
        return 1.0
    progress = min(1.0, (step - warmup_steps) / max(1, step_count - warmup_steps))
    return options.final_fraction + (1 - options.final_fraction) * (1 + math.cos(math.pi * progress)) / 2
