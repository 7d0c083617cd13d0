"""Dual propagation of whole networks: limits, exact cases and numbers of the published method."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from learning_networks import (
    NETWORKS,
    batch,
    cosines,
    linear_network,
    mlp,
    relative_errors,
    rule_gradients,
    true_gradients,
)
from torch import nn
from torch.nn.utils import prune

from snn.errors import UnsupportedError
from snn.learning import DualPropagation, make_rule
from snn.learning.dyadic_inference import Dyadic, energy, infer, routing_point, weight_gradients
from snn.learning.graph import graph_of
from snn.learning.kolen_pollack import add_feedback_weights
from snn.learning.schedule import updates
from snn.models import AnalogMLP, SpikingMLP, Stack
from snn.neurons.dyadic import Dyad, DyadicReLU, squared_error_dyad
from snn.training.loss import SequenceLoss

CE, SE = SequenceLoss("cross_entropy"), SequenceLoss("squared_error")
WAYS: dict[str, dict[str, Any]] = {
    "single pass": {},
    "single pass, mean": {"presynaptic": "mean"},
    "explicit": {"router": "plus"},
    "repeated": {"sweeps": 3, "router": "mean", "presynaptic": "mean"},
    "bottom up": {"schedule": "bottom_up", "sweeps": 14},
    "up and down": {"schedule": "up_and_down", "sweeps": 3},
    "odd even": {"schedule": "odd_even", "sweeps": 14},
    "even odd": {"schedule": "even_odd", "sweeps": 14},
    "parallel": {"schedule": "parallel", "sweeps": 14},
    "random": {"schedule": "random", "sweeps": 25},
    "alpha 0.2": {"alpha": 0.2},
    "alpha 1, 9 sweeps": {"alpha": 1.0, "sweeps": 9},
    "original, alpha 0": {"alpha": 0.0, "transpose": False},
    "original, alpha 0.7, current": {"alpha": 0.7, "transpose": False, "reference": "current", "sweeps": 2},
    "ratio 0.5": {"ratio": 0.5},
    "ratio 0.5, explicit": {"ratio": 0.5, "router": "plus"},
}


pytestmark = pytest.mark.usefixtures("double")


def net_and_batch(name: str) -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    make, shape = NETWORKS[name]
    return make(), *batch(shape)


@pytest.mark.parametrize(
    "loss", [CE, SE, SequenceLoss("cross_entropy", label_smoothing=0.2)], ids=["ce", "se", "smooth"]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_small_nudges_give_the_gradient_on_every_network(name: str, loss: SequenceLoss) -> None:
    net, x, y = net_and_batch(name)
    expected = true_gradients(net, loss, x, y)
    found = rule_gradients(DualPropagation(loss, Dyadic(beta=1e-5)), net, x, y)
    assert min(cosines(found, expected)) > 0.99999
    assert max(relative_errors(found, expected)) < 1e-6


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["relu_mlp", "residual"])
def test_small_nudges_give_the_gradient_in_every_order(name: str, way: str) -> None:
    net, x, y = net_and_batch(name)
    found = rule_gradients(DualPropagation(CE, Dyadic(**{"beta": 1e-5, **WAYS[way]})), net, x, y)
    assert min(cosines(found, true_gradients(net, CE, x, y))) > 0.9999


def largest_error(net: nn.Module, x: torch.Tensor, y: torch.Tensor, **settings: Any) -> float:
    found = rule_gradients(DualPropagation(CE, Dyadic(**settings)), net, x, y)
    return max(relative_errors(found, true_gradients(net, CE, x, y)))


def test_error_of_smooth_neurons_falls_with_the_square_of_beta() -> None:
    net, x, y = net_and_batch("tanh_mlp")
    large, small = (largest_error(net, x, y, beta=beta) for beta in (0.1, 0.01))
    assert large > 1e-6
    assert large / small == pytest.approx(100, rel=0.05)


def test_original_with_one_sided_nudges_is_biased_to_first_order_and_the_transpose_is_not() -> None:
    net, x, y = net_and_batch("relu_mlp")
    for alpha in (0.0, 1.0):
        for sweeps in (1, 20):
            shared = {"alpha": alpha, "sweeps": sweeps, "beta": 1e-4, "presynaptic": "mean"}
            assert largest_error(net, x, y, transpose=False, **shared) > 1e-6
            assert largest_error(net, x, y, transpose=True, **shared) < 1e-8


def test_transpose_keeps_the_gradient_better_under_strong_nudges() -> None:
    net, x, y = net_and_batch("relu_mlp")
    shared: dict[str, Any] = {"alpha": 0.0, "sweeps": 20, "beta": 1.0, "presynaptic": "mean"}
    assert largest_error(net, x, y, transpose=False, **shared) > 2 * largest_error(net, x, y, transpose=True, **shared)


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"alpha": 0.3}, {"alpha": 1.0}, {"transpose": False}], ids=str)
@pytest.mark.parametrize("sweeps", [1, 4])
def test_linear_network_has_the_exact_gradient_at_any_beta(settings: dict[str, Any], sweeps: int) -> None:
    net, (x, y) = linear_network(), batch((6,), classes=3)
    options = Dyadic(beta=5.0, sweeps=sweeps, presynaptic="mean", reference="initial", **settings)
    found = rule_gradients(DualPropagation(SE, options), net, x, y)
    assert max(relative_errors(found, true_gradients(net, SE, x, y))) < 1e-13


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_linear_network_is_not_exact_for_the_original_with_one_sided_nudges(alpha: float) -> None:
    net, (x, y) = linear_network(), batch((6,), classes=3)
    options = Dyadic(beta=5.0, sweeps=20, presynaptic="mean", alpha=alpha, transpose=False)
    found = rule_gradients(DualPropagation(SE, options), net, x, y)
    assert max(relative_errors(found, true_gradients(net, SE, x, y))) > 0.1


@pytest.mark.parametrize("beta", [0.1, 1.0, 10.0])
def test_output_layer_has_its_gradient_at_any_beta(beta: float) -> None:
    net, x, y = net_and_batch("relu_mlp")
    found = rule_gradients(DualPropagation(CE, Dyadic(beta=beta)), net, x, y)
    expected = true_gradients(net, CE, x, y)
    readout = list(net.parameters())[-2:]
    for parameter in readout:
        torch.testing.assert_close(found[parameter], expected[parameter])


@pytest.mark.parametrize("presynaptic", ["forward", "mean"])
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("alpha", [0.2, 0.5])
def test_single_pass_equals_the_explicit_sweep(name: str, alpha: float, presynaptic: Any) -> None:
    net, x, y = net_and_batch(name)
    options = Dyadic(beta=0.8, alpha=alpha, presynaptic=presynaptic, ratio=0.7)
    graph = graph_of(net, "test")
    with torch.no_grad():
        inferred = infer(graph, x, lambda a: CE.errors(a, y), options)
        expected = weight_gradients(graph, inferred, options)
    found = rule_gradients(DualPropagation(CE, options), net, x, y)
    assert max(relative_errors(found, expected)) < 1e-12


def test_autograd_with_dyadic_relu_and_a_summed_loss_is_the_sweep_with_beta_2c() -> None:
    c, (x, y) = 0.4, batch((8,))
    net = mlp(lambda: DyadicReLU(c))
    expected = torch.autograd.grad(len(x) * CE(net(x).unsqueeze(0), y), list(net.parameters()))
    found = rule_gradients(DualPropagation(CE, Dyadic(beta=2 * c)), net, x, y)
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(len(x) * found[parameter], gradient, rtol=1e-12, atol=1e-14)


def test_bottom_up_sweeps_carry_the_error_one_layer_down_each() -> None:
    net, x, y = mlp(), *batch((8,))
    expected = true_gradients(net, CE, x, y)
    for sweeps in (1, 2, 3, 4):
        options = Dyadic(beta=1e-3, schedule="bottom_up", sweeps=sweeps)
        found = rule_gradients(DualPropagation(CE, options), net, x, y)
        trained = [bool(found[p].abs().max() > 0) for p in net.parameters() if p.dim() == 2]
        assert trained == [layer >= 4 - sweeps for layer in range(4)]
        above = [c for c, p in zip(cosines(found, expected), net.parameters(), strict=True) if found[p].abs().max() > 0]
        assert min(above) > 0.999


def test_transpose_with_alpha_0_rests_after_one_sweep() -> None:
    net, x, y = mlp(), *batch((8,))
    gradients = [
        rule_gradients(DualPropagation(CE, Dyadic(beta=1.0, alpha=0.0, presynaptic="mean", sweeps=n)), net, x, y)
        for n in (1, 2, 8)
    ]
    for other in gradients[1:]:
        assert max(relative_errors(other, gradients[0])) < 1e-14
    original = [
        rule_gradients(
            DualPropagation(CE, Dyadic(beta=1.0, alpha=0.0, presynaptic="mean", sweeps=n, transpose=False)), net, x, y
        )
        for n in (1, 8)
    ]
    assert max(relative_errors(original[1], original[0])) > 1e-3


@pytest.mark.parametrize("linearised", [True, False])
def test_inference_is_stationary_in_the_objective(linearised: bool) -> None:
    """Sweeps to rest, then J has no slope in any state (tanh, so that every state is inside its range)."""
    net, (x, y) = mlp(nn.Tanh, (6, 5, 4, 3)), batch((6,), classes=3)
    graph, target = graph_of(net, "test"), torch.randn(9, 3)
    gamma = 0.4
    options = Dyadic(beta=gamma, alpha=0.5, transpose=False, sweeps=60, reference="current")
    initial = CE.errors(graph.forward(x)[-1], y).detach()
    with torch.no_grad():
        if linearised:
            options = Dyadic(beta=gamma, alpha=0.3, transpose=False, sweeps=60, reference="initial")
            inferred = infer(graph, x, lambda a: CE.errors(a, y), options)
        else:
            inferred = infer(graph, x, lambda a: squared_error_dyad(a, target, gamma), options, linearised=False)
    assert inferred.changes[-1] < 1e-12
    states = [Dyad(*(state.clone().requires_grad_() for state in dyad)) for dyad in inferred.states]

    def loss(z: torch.Tensor) -> torch.Tensor:
        return (initial * z).sum() if linearised else 0.5 * (z - target).square().sum()

    J = energy(graph, states, (loss(states[-1].plus), loss(states[-1].minus)), options)
    free = [state for dyad in states[1:] for state in dyad]
    for grad in torch.autograd.grad(J, free):
        assert grad.abs().max() < 1e-9


def test_nothing_to_learn_changes_nothing() -> None:
    net, (x, _) = mlp(), batch((8,))
    graph = graph_of(net, "test")
    options = Dyadic(beta=1.0, sweeps=3, presynaptic="mean")
    with torch.no_grad():
        inferred = infer(graph, x, torch.zeros_like, options)
    for dyad, z in zip(inferred.states, graph.forward(x), strict=True):
        torch.testing.assert_close(dyad.plus, z)
        torch.testing.assert_close(dyad.minus, z)
    assert all(not gradient.any() for gradient in weight_gradients(graph, inferred, options).values())


def test_nudge_is_per_sample_whatever_the_batch_size() -> None:
    net, (x, y) = mlp(), batch((8,), B=1)
    rule = DualPropagation(CE, Dyadic(beta=1.0))
    one = rule_gradients(rule, net, x, y)
    many = rule_gradients(rule, net, x.repeat(50, 1), y.repeat(50))
    assert max(relative_errors(many, one)) < 1e-12


def test_rows_do_not_influence_each_other() -> None:
    net, x, y = net_and_batch("conv_then_pool")
    rule = DualPropagation(CE, Dyadic(beta=0.5))
    whole = rule_gradients(rule, net, x, y)
    parts = [rule_gradients(rule, net, x[k : k + 1], y[k : k + 1]) for k in range(len(x))]
    mean = {p: torch.stack([part[p] for part in parts]).mean(0) for p in whole}
    assert max(relative_errors(whole, mean)) < 1e-12


def test_float32_and_the_value_of_the_loss() -> None:
    net, (x, y) = mlp().float(), batch((8,))
    x = x.float()
    expected = true_gradients(net, CE, x, y)
    net.zero_grad()
    result = DualPropagation(CE, Dyadic(beta=1e-2))(net, x, y, lambda loss: loss.backward())
    torch.testing.assert_close(result.loss, CE(net(x).unsqueeze(0), y).detach())
    torch.testing.assert_close(result.logits, net(x).detach())
    found = {p: p.grad for p in net.parameters()}
    assert min(cosines(found, expected)) > 0.999  # type: ignore[arg-type]


def test_scaled_backward_scales_and_gradients_add_up() -> None:
    net, (x, y) = mlp(), batch((8,))
    rule = DualPropagation(CE, Dyadic())
    once = rule_gradients(rule, net, x, y)
    net.zero_grad()
    rule(net, x, y, lambda loss: (3.0 * loss).backward())
    rule(net, x, y, lambda loss: loss.backward())
    for parameter, gradient in once.items():
        torch.testing.assert_close(parameter.grad, 4 * gradient)


def test_frozen_parameters_stay_without_gradient() -> None:
    net, (x, y) = mlp(), batch((8,))
    net[0].weight.requires_grad_(False)
    DualPropagation(CE)(net, x, y, lambda loss: loss.backward())
    assert net[0].weight.grad is None
    assert net[0].bias.grad is not None


def test_layer_that_is_used_twice_adds_its_gradients() -> None:
    shared, tanh = nn.Linear(8, 8), nn.Tanh()
    net, (x, y) = nn.Sequential(shared, tanh, shared, tanh, nn.Linear(8, 4)), batch((8,))
    found = rule_gradients(DualPropagation(CE, Dyadic(beta=1e-5)), net, x, y)
    assert max(relative_errors(found, true_gradients(net, CE, x, y))) < 1e-6


def test_reference_of_the_linearised_loss() -> None:
    """The original looks at the loss again at the logits of the nudged states, the transpose variant does not."""
    net, x, y = net_and_batch("tanh_mlp")
    graph = graph_of(net, "test")
    initial = CE.errors(graph.forward(x)[-1], y).detach()

    def shift(**settings: Any) -> float:
        with torch.no_grad():
            options = Dyadic(alpha=0.0, beta=1.0, sweeps=2, **settings)
            top = infer(graph, x, lambda a: CE.errors(a, y), options).states[-1]
        return float((top.difference() + initial).abs().max())

    assert shift(transpose=True) < 1e-14
    assert shift(transpose=False, reference="initial") < 1e-14
    assert shift(transpose=False) == shift(transpose=False, reference="current") > 1e-4


def test_maxima_are_routed_at_the_chosen_state() -> None:
    plus, minus, forward = torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([7.0])
    for router, expected in (("plus", 1.0), ("mean", 2.5), ("forward", 7.0)):
        point = routing_point(Dyadic(alpha=0.25, router=router), Dyad(plus, minus), forward)  # type: ignore[arg-type]
        assert point.item() == expected


def test_model_with_a_time_axis_equals_its_stack() -> None:
    net, (x, y) = AnalogMLP((8,), 4, hidden=(16, 5)), batch((8,))
    found = rule_gradients(DualPropagation(SE, Dyadic(beta=1e-6)), net, x.unsqueeze(0), y)
    expected = torch.autograd.grad(SE(net(x.unsqueeze(0)), y), list(net.parameters()))
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        torch.testing.assert_close(found[parameter], gradient, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("weight_decay", [0.0, 0.05])
def test_feedback_weights_approach_the_weights_by_the_decay_alone(weight_decay: float) -> None:
    net, (x, y) = mlp(), batch((8,))
    rule = make_rule("dual_propagation", CE, {"feedback": "kolen_pollack", "beta": 0.5})
    rule.prepare(net)
    layers = [net[2], net[4], net[6]]
    before = [float((layer.weight - layer.feedback).detach().norm()) for layer in layers]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, weight_decay=weight_decay)
    for _ in range(100):
        optimizer.zero_grad()
        rule(net, x, y, lambda loss: loss.backward())
        optimizer.step()
    expected = 0.995**100 if weight_decay else 1.0
    assert weight_decay == 0.0 or expected == pytest.approx(0.605770, abs=1e-6)
    for layer, start in zip(layers, before, strict=True):
        assert float((layer.weight - layer.feedback).detach().norm()) / start == pytest.approx(expected, rel=1e-9)


def test_feedback_weights_carry_the_error_and_equal_ones_change_nothing() -> None:
    for name in ("relu_mlp", "conv_then_pool"):
        net, x, y = net_and_batch(name)
        plain = rule_gradients(DualPropagation(CE), net, x, y)
        rule = make_rule("dual_propagation", CE, {"feedback": "kolen_pollack"}, seed=1)
        rule.prepare(net)
        rule.prepare(net)
        random = rule_gradients(rule, net, x, y)
        assert max(float((random[p] - plain[p]).abs().max()) for p in plain) > 1e-3
        for module in net.modules():
            if "feedback" in dict(module.named_parameters(recurse=False)):
                module.get_parameter("feedback").data.copy_(module.get_parameter("weight").data)
        equal = rule_gradients(rule, net, x, y)
        for parameter, gradient in plain.items():
            torch.testing.assert_close(equal[parameter], gradient)


def test_feedback_weights_depend_on_the_seed_only() -> None:
    nets = [mlp() for _ in range(3)]
    for net, seed in zip(nets, (5, 5, 6), strict=True):
        net.load_state_dict(nets[0].state_dict(), strict=False)
        add_feedback_weights(graph_of(net, "test"), seed)
    drawn = [net[2].get_parameter("feedback") for net in nets]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert "feedback" not in dict(nets[0][0].named_parameters())


def test_kolen_pollack_without_preparation_is_an_error() -> None:
    net, (x, y) = mlp(), batch((8,))
    with pytest.raises(UnsupportedError, match="needs rule"):
        make_rule("dual_propagation", CE, {"feedback": "kolen_pollack"})(net, x, y, lambda loss: loss.backward())


def test_schedules() -> None:
    assert list(updates("top_down", 3, 2)) == [[3], [2], [1]] * 2
    assert list(updates("bottom_up", 3, 1)) == [[1], [2], [3]]
    assert list(updates("up_and_down", 3, 2)) == [[3], [2], [1], [2], [3], [2], [1]]
    assert list(updates("odd_even", 4, 1)) == [[1, 3], [2, 4]]
    assert list(updates("even_odd", 1, 1)) == [[1]]
    assert list(updates("parallel", 3, 2)) == [[1, 2, 3]] * 2
    first, again = (list(updates("random", 3, 20, torch.Generator().manual_seed(1))) for _ in range(2))
    assert first == again
    assert {k for (k,) in first} == {1, 2, 3}
    assert len(first) == 60


class Reversed(nn.Sequential):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in reversed(list(self)):
            x = layer(x)
        return x


class Doubled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(x)


REFUSED = {
    "sequential of another kind": (lambda: nn.Sequential(Reversed(nn.Linear(8, 4))), r"'0' \(Reversed\): not a layer"),
    "linear of another kind": (lambda: nn.Sequential(Doubled(8, 4)), r"'0' \(Doubled\): not a layer"),
    "parametrized": (
        lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 4))),
        r"'0' .*the weight must be a parameter of its own",
    ),
    "pruned": (
        lambda: nn.Sequential(prune.random_unstructured(nn.Linear(8, 4), "weight", 0.5)),
        r"'0' \(Linear\): the weight must be a parameter",
    ),
    "lif": (lambda: SpikingMLP((8,), 4), r"'stack.layers.neuron1' \(LIF\): spiking neurons"),
    "norm": (
        lambda: nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4)),
        r"'1' \(BatchNorm1d\)",
    ),
    "dropout": (lambda: nn.Sequential(nn.Linear(8, 4), nn.Dropout(0.5), nn.Linear(4, 4)), r"'1' \(Dropout\)"),
    "gelu": (lambda: nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 4)), r"'1' \(GELU\): not a layer"),
    "end": (lambda: nn.Sequential(nn.Linear(8, 4), nn.ReLU()), "its last layer must be linear"),
    "nested": (lambda: nn.Sequential(Stack({"a": nn.Linear(8, 4)})), r"'0' \(Stack\) takes a time axis"),
    "circular": (
        lambda: nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular")),
        "padding_mode must be 'zeros'",
    ),
    "even": (lambda: nn.Sequential(nn.Conv2d(1, 1, 2, padding="same")), "needs an odd kernel_size"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_layers_that_do_not_fit_are_named(name: str) -> None:
    make, message = REFUSED[name]
    with pytest.raises(UnsupportedError, match=message):
        DualPropagation().prepare(make())


def test_more_than_one_step_is_refused() -> None:
    net = AnalogMLP((8,), 4)
    with pytest.raises(UnsupportedError, match="T = 1, got T = 3"):
        DualPropagation().prepare(net, steps=3)
    with pytest.raises(UnsupportedError, match="T = 1, got T = 2"):
        DualPropagation()(net, torch.zeros(2, 5, 8), torch.zeros(5, dtype=torch.long), lambda loss: loss.backward())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": -0.1}, "alpha must lie in"),
        ({"beta": 0.0}, "beta must be > 0"),
        ({"ratio": 0.0}, "ratio must be > 0"),
        ({"sweeps": 0}, "sweeps must be >= 1, got 0"),
        ({"schedule": "topdown"}, "unknown 'topdown'; did you mean 'top_down'"),
        ({"presynaptic": "forwards"}, "presynaptic must be one of"),
        ({"router": "minus"}, "router must be one of"),
        ({"reference": "first"}, "reference must be one of"),
        ({"feedback": "random"}, "feedback must be one of"),
    ],
    ids=str,
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Dyadic(**settings)
