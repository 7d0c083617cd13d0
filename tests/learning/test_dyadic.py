"""The dyad alone: closed forms, stationarity in the energy, and numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from snn.errors import UnsupportedError
from snn.neurons.dyadic import (
    Dyad,
    DyadicReLU,
    activation_of,
    hidden_dyad,
    layer_energy,
    nudges,
    output_dyad,
    propagate_error,
    squared_error_dyad,
)

ACTIVATIONS = [nn.Identity(), nn.ReLU(), nn.LeakyReLU(0.2), nn.ReLU6(), nn.Hardtanh(-2, 1), nn.Tanh(), nn.Sigmoid()]


def kind(layer: nn.Module) -> str:
    return type(layer).__name__


pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=kind)
def test_activation_is_that_of_torch_and_its_in_place_form_too(layer: nn.Module) -> None:
    a = torch.linspace(-8, 8, 41)
    activation = activation_of(layer, "neuron")
    assert torch.equal(activation.f(a), layer(a))
    assert torch.equal(activation.f_in_place(a.clone()), layer(a))
    assert activation.is_identity == isinstance(layer, nn.Identity)


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=kind)
def test_activation_maximises_its_potential(layer: nn.Module) -> None:
    activation = activation_of(layer, "neuron")
    a = torch.linspace(-3, 3, 31)
    z = activation.f(a)
    best = z * a - activation.potential(z)
    # Any other state in the range of f, which the activation of other inputs supplies.
    for other in activation.f(torch.linspace(-4, 4, 81)):
        assert bool((other * a - activation.potential(other) <= best + 1e-12).all())


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("layer", [nn.Identity(), nn.Tanh(), nn.Sigmoid(), nn.LeakyReLU(0.2)], ids=kind)
def test_hidden_states_are_stationary_in_the_energy(layer: nn.Module, alpha: float) -> None:
    activation = activation_of(layer, "neuron")
    a, upper, w = torch.randn(5, 4), torch.randn(5, 3), torch.randn(3, 4)
    dyad = hidden_dyad(activation.f, a, upper @ w, alpha, transpose=False)
    states = Dyad(*(state.detach().clone().requires_grad_() for state in dyad))
    # E_k(plus) - E_k(minus) of this layer, and the only term of the next that depends on these states.
    J = layer_energy(activation.potential, states, a) - (upper * (states.mean(alpha) @ w.T)).sum()
    for grad in torch.autograd.grad(J, list(states)):
        assert grad.abs().max() < 1e-10


def test_transpose_keeps_the_mean_to_first_order() -> None:
    a, step = torch.randn(50), 1e-4 * torch.randn(50)
    for alpha in (0.0, 0.2, 1.0):
        means = [hidden_dyad(torch.tanh, a, step, alpha, transpose).mean(alpha) for transpose in (True, False)]
        biased = torch.tanh(a) + (2 * alpha - 1) * (1 - torch.tanh(a) ** 2) * step
        torch.testing.assert_close(means[0], torch.tanh(a), rtol=0, atol=1e-6)
        torch.testing.assert_close(means[1], biased, rtol=0, atol=1e-6)
        assert (means[1] - torch.tanh(a)).abs().max() > 1e-5


def test_nudges_exchange_in_the_transpose_variant() -> None:
    assert nudges(0.2, False) == (0.2, 0.8)
    assert nudges(0.2, True) == (0.8, 0.2)
    with pytest.raises(ValueError, match=r"alpha must lie in \[0, 1\], got 1.5"):
        nudges(1.5, True)


@pytest.mark.parametrize("transpose", [False, True])
def test_output_difference_is_minus_beta_error_for_every_alpha(transpose: bool) -> None:
    a, error = torch.randn(3, 4), torch.randn(3, 4)
    for alpha in (0.0, 0.3, 1.0):
        dyad = output_dyad(a, error, alpha, 0.7, transpose)
        torch.testing.assert_close(dyad.difference(), -0.7 * error)
        share = 1 - alpha if transpose else alpha
        torch.testing.assert_close(dyad.plus, a - share * 0.7 * error)


def test_no_error_leaves_both_states_at_the_activity() -> None:
    a = torch.randn(6)
    for dyad in (
        hidden_dyad(torch.relu, a, torch.zeros(6), 0.3, True),
        Dyad(*(torch.relu(s) for s in output_dyad(a, torch.zeros(6), 0.5, 1.0, False))),
    ):
        assert torch.equal(dyad.plus, torch.relu(a))
        assert torch.equal(dyad.minus, torch.relu(a))


def test_exact_squared_error_head() -> None:
    one, zero = torch.ones(()), torch.zeros(())
    for gamma, plus, minus, mean in ((0.1, 0.952381, 1.052632, 1.002506), (1.0, 0.666667, 2.0, 1.333333)):
        dyad = squared_error_dyad(one, zero, gamma)
        assert dyad.plus.item() == pytest.approx(plus, abs=1e-6)
        assert dyad.minus.item() == pytest.approx(minus, abs=1e-6)
        assert dyad.mean(0.5).item() == pytest.approx(mean, abs=1e-6)
    assert squared_error_dyad(one, zero, 0.1).difference().item() == pytest.approx(-0.100251, abs=1e-6)
    assert squared_error_dyad(one, zero, 1.9).minus.item() == pytest.approx(20.0)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 2.5, -1.0])
def test_exact_head_refuses_its_pole(gamma: float) -> None:
    with pytest.raises(ValueError, match=r"gamma must lie in \(0, 2\)"):
        squared_error_dyad(torch.ones(()), torch.zeros(()), gamma)


def test_chain_of_two_neurons_by_hand() -> None:
    """x = 1, w1 = 0.5 with ReLU, w2 = 2, target 0, gamma 1: the plus compartment falls silent."""
    a1 = torch.tensor([0.5])
    output = squared_error_dyad(2 * a1, torch.zeros(1), 1.0)
    assert output.plus.item() == pytest.approx(2 / 3)
    assert output.minus.item() == pytest.approx(2.0)
    feedback = 2 * output.difference()
    assert feedback.item() == pytest.approx(-8 / 3)
    hidden = hidden_dyad(torch.relu, a1, feedback, 0.5, False)
    assert hidden.plus.item() == 0.0
    assert hidden.minus.item() == pytest.approx(11 / 6)
    # The published code's update: - gamma (difference) (sum of the two states below).
    assert (-output.difference() * 2 * hidden.mean(0.5)).item() == pytest.approx(2.44444, abs=1e-5)
    assert (-hidden.difference() * 2).item() == pytest.approx(3.66667, abs=1e-5)


def test_dyadic_relu_passes_half_at_the_threshold() -> None:
    a = torch.tensor([0.5, 0.1, 0.0, -0.1, -0.5], requires_grad=True)
    for sign in (1.0, -1.0):
        (grad,) = torch.autograd.grad(DyadicReLU(1.0)(a), a, torch.full((5,), sign * 0.2))
        torch.testing.assert_close(grad, sign * torch.tensor([0.2, 0.15, 0.1, 0.05, 0.0]))
    assert torch.equal(DyadicReLU()(a), torch.relu(a))


@settings(deadline=None)
@given(
    st.lists(st.floats(-5, 5), min_size=1, max_size=20),
    st.floats(-3, 3),
    st.floats(0.01, 4),
)
def test_dyadic_relu_closed_form(values: list[float], g: float, c: float) -> None:
    a = torch.tensor(values, requires_grad=True)
    (grad,) = torch.autograd.grad(DyadicReLU(c)(a), a, torch.full_like(a, g))
    size = torch.full_like(a, abs(g))
    closed = torch.sign(torch.tensor(g)) * ((a.detach() / c + size) / 2).clamp(torch.zeros_like(a), size)
    torch.testing.assert_close(grad, closed, atol=1e-12, rtol=1e-9)


@pytest.mark.parametrize("size", [1, 63, (1 << 15) - 1, (1 << 15) + 1, 70001])
def test_propagated_error_in_blocks_equals_the_formula(size: int) -> None:
    a, error = torch.randn(size), torch.randn(size)
    got = propagate_error(torch.tanh_, a, error, (0.3, 0.5))
    expected = (torch.tanh(a + 0.5 * error) - torch.tanh(a - 0.3 * error)) / 0.8
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-14)


def test_propagated_error_of_transposed_memory() -> None:
    a, error = torch.randn(7, 5).T, torch.randn(5, 7)
    expected = (torch.relu(a + error) - torch.relu(a - error)) / 2
    torch.testing.assert_close(propagate_error(torch.relu_, a, error, (1.0, 1.0)), expected)


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="DyadicReLU: c must be > 0, got 0"):
        DyadicReLU(0.0)
    with pytest.raises(UnsupportedError, match=r"'layer3' \(GELU\) is not one of"):
        activation_of(nn.GELU(), "layer3")
    with pytest.raises(UnsupportedError, match="negative_slope > 0"):
        activation_of(nn.LeakyReLU(0.0), "layer3")
