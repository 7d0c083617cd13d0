"""Rate theory against stored values, and networks against the theory."""

import pytest

from neuromorphic.engine.networks import Options, brunel
from neuromorphic.engine.theory import brunel_rate_hz, siegert_cv, siegert_rate_hz


def test_siegert_values():
    assert siegert_rate_hz(15.0, 5.0, 20.0, 2.0, 20.0, 10.0) == pytest.approx(9.4608, abs=1e-4)
    assert siegert_rate_hz(25.0, 3.0, 20.0, 2.0, 20.0, 0.0) == pytest.approx(30.502, abs=1e-3)
    assert siegert_cv(15.0, 5.0, 20.0, 2.0, 20.0, 10.0) == pytest.approx(0.8148, abs=1e-4)
    assert siegert_cv(25.0, 3.0, 20.0, 2.0, 20.0, 0.0) == pytest.approx(0.2147, abs=1e-4)


@pytest.mark.parametrize(("kwargs", "expected"), [
    ({"v_reset_mv": 10.0}, 37.95), ({"v_reset_mv": 10.0, "g": 6.0, "eta": 4.0}, 55.84), ({}, 32.03),
    ({"c_e": 400, "v_reset_mv": 10.0}, 60.34), ({"c_e": 400}, 45.62),
])  # fmt: skip
def test_brunel_theory_values(kwargs, expected):
    assert brunel_rate_hz(**kwargs) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("v_reset_mv", [0.0, 10.0])
def test_brunel_network_follows_the_theory(v_reset_mv):
    ready = brunel(Options(scale=0.4, seed=5), v_reset_mv=v_reset_mv)
    ready.network.run(100.0)
    report = ready.network.run(1000.0)
    rate = sum(report.spikes.values()) / report.neurons
    assert rate == pytest.approx(brunel_rate_hz(c_e=400, v_reset_mv=v_reset_mv), rel=0.02)
