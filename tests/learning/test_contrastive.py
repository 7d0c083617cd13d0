"""Two phases, flexible phases, and events."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learning_networks import NETWORKS, batch, cosines, mlp, relative_errors, rule_gradients, true_gradients
from torch import nn

from snn.errors import UnsupportedError
from snn.learning import EquilibriumPropagation, EventDualPropagation, make_rule
from snn.learning import flexible_phase as flexible
from snn.learning.graph import graph_of
from snn.learning.relaxation import relax
from snn.models import Residual, SpikingMLP
from snn.neurons.dyadic import activation_of
from snn.neurons.dyadic_events import EventCode, integrate_and_fire
from snn.training.loss import SequenceLoss

pytestmark = pytest.mark.usefixtures("double")
CE, SE = SequenceLoss("cross_entropy"), SequenceLoss("squared_error")


def equilibrium(**options: Any) -> Any:
    return make_rule("eqprop", CE, options)


def shallow_residual() -> nn.Sequential:
    """The convolutional one is so deep that with weak feedback its lowest layer has no correct digits."""
    block = Residual(nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 6)))
    return nn.Sequential(nn.Linear(8, 6), nn.Tanh(), block, nn.Tanh(), nn.Linear(6, 4))


@pytest.mark.parametrize("name", [*(name for name in NETWORKS if name != "residual"), "shallow_residual"])
def test_two_phases_with_weak_nudge_and_feedback_give_the_gradient(name: str) -> None:
    make, shape = (shallow_residual, (8,)) if name == "shallow_residual" else NETWORKS[name]
    net, (x, y) = make(), batch(shape)
    found = rule_gradients(equilibrium(beta=1e-3, feedback=3e-3), net, x, y)
    assert min(cosines(found, true_gradients(net, CE, x, y))) > 0.999


def test_two_phases_drift_from_the_gradient_as_the_feedback_grows() -> None:
    net, (x, y) = mlp(nn.Tanh), batch((8,))
    expected = true_gradients(net, CE, x, y)
    errors = [
        max(relative_errors(rule_gradients(equilibrium(beta=1e-4, feedback=g), net, x, y), expected))
        for g in (0.3, 0.1, 0.01)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 0.05
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.5)


def test_rest_is_stationary_in_the_energy() -> None:
    net, (x, _) = mlp(nn.Tanh, (6, 5, 4, 3)), batch((6,))
    graph, push, g = graph_of(net, "test"), torch.randn(3), 0.3
    with torch.no_grad():
        states = relax(graph, graph.forward(x), g, 80, lambda a: push.expand_as(a))
    free = [states[0], *(z.clone().requires_grad_() for z in states[1:])]
    E = (free[-1] * push).sum()
    for k, layer in enumerate(graph.layers[1:], start=1):
        potential = activation_of(nn.Tanh() if k < 3 else nn.Identity(), layer.name).potential
        E = E + (potential(free[k]) - free[k] * graph.input_of(k, free)).sum() / g ** (graph.top - k)
    for grad in torch.autograd.grad(E, free[1:]):
        assert grad.abs().max() < 1e-8


def test_without_nudge_the_phases_are_equal_and_without_sweeps_nothing_reaches_the_bottom() -> None:
    net, (x, y) = mlp(), batch((8,))
    graph = graph_of(net, "test")
    rest = relax(graph, graph.forward(x), 0.1, 60)
    for again, z in zip(relax(graph, rest, 0.1, 1), rest, strict=True):
        torch.testing.assert_close(again, z)
    short = rule_gradients(equilibrium(free_sweeps=60, nudged_sweeps=2), net, x, y)
    trained = [bool(short[p].abs().max() > 1e-9) for p in net.parameters() if p.dim() == 2]
    assert trained == [False, False, True, True]


def test_flexible_phases_are_unbiased() -> None:
    """The mean over all draws of the phases of three samples, weighted by probability, is the two-phase contrast."""
    net, (x, y) = mlp(nn.Tanh, (8, 6, 4)), batch((8,), B=3)
    graph, options = graph_of(net, "test"), {"beta": 0.5, "feedback": 0.3, "sweeps": 15, "probability": 0.3}
    start = [z.detach() for z in graph.forward(x)]

    def one_sided(sign: float) -> list[torch.Tensor]:
        with torch.no_grad():
            return relax(graph, start, 0.3, 15, lambda a: sign * 0.25 * CE.errors(a, y))

    positive, negative = one_sided(1.0), one_sided(-1.0)
    expected = -(positive[2].T @ positive[1] - negative[2].T @ negative[1]) / (0.5 * 3)
    rule, total = make_rule("flexible_phase", CE, {**options, "balanced": False}), torch.zeros(4, 6)
    for phases in product((1.0, -1.0), repeat=3):
        phase = torch.tensor(phases)
        chance = torch.where(phase > 0, 0.3, 0.7).prod()
        with pytest.MonkeyPatch.context() as patch:
            weight = flexible.phase_weight(phase, 0.3)
            patch.setattr(flexible, "draw_phases", lambda *_, phase=phase, weight=weight: (phase, weight))
            total += chance * rule_gradients(rule, net, x, y)[net[2].weight]
    torch.testing.assert_close(total, expected)


def test_flexible_phases_follow_the_gradient_on_average() -> None:
    net, (x, y) = mlp(nn.Tanh, (8, 6, 4)), batch((8,), B=20)
    rule = make_rule("flexible_phase", CE, {"beta": 0.5, "feedback": 0.05})
    expected = true_gradients(net, CE, x, y)
    draws = [rule_gradients(rule, net, x, y) for _ in range(400)]
    mean = {p: torch.stack([draw[p] for draw in draws]).mean(0) for p in expected}
    one, many = (cosines({p: found[p]}, {p: expected[p]})[0] for found in (draws[0], mean) for p in [net[2].weight])
    assert one < 0.9 < 0.95 < many


def test_estimator_has_the_known_mean_and_variance() -> None:
    weight = flexible.phase_weight(torch.tensor([1.0, -1.0]), 0.3)
    phi = torch.tensor([3.0, 1.0])
    chance = torch.tensor([0.3, 0.7])
    mean = (chance * weight * phi).sum()
    assert mean.item() == pytest.approx(2.0)
    assert (chance * (weight * phi - mean) ** 2).sum().item() == pytest.approx(27.43, abs=0.01)
    assert flexible.estimator_variance(9, 1, 2, 0.3) == pytest.approx(27.43, abs=0.01)
    assert flexible.estimator_variance(9, 1, 2, 0.5) == pytest.approx(16)
    assert flexible.best_probability(9, 1) == 0.75
    assert flexible.estimator_variance(9, 1, 2, 0.75) == pytest.approx(12)


@settings(deadline=None)
@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0.05, 0.95))
def test_best_probability_has_the_smallest_variance(positive: float, negative: float, other: float) -> None:
    best = flexible.best_probability(positive, negative)
    least = flexible.estimator_variance(positive, negative, 0.0, best)
    assert least <= flexible.estimator_variance(positive, negative, 0.0, other) + 1e-9


@pytest.mark.parametrize(("corrected", "bias"), [(True, 0.0), (False, -1.386)])
def test_share_of_positive_phases_leaks_into_the_bias_without_its_weight(corrected: bool, bias: float) -> None:
    """A logistic unit that tells N(+.5, 1) from N(-.5, 1), one phase at a time; the right weight is 1."""
    draw = torch.Generator().manual_seed(0)
    w, b, probability = torch.zeros(2), torch.zeros(()), 0.2
    tail_w, tail_b = [], []
    for step in range(6000):
        phase = torch.where(torch.rand(64, generator=draw) < probability, 1.0, -1.0)
        x = 0.5 * phase.unsqueeze(1) + torch.randn(64, 2, generator=draw)
        weight = flexible.phase_weight(phase, probability) if corrected else phase
        change = weight * torch.sigmoid(-phase * (x @ w + b))
        w = w + 0.05 * (change.unsqueeze(1) * x).mean(0)
        b = b + 0.05 * change.mean()
        if step >= 2000:
            tail_w.append(w)
            tail_b.append(b)
    assert torch.stack(tail_w).mean(0).tolist() == pytest.approx([1.0, 1.0], abs=0.1)
    assert torch.stack(tail_b).mean().item() == pytest.approx(bias, abs=0.1)


def test_balanced_phases_have_their_share_and_their_weights_cancel() -> None:
    phase, weight = flexible.draw_phases(10, 0.3, True, torch.zeros(1))
    assert int((phase > 0).sum()) == 3
    assert weight.sum().abs() < 1e-12
    one, _ = flexible.draw_phases(2, 0.001, True, torch.zeros(1))
    assert sorted(one.tolist()) == [-1.0, 1.0]
    with pytest.raises(ValueError, match="at least two samples, got 1"):
        flexible.draw_phases(1, 0.5, True, torch.zeros(1))


def test_phases_follow_torchs_seed() -> None:
    net, (x, y) = mlp(), batch((8,))
    rule = make_rule("flexible_phase", CE)
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(rule_gradients(rule, net, x, y))
    assert max(relative_errors(found[1], found[0])) == 0.0
    assert max(relative_errors(found[2], found[0])) > 0.01


def test_integrate_and_fire_keeps_what_it_does_not_send() -> None:
    u, sent = torch.zeros(3), []
    value = torch.tensor([0.3, -0.7, 2.6])
    for _ in range(10):
        s, u = integrate_and_fire(value, u, 1.0)
        sent.append(s)
    total = torch.stack(sent).sum(0)
    assert total.tolist() == [3.0, -7.0, 26.0]
    torch.testing.assert_close(total + u, 10 * value)
    assert [float(s[0]) for s in sent[:4]] == [0.0, 1.0, 0.0, 0.0]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-9, 9), min_size=1, max_size=20),
    st.floats(0.1, 3),
    st.integers(1, 20),
    st.sampled_from(["integrate_and_fire", "delta"]),
)
def test_received_state_is_within_half_an_event(values: list[float], threshold: float, steps: int, code: Any) -> None:
    state = torch.tensor(values)
    coder = EventCode(threshold, code, steps)
    sums, count = coder.events(state)
    assert torch.equal(sums, sums.round())
    assert float(count) >= float(sums.abs().sum())
    share = steps if code == "integrate_and_fire" else 1
    assert float((coder.received(sums) - state).abs().max()) <= threshold / (2 * share) * (1 + 1e-9)


def he_network() -> nn.Sequential:
    net = mlp(sizes=(20, 32, 32, 5))
    for layer in net:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
            nn.init.zeros_(layer.bias)
    return net


def test_events_approach_dual_propagation_and_their_number_grows_with_the_steps() -> None:
    net, (x, y) = he_network(), batch((20,), B=64, classes=5)
    exact = rule_gradients(make_rule("dual_propagation", CE, {"beta": 0.5}), net, x, y)
    flat = torch.cat([exact[p].flatten() for p in net.parameters()])
    similar, counts = [], []
    for steps in (2, 4, 8, 16, 32):
        rule = make_rule("event_dual_propagation", CE, {"steps": steps})
        assert isinstance(rule, EventDualPropagation)
        assert rule.counts is None
        found = rule_gradients(rule, net, x, y)
        similar.append(float(torch.cosine_similarity(torch.cat([found[p].flatten() for p in exact]), flat, 0)))
        assert rule.counts is not None
        counts.append(rule.counts)
    assert similar == sorted(similar)
    assert similar[0] > 0.6
    assert similar[3] > 0.98
    assert similar[4] > 0.995
    for key in ("activity", "difference"):
        first, last = getattr(counts[0], key), getattr(counts[-1], key)
        assert last / first == pytest.approx(16, rel=0.25)
    assert counts[0].samples == 64


def test_fine_events_equal_dual_propagation() -> None:
    net, (x, y) = he_network(), batch((20,), classes=5)
    exact = rule_gradients(make_rule("dual_propagation", CE, {"beta": 0.5}), net, x, y)
    fine = {"code": "delta", "activity_threshold": 1e-7, "difference_threshold": 1e-7}
    found = rule_gradients(make_rule("event_dual_propagation", CE, fine), net, x, y)
    assert max(relative_errors(found, exact)) < 1e-4


def test_update_is_the_product_of_the_counts() -> None:
    net, (x, y) = he_network(), batch((20,), B=3, classes=5)
    options = {"steps": 4, "activity_threshold": 1.0, "difference_threshold": 0.25, "beta": 0.5}
    rule = make_rule("event_dual_propagation", SE, options)
    found = rule_gradients(rule, net, x, y)
    up, down = EventCode(1.0, steps=4), EventCode(0.25, steps=4)
    z_counts, sent = up.events(x)
    z = up.received(z_counts)
    for layer in (net[0], net[2]):
        z_counts, more = up.events(torch.relu(layer(z)))
        z, sent = up.received(z_counts), sent + more
    difference, _ = down.events(-0.5 * SE.errors(net[4](z), y))
    expected = -(difference.T @ z_counts) * (1.0 * 0.25) / (0.5 * 4**2) / len(x)
    torch.testing.assert_close(found[net[4].weight], expected)
    assert isinstance(rule, EventDualPropagation)
    assert rule.counts is not None
    assert rule.counts.activity == int(sent)
    assert rule.counts.difference > int(down.events(-0.5 * SE.errors(net[4](z), y))[1])


@pytest.mark.parametrize("name", ["eqprop", "flexible_phase", "event_dual_propagation"])
def test_spiking_networks_and_more_steps_are_refused(name: str) -> None:
    with pytest.raises(UnsupportedError, match=rf"{name} cannot train 'stack.layers.neuron1' \(LIF\)"):
        make_rule(name).prepare(SpikingMLP((8,), 4))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("eqprop", {"beta": 0.0}, "beta must be > 0"),
        ("eqprop", {"feedback": -1.0}, "feedback must be > 0"),
        ("eqprop", {"free_sweeps": 0}, "free_sweeps must be >= 1"),
        ("flexible_phase", {"probability": 1.0}, r"probability must lie in \(0, 1\), got 1.0"),
        ("flexible_phase", {"sweeps": 0}, "sweeps must be >= 1"),
        ("flexible_phase", {"beta": -1.0}, "beta must be > 0"),
        ("event_dual_propagation", {"steps": 0}, "steps must be >= 1"),
        ("event_dual_propagation", {"activity_threshold": 0.0}, "threshold must be > 0"),
        ("event_dual_propagation", {"code": "rate"}, "code must be"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rule(name, options=options)


def test_two_phases_learn_the_sign_of_a_sum() -> None:
    torch.manual_seed(0)
    net, rule = mlp(nn.Tanh, (4, 12, 2)), EquilibriumPropagation(SE)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.02)
    for _ in range(150):
        x = torch.randn(32, 4)
        optimizer.zero_grad()
        rule(net, x, (x.sum(1) > 0).long(), lambda loss: loss.backward())
        optimizer.step()
    x = torch.randn(500, 4)
    assert float((net(x).argmax(1) == (x.sum(1) > 0)).double().mean()) > 0.93
