"""Learning rate over a run, as a pure function of the optimiser step."""

import math

from snn.training.recipe import ScheduleOptions

RISING_SHARE, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4  # the defaults of torch's OneCycleLR


def learning_rate_factor(step: int, step_count: int, warmup_steps: int, options: ScheduleOptions) -> float:
    """Return the factor on the optimiser's learning rate at one step.

    Warm-up: (step + 1) / warmup_steps while step < warmup_steps. Then, with p the share of the remaining steps taken,
    cosine: final_fraction + (1 - final_fraction) * (1 + cos(pi * p)) / 2; constant: 1; one_cycle, in half waves of a
    cosine: from peak_factor / 25 at p = 0 to peak_factor at p = 0.3 and on to peak_factor / 250,000 at p = 1.

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
    if options.name == "one_cycle":
        peak, start = options.peak_factor, options.peak_factor / START_DIVISOR
        if progress < RISING_SHARE:
            return _half_wave(start, peak, progress / RISING_SHARE)
        return _half_wave(peak, start / END_DIVISOR, (progress - RISING_SHARE) / (1 - RISING_SHARE))
    return _half_wave(1.0, options.final_fraction, progress)


def delay_rate_factor(step: int, step_count: int, warmup_steps: int, options: ScheduleOptions) -> float:
    """Return the factor on the learning rate of learnable delays: that of the weights, but a cosine beside one_cycle.

    Args: as in `learning_rate_factor`.
    """
    if options.name == "one_cycle":
        return _half_wave(1.0, 0.0, min(1.0, step / max(1, step_count)))
    return learning_rate_factor(step, step_count, warmup_steps, options)


def _half_wave(first: float, last: float, progress: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * progress)) / 2
