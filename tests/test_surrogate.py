"""Closed forms of the surrogates equal SpikingJelly's gradients and the derivatives of the smooth primitives."""

from __future__ import annotations

import math

import pytest
import torch
from members import SURROGATES
from spikingjelly.activation_based import surrogate as sj

from snn import surrogate
from snn.surrogate import CLOSED_FORMS, closed_form

by_type = pytest.mark.parametrize("function", SURROGATES, ids=lambda s: type(s).__name__)


def gradient_of(function: torch.nn.Module, u: torch.Tensor) -> torch.Tensor:
    leaf = u.clone().requires_grad_()
    return torch.autograd.grad(function(leaf).sum(), leaf)[0]


@by_type
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_closed_form_is_the_gradient(function: torch.nn.Module, dtype: torch.dtype) -> None:
    u = torch.linspace(-3.0, 3.0, 1001, dtype=dtype)
    form = closed_form(function)
    assert form is not None
    values = {name: getattr(function, name) for name in form.params}
    derivative = form.derivative(u, **values)
    assert derivative.dtype == dtype
    torch.testing.assert_close(derivative, gradient_of(function, u), rtol=1e-5, atol=1e-6)
    assert torch.equal(form.forward(u, **values), function(u))


@pytest.mark.parametrize(
    "function",
    [
        surrogate.FastSigmoid(2.0),
        surrogate.Triangle(1.5),
        surrogate.ScaledTriangle(0.3, 1.2),
        surrogate.Gaussian(0.4),
        surrogate.ClippedTanh(),
        sj.ATan(),
    ],
    ids=lambda s: type(s).__name__,
)
def test_derivative_is_that_of_the_primitive(function: torch.nn.Module) -> None:
    u = torch.linspace(-0.977, 0.981, 300, dtype=torch.float64).requires_grad_()
    fired = gradient_of(function, u.detach())
    function.set_spiking_mode(False)
    (smooth,) = torch.autograd.grad(function(u).sum(), u)
    function.set_spiking_mode(True)
    scale = smooth.max() / fired.max()  # FastSigmoid's primitive and derivative have the same height
    torch.testing.assert_close(fired * scale, smooth, rtol=1e-9, atol=1e-12)
    assert scale.item() == pytest.approx(1.0, rel=1e-9)


def test_clipped_tanh_of_mpbn() -> None:
    x = torch.tensor([0.5, 0.25, 0.75, -0.1, 1.1], dtype=torch.float64)
    gradient = gradient_of(surrogate.ClippedTanh(k=3.0), x - 0.5)
    assert gradient.tolist() == pytest.approx([1.657187, 0.988654, 0.988654, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(
    ("function", "area"),
    [
        (surrogate.Triangle(2.0), 1.0),
        (surrogate.Gaussian(0.3), 1.0),
        (surrogate.ClippedTanh(), 1.0),
        (surrogate.FastSigmoid(4.0), 0.5),
    ],
)
def test_areas(function: torch.nn.Module, area: float) -> None:
    u = torch.linspace(-400.0, 400.0, 8_000_001, dtype=torch.float64)
    assert gradient_of(function, u).sum().item() * 1e-4 == pytest.approx(area, rel=2e-3)


def test_spike_count_forward_and_window() -> None:
    function = sj.MultiLevelSpikeCount(3)
    u = torch.tensor([-0.4, 0.4, 0.5, 1.5, 2.5, 2.6, 3.4, 9.0])
    form = closed_form(function)
    assert form is not None
    values = {name: getattr(function, name) for name in form.params}
    assert form.forward(u, **values).tolist() == [0.0, 0.0, 0.0, 2.0, 2.0, 3.0, 3.0, 3.0]
    assert form.derivative(u, **values).tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0]


def test_no_closed_form_for_primitives_and_strangers() -> None:
    smooth = sj.ATan()
    smooth.set_spiking_mode(False)
    assert closed_form(smooth) is None
    assert closed_form(sj.S2NN()) is None


def test_every_closed_form_is_tested() -> None:
    tested = {type(function) for function in SURROGATES} | {sj.MultiLevelSpikeCount}
    assert tested == set(CLOSED_FORMS)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
def test_bad_widths_are_named(value: float) -> None:
    with pytest.raises(ValueError, match="Gaussian: sigma must be a positive number"):
        surrogate.Gaussian(sigma=value)
