"""Feedback alignment, sign-symmetric and direct feedback: the cases in which they are known exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from learning_networks import (
    NETWORKS,
    batch,
    cosines,
    mlp,
    relative_errors,
    rule_gradients,
    true_gradients,
)
from torch import nn

from snn.errors import UnsupportedError
from snn.learning import DirectFeedbackAlignment, FeedbackAlignment, SignSymmetric, make_rule
from snn.learning.direct_feedback import hidden_neurons
from snn.learning.feedback_alignment import feedback_through, weighted_maps
from snn.models import SpikingConvNet, SpikingMLP
from snn.training.loss import SequenceLoss

pytestmark = pytest.mark.usefixtures("double")
CE, SE = SequenceLoss("cross_entropy"), SequenceLoss("squared_error")


def spiking_mlp(**arguments: Any) -> SpikingMLP:
    return SpikingMLP((8,), 4, hidden=(12, 10), neuron={"class": "LIF", "backend": "reference"}, **arguments)


def sequence(T: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = batch((8,))
    return torch.stack([2 * x.abs() * (1 + t) for t in range(T)]), y


@pytest.mark.parametrize("name", NETWORKS)
def test_transposed_weights_as_feedback_give_the_gradient(name: str) -> None:
    make, shape = NETWORKS[name]
    net, (x, y) = make(), batch(shape)
    with feedback_through(weighted_maps(net, "test"), lambda _, step: step.layer.get_parameter("weight").detach()):
        found = torch.autograd.grad(CE(net(x).unsqueeze(0), y), list(net.parameters()))
    for got, expected in zip(found, true_gradients(net, CE, x, y).values(), strict=True):
        torch.testing.assert_close(got, expected)


def test_feedback_alignment_by_hand() -> None:
    net, (x, y) = mlp(nn.Tanh, (8, 6, 4)), batch((8,))
    rule = FeedbackAlignment(SE)
    found = rule_gradients(rule, net, x, y)
    h = torch.tanh(net[0](x))
    e = SE.errors(net(x), y) / len(x)
    B = rule.feedback_weight("2", weighted_maps(net, "test")["2"]).double()
    delta = (e @ B) * (1 - h * h)
    torch.testing.assert_close(found[net[0].weight], delta.T @ x)
    torch.testing.assert_close(found[net[0].bias], delta.sum(0))
    torch.testing.assert_close(found[net[2].weight], e.T @ h)


def test_sign_symmetric_by_hand() -> None:
    net, (x, y) = mlp(nn.Tanh, (8, 6, 4)), batch((8,))
    found = rule_gradients(SignSymmetric(SE), net, x, y)
    h = torch.tanh(net[0](x))
    w = net[2].weight
    delta = (SE.errors(net(x), y) / len(x) @ (w.sign() * w.abs().mean())) * (1 - h * h)
    torch.testing.assert_close(found[net[0].weight], delta.T @ x)
    assert min(cosines(found, true_gradients(net, SE, x, y))) > 0.5


def test_random_feedback_depends_on_seed_and_layer_only() -> None:
    net, (x, y) = mlp(), batch((8,))
    first = rule_gradients(FeedbackAlignment(CE), net, x, y)
    again = rule_gradients(make_rule("fa", CE, seed=0), net, x, y)
    other = rule_gradients(make_rule("fa", CE, seed=1), net, x, y)
    assert max(relative_errors(again, first)) == 0.0
    assert max(relative_errors(other, first)) > 0.1
    for parameter in net.parameters():
        parameter.data.mul_(0.5)
    rule = FeedbackAlignment(CE)
    maps = weighted_maps(net, "test")
    before = rule.feedback_weight("2", maps["2"])
    net[2].weight.data.zero_()
    assert torch.equal(FeedbackAlignment(CE).feedback_weight("2", maps["2"]), before)
    assert not torch.equal(rule.feedback_weight("4", maps["4"]), before)


def test_gain_scales_the_feedback() -> None:
    maps = weighted_maps(mlp(sizes=(300, 400, 4)), "test")
    for gain in (1.0, 2.0):
        weight = make_rule("fa", CE, {"gain": gain}).feedback_weight("0", maps["0"])
        assert float(weight.std()) == pytest.approx(gain / 300**0.5, rel=0.02)


@pytest.mark.parametrize("name", ["fa", "sign_symmetric"])
def test_top_layer_keeps_its_gradient(name: str) -> None:
    net, (x, y) = mlp(), batch((8,))
    expected = true_gradients(net, CE, x, y)
    found = rule_gradients(make_rule(name, CE), net, x, y)
    for parameter in list(net.parameters())[-2:]:
        torch.testing.assert_close(found[parameter], expected[parameter])


@pytest.mark.parametrize("name", ["fa", "sign_symmetric", "dfa"])
def test_spiking_network_trains_over_all_steps(name: str) -> None:
    net, (x, y) = spiking_mlp(), sequence()
    found = rule_gradients(make_rule(name, CE), net, x, y)
    expected = torch.autograd.grad(CE(net(x), y), list(net.parameters()))
    names = [key for key, _ in net.named_parameters()]
    for key, parameter, gradient in zip(names, net.parameters(), expected, strict=True):
        if "readout" in key:
            torch.testing.assert_close(found[parameter], gradient)
        else:
            assert found[parameter].abs().max() > 0
            assert float((found[parameter] - gradient).norm() / gradient.norm()) > 0.1


@pytest.mark.parametrize("neuron", ["LIF", "RecurrentLIF"])
def test_spiking_network_with_transposed_weights_has_the_gradient_through_time(neuron: str) -> None:
    net = SpikingMLP((8,), 4, hidden=(12, 10), neuron={"class": neuron, "backend": "reference"})
    x, y = sequence()
    with feedback_through(weighted_maps(net, "test"), lambda _, step: step.layer.get_parameter("weight").detach()):
        found = torch.autograd.grad(CE(net(x), y), list(net.parameters()))
    for got, expected in zip(found, torch.autograd.grad(CE(net(x), y), list(net.parameters())), strict=True):
        torch.testing.assert_close(got, expected)


def test_direct_feedback_by_hand() -> None:
    net, (x, y) = mlp(nn.Tanh, (8, 6, 5, 4)), batch((8,))
    rule = DirectFeedbackAlignment(CE)
    found = rule_gradients(rule, net, x, y)
    h1 = torch.tanh(net[0](x))
    h2 = torch.tanh(net[2](h1))
    e = CE.errors(net(x), y) / len(x)
    delta1 = (e @ rule.projections["1"].double()) * (1 - h1 * h1)
    delta2 = (e @ rule.projections["3"].double()) * (1 - h2 * h2)
    torch.testing.assert_close(found[net[0].weight], delta1.T @ x)
    torch.testing.assert_close(found[net[2].weight], delta2.T @ h1)
    torch.testing.assert_close(found[net[4].weight], e.T @ h2)


def test_direct_feedback_with_products_of_the_weights_is_the_gradient_of_a_linear_network() -> None:
    # Tanh of tiny numbers stands for linear neurons, which mark the places where the error enters.
    net, (x, y) = mlp(nn.Tanh, (6, 7, 5, 3)), batch((6,), classes=3)
    for parameter in net.parameters():
        parameter.data.mul_(1e-3)
    rule = DirectFeedbackAlignment(SE)
    rule.projections = {"1": (net[4].weight @ net[2].weight).detach(), "3": net[4].weight.detach()}
    found = rule_gradients(rule, net, x, y)
    assert max(relative_errors(found, true_gradients(net, SE, x, y))) < 1e-5


def test_no_gain_trains_the_last_block_only() -> None:
    net, (x, y) = mlp(), batch((8,))
    found = rule_gradients(make_rule("dfa", CE, {"gain": 0.0}), net, x, y)
    *hidden, weight, bias = net.parameters()
    assert all(not found[parameter].any() for parameter in hidden)
    assert found[weight].any()
    assert found[bias].any()


def test_error_enters_after_the_neurons_that_other_weights_follow() -> None:
    conv = SpikingConvNet((1, 8, 8), 4, channels=(3,), hidden=6, neuron={"class": "LIF", "backend": "reference"})
    x = torch.rand(2, 3, 1, 8, 8)
    assert hidden_neurons(conv, x) == {"stack.layers.neuron1", "stack.layers.neuron"}
    integrating = spiking_mlp(readout="LI")
    assert hidden_neurons(integrating, torch.rand(2, 3, 8)) == {"stack.layers.neuron1", "stack.layers.neuron2"}
    assert hidden_neurons(nn.Sequential(nn.Linear(3, 2), nn.Tanh()), torch.rand(4, 3)) == set()


def test_neurons_that_are_used_twice_are_refused_by_direct_feedback() -> None:
    tanh, (x, y) = nn.Tanh(), batch((8,))
    net = nn.Sequential(nn.Linear(8, 8), tanh, nn.Linear(8, 8), tanh, nn.Linear(8, 4))
    with pytest.raises(UnsupportedError, match=r"'1' \(Tanh\) is called more than once"):
        make_rule("dfa")(net, x, y, lambda loss: loss.backward())


def test_looking_for_the_places_leaves_the_network_alone() -> None:
    net = spiking_mlp(batch_norm=True, dropout=0.5)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    hidden_neurons(net, sequence()[0])
    assert net.training
    for key, value in net.state_dict().items():
        assert torch.equal(value, before[key])
    assert not any(module._forward_hooks for module in net.modules())


def test_hooks_are_gone_after_an_error() -> None:
    net = mlp()
    for name in ("fa", "dfa"):
        with pytest.raises(RuntimeError):
            make_rule(name, CE)(net, torch.zeros(3, 7), torch.zeros(3, dtype=torch.long), lambda loss: loss.backward())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_direct_feedback_trains_a_regression_of_the_toy() -> None:
    """tanh 10-32-32-4, 600 steps: direct feedback gets far below training the last layer only."""
    torch.manual_seed(1)
    teacher, net0 = mlp(nn.Tanh, (10, 16, 4)), mlp(nn.Tanh, (10, 32, 32, 4))
    for parameter in teacher.parameters():
        parameter.data.mul_(2)
    state = {key: value.clone() for key, value in net0.state_dict().items()}
    final, first = {}, {}
    for name, gain in (("dfa", 1.0), ("shallow", 0.0)):
        net0.load_state_dict(state)
        torch.manual_seed(2)
        rule = make_rule("dfa", SE, {"gain": gain})
        optimizer = torch.optim.SGD(net0.parameters(), lr=0.1)
        for step in range(600):
            x = torch.randn(64, 10)
            optimizer.zero_grad()
            result = rule(net0, x, teacher(x).argmax(1), lambda loss: loss.backward())
            optimizer.step()
            if step == 0:
                first[name] = float(result.loss)
        final[name] = float(result.loss)
    assert first["dfa"] == first["shallow"]
    assert final["dfa"] < 0.8 * final["shallow"]


REFUSED = {
    "transposed": (lambda: nn.Sequential(nn.ConvTranspose2d(1, 2, 3)), "fa", r"'0' \(ConvTranspose2d\)"),
    "recurrent": (lambda: nn.Sequential(nn.Linear(8, 7), nn.GRU(7, 4)), "sign_symmetric", r"'1' \(GRU\): only linear"),
    "no weights": (lambda: nn.Sequential(nn.ReLU()), "fa", "no linear layer and no convolution"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_networks_that_do_not_fit_are_named(case: str) -> None:
    make, name, message = REFUSED[case]
    with pytest.raises(UnsupportedError, match=message):
        make_rule(name).prepare(make())


def test_direct_feedback_needs_neurons() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(UnsupportedError, match="no hidden layer of neurons"):
        make_rule("dfa").prepare(net)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ValueError, match=r"fa: gain must be > 0, got 0"):
        make_rule("fa", options={"gain": 0.0})
    with pytest.raises(ValueError, match=r"dfa: gain must be >= 0, got -1"):
        make_rule("dfa", options={"gain": -1.0})
