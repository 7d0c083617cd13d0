"""DIET and LIAF against hand-worked numbers, plain torch and closed forms."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import snn
from snn import surrogate
from snn.neurons.diet import clamp_leaks

CURRENT = [0.3, 0.3, 0.7, 0.1, 0.5]
both = pytest.mark.parametrize("backend", ["reference", "numba"])


def column(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64).view(-1, 1)


def diet(threshold: float, leak: float, backend: str = "auto") -> snn.DIET:
    return snn.DIET(threshold, leak, step_mode="m", store_v_seq=True, backend=backend).double()


@both
def test_five_steps_by_hand(backend: str) -> None:
    layer = diet(0.5, 0.9, backend)
    spikes = layer(column(CURRENT))
    assert spikes.flatten().tolist() == [0, 1, 1, 0, 1]
    assert layer.v_seq is not None
    after = layer.v_seq.flatten().tolist()
    assert after == pytest.approx([0.3, 0.07, 0.263, 0.3367, 0.30303], abs=1e-6)
    before = [v + 0.5 * z for v, z in zip(after, spikes.flatten().tolist(), strict=True)]
    u = torch.tensor(before, dtype=torch.float64) / 0.5 - 1
    assert u.tolist() == pytest.approx([-0.4, 0.14, 0.526, -0.3266, 0.60606], abs=1e-6)
    leaf = u.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(surrogate.ScaledTriangle()(leaf).sum(), leaf)
    assert gradient.tolist() == pytest.approx([0.18, 0.258, 0.1422, 0.20202, 0.118182], abs=1e-6)


def plain(x: torch.Tensor, threshold: torch.Tensor, leak: torch.Tensor) -> torch.Tensor:
    """The neuron in plain torch with its surrogate written out."""
    v, out = torch.zeros_like(x[0]), []
    for current in x:
        h = leak * v + current
        u = h / threshold - 1
        hard = (u > 0).to(u.dtype)
        slope = (0.3 * (1 - u.abs()).clamp(min=0)).detach()
        out.append(hard + slope * (u - u.detach()))
        v = h - threshold * hard
    return torch.stack(out)


@both
def test_values_and_gradients_are_those_of_plain_torch(backend: str) -> None:
    draw = torch.Generator().manual_seed(0)
    x = 0.2 + 0.6 * torch.randn(9, 4, 6, generator=draw, dtype=torch.float64)
    weights = torch.randn(9, 4, 6, generator=draw, dtype=torch.float64)
    layer = diet(0.7, 0.8, backend)
    ours = x.clone().requires_grad_()
    y = layer(ours)
    theirs = x.clone().requires_grad_()
    raw, leak = (p.detach().clone().requires_grad_() for p in (layer.w, layer.leak))
    expected = plain(theirs, nn.functional.softplus(raw), leak)
    assert torch.equal(y, expected.round())
    got = torch.autograd.grad((y * weights).sum(), [ours, layer.w, layer.leak])
    wanted = torch.autograd.grad((expected * weights).sum(), [theirs, raw, leak])
    for a, b in zip(got, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_a_membrane_exactly_at_the_threshold_is_silent() -> None:
    layer = diet(1.0, 1.0)
    at = layer.threshold.detach().item()
    assert layer(torch.tensor([[at], [0.0], [1e-9]], dtype=torch.float64)).flatten().tolist() == [0, 0, 1]


def test_at_one_step_the_leak_has_no_gradient_and_the_network_is_binary() -> None:
    draw = torch.Generator().manual_seed(1)
    linear = nn.Linear(5, 30, bias=False).double()
    x = torch.rand(1, 8, 5, generator=draw, dtype=torch.float64)
    layer = diet(0.3, 0.5)
    z = layer(linear(x))
    assert torch.equal(z[0], (x[0] @ linear.weight.T > layer.threshold).double())
    assert 0 < z.mean() < 1
    z.sum().backward()
    assert layer.leak.grad is not None
    assert layer.leak.grad.item() == 0
    assert layer.w.grad is not None
    assert layer.w.grad.abs().item() > 0


def test_a_high_threshold_silences_and_stops_gradients() -> None:
    layer = diet(1e6, 1.0)
    x = torch.tensor([[-0.5], [-3.0], [0.0]], dtype=torch.float64, requires_grad=True)
    z = layer(x)
    assert not z.any()
    (gradient,) = torch.autograd.grad(z.sum(), x)
    assert not gradient.any()  # u <= -1 at every step


def test_threshold_gradient_through_reset_and_through_firing() -> None:
    layer = diet(0.5, 1.0)
    x = torch.tensor([[0.6]], dtype=torch.float64, requires_grad=True)
    _, state = layer(x, state=None, detach_state=False)
    slope = torch.sigmoid(layer.w.detach())  # of softplus
    (through_reset,) = torch.autograd.grad(state["v"].sum(), layer.w)
    assert (through_reset / slope).item() == pytest.approx(-1)
    by_threshold, by_current = torch.autograd.grad(layer(x).sum(), [layer.w, x])
    assert by_threshold.item() < 0 < by_current.item()
    assert (by_threshold / slope).item() == pytest.approx(-0.6 / 0.5**2 * 0.3 * 0.8)


@settings(deadline=None, max_examples=30)
@given(factor=st.sampled_from([0.125, 0.5, 2.0, 8.0]), seed=st.integers(0, 1000))
def test_scaling_currents_and_threshold_together_changes_no_spike(factor: float, seed: int) -> None:
    x = torch.randn(6, 3, 10, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    small, large = diet(0.75, 0.5), diet(0.75 * factor, 0.5)
    far = ((small(x) > 0) == (large(factor * x) > 0)).double().mean()
    assert far == 1


def test_thresholds_stay_positive_and_leaks_within_bounds_under_a_large_step() -> None:
    layer = snn.DIET(0.1, 0.5, step_mode="m")
    optimizer = torch.optim.SGD(layer.parameters(), lr=100.0)
    for sign in (1.0, -1.0):
        optimizer.zero_grad()
        (sign * (layer.threshold + layer.leak)).backward()
        optimizer.step()
        clamp_leaks(layer)
        assert layer.threshold.item() > 0
        assert layer.leak.item() == (0.0 if sign > 0 else 1.0)


def test_only_what_is_named_is_trained() -> None:
    layer = snn.DIET(trained=("v_threshold",), step_mode="m")
    assert (layer.w.requires_grad, layer.leak.requires_grad) == (True, False)
    layer.set_threshold(0.37)
    assert layer.threshold.item() == pytest.approx(0.37, rel=1e-6)


def test_one_threshold_per_channel() -> None:
    layer = snn.DIET(torch.tensor([0.1, 10.0]).view(2, 1, 1), step_mode="m")
    z = layer(torch.ones(1, 1, 2, 3, 3))
    assert z[0, 0, 0].eq(1).all()
    assert z[0, 0, 1].eq(0).all()


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: snn.DIET(v_threshold=0.0), "v_threshold must be > 0, got 0.0"),
        (lambda: snn.DIET(leak=1.5), r"leak must lie in \[0, 1\], got 1.5"),
        (lambda: snn.DIET(trained=("tau",)), "trained must name 'v_threshold' or 'leak', got 'tau'"),
        (lambda: snn.DIET().set_threshold(-1.0), "v_threshold must be > 0"),
        (lambda: snn.LIAF(init_tau=1.0), "init_tau must be > 1"),
        (lambda: snn.LIAF(negative_slope=2.0), "negative_slope"),
        (lambda: surrogate.ScaledTriangle(width=0.0), "width must be a positive number"),
    ],
)
def test_wrong_values_name_the_argument(call: object, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        call()  # type: ignore[operator]


@both
def test_liaf_keeps_the_state_of_plif_and_sends_its_membrane(backend: str) -> None:
    x = torch.randn(12, 3, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    arguments = {"init_tau": 2.6487, "v_threshold": 0.5, "detach_reset": True, "step_mode": "m", "store_v_seq": True}
    analog = snn.LIAF(**arguments, backend=backend).double()
    spiking = snn.PLIF(**arguments, decay_input=False).double()
    spiking.load_state_dict(analog.state_dict())
    y, z = analog(x), spiking(x)
    assert torch.equal(analog.v_seq, spiking.v_seq)
    assert torch.equal(z, (y >= 0.5).double())
    assert (1 - torch.sigmoid(analog.w)).item() == pytest.approx(0.6225, abs=1e-4)  # sigmoid(0.5)
    leaky = snn.LIAF(**arguments, negative_slope=0.2).double()
    assert torch.allclose(leaky(x).clamp(min=0), y)
    assert leaky(x).min() < 0
