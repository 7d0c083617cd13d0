"""Plasticity against the stored values of an independent recursion, and against direct evaluation."""

import numpy as np
import pytest

from neuromorphic.engine import (
    Network,
    PairSTDP,
    PowerLawSTDP,
    RewardSTDP,
    ShortTermPlasticity,
    SynapticScaling,
    TripletSTDP,
)

PRE, POST = [10.0, 30.0, 50.0, 80.0], [20.0, 45.0, 47.0]


def forced(rule, pre_ms=PRE, post_ms=POST, w0=50.0, threads=1, delay_ms=1.0, stop_ms=90.0, copies=1):
    """Network in which a spike list forces the post neuron; returns it with the plastic projection.

    The forcing weight makes the post neuron fire when its spike arrives, one step after the list's spike.
    """
    net = Network(dt_ms=0.1, seed=1, threads=threads, dtype="float64")
    pre = net.population(
        "spike_list", copies, times_ms=np.repeat(pre_ms, copies), ids=list(range(copies)) * len(pre_ms)
    )
    forcing = net.population(
        "spike_list",
        copies,
        times_ms=np.repeat(np.array(post_ms) - 0.1, copies),
        ids=list(range(copies)) * len(post_ms),
    )
    post = net.population("iaf_psc_delta", copies, V_th=1e6, E_L=0.0, V_reset=0.0, t_ref=0.0)
    net.connect(forcing, post, "one_to_one", weight=1e9, delay_ms=0.1)
    plastic = net.connect(pre, post, "one_to_one", weight=w0, delay_ms=delay_ms, plasticity=rule)
    spikes = net.record(post, "spikes")
    net.run(stop_ms)
    np.testing.assert_allclose(spikes.times_ms[::copies], post_ms)
    return net, plastic


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (PairSTDP(learning_rate=0.01, alpha=1.0, mu_plus=1, mu_minus=1), 49.345449269),
        (PairSTDP(learning_rate=0.01, alpha=1.05, mu_plus=0, mu_minus=0), 48.563395265),
        (PairSTDP(learning_rate=0.01, alpha=1.0, mu_plus=0, mu_minus=0, pairing="nearest"), 49.688486347),
        (TripletSTDP(tau_minus_ms=33.7, tau_y_ms=110.0), 49.978449335),
        (TripletSTDP(tau_minus_ms=33.7, tau_y_ms=125.0), 49.978588754),
    ],
    ids=["multiplicative", "additive", "nearest", "triplet-110", "triplet-125"],
)
def test_weight_after_the_last_pre_spike(rule, expected):
    net, plastic = forced(rule)
    assert net.synapses(plastic)[2][0] == pytest.approx(expected, abs=5e-9)


def test_reading_weights_brings_post_spikes_up_to_date():
    rule = PairSTDP(mu_plus=0, mu_minus=0)
    net, plastic = forced(rule, pre_ms=[10.0], post_ms=[12.0], stop_ms=12.9)
    assert net.synapses(plastic)[2][0] == 50.0  # the post spike reaches the synapse at 13.0
    net.run(0.1)
    assert net.synapses(plastic)[2][0] == pytest.approx(50.0 + np.exp(-3.0 / 20.0), abs=1e-12)


def test_coincidence_is_skipped_by_depression_only():
    rule = PairSTDP(mu_plus=0, mu_minus=0)
    net, plastic = forced(rule, pre_ms=[10.0, 21.0], post_ms=[20.0])
    assert net.synapses(plastic)[2][0] == pytest.approx(50.0 + np.exp(-11.0 / 20.0), abs=1e-12)


def power_law_reference(rule, pre, post, delay, w):
    """All-to-all pairs by direct summation, events in order, potentiation first at equal times."""
    events = sorted([(t, 1) for t in pre] + [(t + delay, 0) for t in post])
    seen_pre, seen_post = [], []
    for t, is_pre in events:
        if is_pre:
            w -= (
                rule.learning_rate
                * rule.alpha
                * w
                * sum(np.exp(-(t - p) / rule.tau_minus_ms) for p in seen_post if p < t)
            )
            seen_pre.append(t)
        else:
            w += rule.learning_rate * w**rule.mu * sum(np.exp(-(t - p) / rule.tau_plus_ms) for p in seen_pre)
            seen_post.append(t)
    return w


