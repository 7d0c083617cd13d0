"""Learning-rate factors."""

from __future__ import annotations

import math

import pytest

from snn.training.recipe import ScheduleOptions
from snn.training.schedule import learning_rate_factor


def test_warm_up_rises_linearly_and_cosine_ends_at_its_last_fraction() -> None:
    options = ScheduleOptions("cosine", final_fraction=0.1)
    factors = [learning_rate_factor(step, 100, 20, options) for step in range(101)]
    assert factors[:20] == pytest.approx([(k + 1) / 20 for k in range(20)])
    assert factors[20] == 1.0
    assert factors[60] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    expected = [0.1 + 0.9 * (1 + math.cos(math.pi * (k - 20) / 80)) / 2 for k in range(20, 101)]
    assert factors[20:] == pytest.approx(expected)


def test_constant_stays_after_the_warm_up() -> None:
    factors = [learning_rate_factor(step, 10, 2, ScheduleOptions("constant")) for step in range(11)]
    assert factors == [0.5, *[1.0] * 10]


def test_a_warm_up_as_long_as_the_run_never_divides_by_zero() -> None:
    assert learning_rate_factor(5, 5, 5, ScheduleOptions("cosine")) == 1.0
