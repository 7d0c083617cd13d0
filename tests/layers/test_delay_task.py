"""Learned delays solve a task of relative spike times; without delays it cannot be solved."""

from __future__ import annotations

from timing_task import accuracy

HIDDEN, EPOCHS, SAMPLES = 24, 120, 400


def test_learned_delays_beat_random_ones_and_none() -> None:
    found = {
        delays: accuracy(delays, HIDDEN, EPOCHS, SAMPLES, seed=0, factor=10.0)
        for delays in ("learned", "random", "none")
    }
    assert found["learned"] >= 0.95
    assert found["none"] <= 0.60
    assert found["none"] < found["random"] < found["learned"]
