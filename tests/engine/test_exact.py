"""Exact event-driven simulation: closed forms, and the limit of the clocked engine for small steps."""

import numpy as np
import pytest

from neuromorphic.engine import FixedInDegree, Network
from neuromorphic.engine.exact import ExactLIF, lazy_delta_spikes, simulate_exact, sum_zeros

NONE = (np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros(0))
NO_INPUT = (np.zeros(0), np.zeros(0, int), np.zeros(0))


def test_interval_with_constant_current():
    p = ExactLIF(tau_m_ms=20.0, c_m_pf=250.0, v_reset_mv=10.0, t_ref_ms=2.0, i_e_pa=25.0 * 250.0 / 20.0)
    times, _ = simulate_exact(p, 1, NONE, NO_INPUT, 200.0)
    assert times[0] == pytest.approx(20.0 * np.log(5.0), abs=1e-12)
    np.testing.assert_allclose(np.diff(times), 2.0 + 20.0 * np.log(3.0), rtol=1e-12)


def test_zeros_of_sums_are_all_found():
    terms = [(6.0, 1.0), (-11.0, 2.0), (6.0, 3.0)]
    # with x = exp(-t): -1 + 6x - 11x^2 + 6x^3 = 6 (x - 1)(x - 1/2)(x - 1/3)
    np.testing.assert_allclose(sum_zeros(-1.0, terms, 50.0), [np.log(2.0), np.log(3.0)], rtol=1e-12)
    assert sum_zeros(1.0, [(1.0, 0.5)], 50.0) == []


def test_a_brief_excursion_above_threshold_is_seen():
    p = ExactLIF(tau_m_ms=10.0, v_th_mv=0.15, v_reset_mv=0.0, tau_syn_ms=(0.5,))
    strong, _ = simulate_exact(p, 1, NONE, (np.array([1.0]), np.array([0]), np.array([87.809])), 50.0)
    weak, _ = simulate_exact(p, 1, NONE, (np.array([1.0]), np.array([0]), np.array([87.808])), 50.0)
    assert len(strong) == 1
    assert strong[0] == pytest.approx(1.0 + 1.5767, abs=0.01)
    assert len(weak) == 0


@pytest.mark.parametrize("tau_syn", [(), (2.0,), (2.0, 5.0)], ids=["delta", "exp", "two"])
def test_the_clocked_engine_converges_to_the_exact_times(tau_syn):
    n, duration, h = 12, 60.0, 0.01
    model = {0: "iaf_psc_delta", 1: "iaf_psc_exp_one", 2: "iaf_psc_exp"}[len(tau_syn)]
    scale = 1.0 if not tau_syn else 80.0
    net = Network(dt_ms=h, seed=4, dtype="float64")
    names = {1: ["tau_syn"], 2: ["tau_syn_ex", "tau_syn_in"]}.get(len(tau_syn), [])
    generator = np.random.default_rng(2)
    v0 = generator.uniform(0.0, 15.0, n)
    cells = net.population(
        model, n, C_m=250.0, tau_m=20.0, E_L=0.0, V_th=20.0, V_reset=0.0, t_ref=2.0, I_e=350.0, initial={"v": v0},
        **dict(zip(names, tau_syn, strict=True)),
    )  # fmt: skip
    p = net.connect(cells, cells, FixedInDegree(4), -0.7 * scale, delay_ms=1.5)
    spikes = net.record(cells, "spikes")
    net.run(duration)
    parameters = ExactLIF(i_e_pa=350.0, tau_syn_ms=tau_syn)
    times, ids = simulate_exact(parameters, n, net.synapses(p), NO_INPUT, duration, v0_mv=v0)
    assert len(times) > 15
    for i in range(n):
        mine, exact = spikes.times_ms[spikes.ids == i], times[ids == i]
        assert abs(len(mine) - len(exact)) <= 1
        count = min(len(mine), len(exact))
        np.testing.assert_allclose(mine[:count], exact[:count], atol=12 * h)


def test_lazy_and_clocked_delta_neurons_agree():
    n, steps, h = 30, 2000, 0.1
    generator = np.random.default_rng(3)
    at = np.sort(generator.integers(1, steps, 150))
    who = generator.integers(0, n, 150)
    keep = np.unique(at * n + who, return_index=True)[1]
    at, who = at[keep], who[keep]
    net = Network(dt_ms=h, seed=2, dtype="float64")
    source = net.population("spike_list", n, times_ms=at * h, ids=who)
    cells = net.population("iaf_psc_delta", n, tau_m=20.0, E_L=0.0, V_th=10.0, V_reset=0.0, t_ref=2.0)
    net.connect(source, cells, "one_to_one", 7.0, delay_ms=h)
    p = net.connect(cells, cells, FixedInDegree(5), 3.5, delay_ms=1.3)
    spikes = net.record(cells, "spikes")
    net.run(steps * h)
    inputs = (at + 1, who, np.full(len(at), 7.0))
    lazy = lazy_delta_spikes(20.0, 10.0, 20, net.synapses(p), inputs, n, steps, h)
    assert len(lazy) > 15
    assert lazy == list(zip(spikes.steps.tolist(), spikes.ids.tolist(), strict=True))


def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="tau_m_ms"):
        ExactLIF(tau_m_ms=0.0)
    with pytest.raises(ValueError, match="differ from tau_m_ms"):
        ExactLIF(tau_m_ms=5.0, tau_syn_ms=(5.0,))
    with pytest.raises(ValueError, match="delays must be > 0"):
        simulate_exact(ExactLIF(), 1, (np.array([0]), np.array([0]), np.array([1.0]), np.array([0.0])), NO_INPUT, 1.0)