def test_power_law_equals_direct_summation():
    rule = PowerLawSTDP(alpha=0.3)
    net, plastic = forced(rule)
    assert net.synapses(plastic)[2][0] == pytest.approx(power_law_reference(rule, PRE, POST, 1.0, 50.0), rel=1e-12)


def test_history_survives_more_post_spikes_than_it_holds():
    rule = PowerLawSTDP(learning_rate=0.001, alpha=0.3)
    post = np.arange(20.0, 520.0, 1.5).round(1)
    net, plastic = forced(rule, pre_ms=[10.0, 500.0], post_ms=post, stop_ms=540.0)
    expected = power_law_reference(rule, [10.0, 500.0], post, 1.0, 50.0)
    assert net.synapses(plastic)[2][0] == pytest.approx(expected, rel=1e-11)


def test_reward_moves_weights_along_the_eligibility():
    rule = RewardSTDP(learning_rate=0.1, alpha=1.0, tau_e_ms=100.0)
    net, plastic = forced(rule, pre_ms=[10.0], post_ms=[20.0], stop_ms=50.0)
    assert net.synapses(plastic)[2][0] == 50.0
    net.reward(plastic, 2.0)
    eligibility = np.exp(-11.0 / 20.0) * np.exp(-(50.0 - 21.0) / 100.0)
    assert net.synapses(plastic)[2][0] == pytest.approx(50.0 + 0.1 * 2.0 * eligibility, abs=1e-12)


def test_reward_needs_its_rule():
    net, plastic = forced(PairSTDP())
    with pytest.raises(ValueError, match="RewardSTDP"):
        net.reward(plastic, 1.0)


def test_scaling_to_a_sum():
    rule = PairSTDP(learning_rate=0.0, scaling=SynapticScaling(interval_ms=40.0, target_sum=10.0))
    net, plastic = forced(rule, copies=3)
    np.testing.assert_allclose(net.synapses(plastic)[2], 10.0)


def test_scaling_to_a_rate_pushes_towards_the_target():
    scaling = SynapticScaling(interval_ms=90.0, target_rate_hz=100.0, strength=0.5)
    net, plastic = forced(PairSTDP(learning_rate=0.0, scaling=scaling))
    rate = 3 / 0.09
    np.testing.assert_allclose(net.synapses(plastic)[2], 50.0 * (1 + 0.5 * (1 - rate / 100.0)))


def test_short_term_depression_and_facilitation():
    rule = ShortTermPlasticity(U=0.4, tau_rec_ms=100.0, tau_fac_ms=50.0)
    times = [10.0, 20.0, 50.0]
    net = Network(seed=1, dtype="float64")
    pre = net.population("spike_list", 1, times_ms=times, ids=[0, 0, 0])
    post = net.population("iaf_psc_delta", 1, E_L=0.0, tau_m=1e9, V_th=1e9)
    net.connect(pre, post, weight=2.0, delay_ms=0.1, plasticity=rule)
    trace = net.record(post, "v", interval_ms=10.0)
    net.run(70.0)
    u, x, last, expected = 0.4, 1.0, None, []
    for t in times:
        if last is not None:
            x = 1 + (x - x * u - 1) * np.exp(-(t - last) / 100.0)
            u = 0.4 + u * 0.6 * np.exp(-(t - last) / 50.0)
        expected.append(2.0 * u * x)
        last = t
    steps = np.diff(trace.values[:, 0])
    np.testing.assert_allclose(steps[[0, 1, 4]], expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PairSTDP(w_max=0.0), "w_max"),
        (lambda: PairSTDP(pairing="nearst"), "nearest"),
        (lambda: TripletSTDP(tau_x_ms=-1.0), "tau_x_ms"),
        (lambda: SynapticScaling(interval_ms=10.0), "exactly one"),
        (lambda: ShortTermPlasticity(U=1.5), "U"),
        (lambda: RewardSTDP(learning_rate=float("nan")), "learning_rate"),
    ],
)
def test_bad_rules_name_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()
