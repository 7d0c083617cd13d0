"""Surrogate derivatives of the spike: SpikingJelly's objects, a few more, and their closed forms for the kernels.

A closed form is the derivative written once in the words of `snn.ops`: evaluated on tensors it is the backward
of our own surrogates, traced it becomes part of a generated kernel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from spikingjelly.activation_based import surrogate as sj
from spikingjelly.activation_based.surrogate import SurrogateFunctionBase

from snn.ops import exp, indicator, maximum, minimum, rounded


def heaviside(u: Any) -> Any:
    """1 where u >= 0, else 0."""
    return indicator(u >= 0.0, u)


@dataclass(frozen=True)
class ClosedForm:
    """What a kernel needs to know of a surrogate.

    Attributes:
        name: used in the names of generated files.
        derivative: (u, **params) -> d spike / d u.
        params: names of the surrogate object's numbers that both functions take.
        forward: (u, **params) -> spike.
    """

    name: str
    derivative: Callable[..., Any]
    params: tuple[str, ...] = ("alpha",)
    forward: Callable[..., Any] = lambda u, **_: heaviside(u)


def _atan(u: Any, alpha: Any) -> Any:
    slope = alpha * 0.5
    scaled = math.pi * slope * u
    return slope / (1.0 + scaled * scaled)


def _sigmoid(u: Any, alpha: Any) -> Any:
    tail = exp(-abs(alpha * u))
    return alpha * tail / ((1.0 + tail) * (1.0 + tail))


def _super_spike(u: Any, alpha: Any) -> Any:
    wide = abs(u) + 1.0
    return alpha / (wide * wide)


def _fast_sigmoid(u: Any, alpha: Any) -> Any:
    wide = 1.0 + abs(alpha * u)
    return 1.0 / (wide * wide)


def _soft_sign(u: Any, alpha: Any) -> Any:
    wide = 1.0 / alpha + abs(u)
    return 1.0 / (2.0 * alpha * (wide * wide))


def _triangle(u: Any, alpha: Any) -> Any:
    return alpha * maximum(1.0 - abs(alpha * u), 0.0)


def _scaled_triangle(u: Any, height: Any, width: Any) -> Any:
    return height * maximum(1.0 - abs(u / width), 0.0)


def _rectangle(u: Any, alpha: Any) -> Any:
    return alpha * indicator(abs(u) < 0.5 / alpha, u)


def _gaussian(u: Any, sigma: Any) -> Any:
    scaled = u / sigma
    return exp(-0.5 * (scaled * scaled)) / (math.sqrt(2.0 * math.pi) * sigma)


def _erf(u: Any, alpha: Any) -> Any:
    scaled = alpha * u
    return exp(-(scaled * scaled)) * (alpha / math.sqrt(math.pi))


def _piecewise_exp(u: Any, alpha: Any) -> Any:
    return alpha * 0.5 * exp(-abs(alpha * u))


def _clipped_tanh(u: Any, k: Any) -> Any:
    tail = exp(-2.0 * abs(k * u))  # sech^2(a) = 4 e / (1 + e)^2 with e = exp(-2|a|)
    at_edge = exp(-k)
    half_span = (1.0 - at_edge) / (1.0 + at_edge)  # tanh(k / 2)
    slope = k * (4.0 * tail / ((1.0 + tail) * (1.0 + tail))) / (2.0 * half_span)
    return slope * indicator(abs(u) < 0.5, u)


def _leaky_k_relu(u: Any, leak: Any, k: Any) -> Any:
    fires = indicator(u >= 0.0, u)
    return fires * k + (1.0 - fires) * leak


def _piecewise_leaky_relu(u: Any, w: Any, c: Any) -> Any:
    inside = indicator(abs(u) < w, u)
    return inside * (1.0 / (2.0 * w)) + (1.0 - inside) * c


def _inside_window(u: Any, max_spike_count: Any, grad_min: Any, grad_max: Any) -> Any:
    return indicator(u >= grad_min, u) * indicator(u <= grad_max, u)


def _spike_count(u: Any, max_spike_count: Any, grad_min: Any, grad_max: Any) -> Any:
    return rounded(minimum(maximum(u, 0.0), max_spike_count))


class _Fire(torch.autograd.Function):
    """Heaviside forward, a closed form backward."""

    @staticmethod
    def forward(u: torch.Tensor, derivative: Callable[..., torch.Tensor], values: dict[str, float]) -> torch.Tensor:
        return heaviside(u)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        u, ctx.derivative, ctx.values = inputs
        ctx.save_for_backward(u)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return gradient * ctx.derivative(ctx.saved_tensors[0], **ctx.values), None, None


def _positive(owner: str, name: str, value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{owner}: {name} must be a positive number, got {value}")
    return float(value)


class FastSigmoid(SurrogateFunctionBase):
    """Derivative 1 / (1 + alpha |u|)^2; height 1 at u = 0 whatever alpha is.

    Source: Zenke and Ganguli, SuperSpike, Neural Computation 2018, with the slope's height normalised.
    """

    def __init__(self, alpha: float = 25.0, spiking: bool = True) -> None:
        super().__init__(spiking=spiking, alpha=_positive("FastSigmoid", "alpha", alpha))

    @staticmethod
    def spiking_function(u: torch.Tensor, alpha: float) -> torch.Tensor:
        return _Fire.apply(u, _fast_sigmoid, {"alpha": alpha})

    @staticmethod
    def primitive_function(u: torch.Tensor, alpha: float) -> torch.Tensor:
        return 0.5 + u / (1.0 + (alpha * u).abs())


class Triangle(SurrogateFunctionBase):
    """Derivative alpha max(0, 1 - alpha |u|); area 1.

    Source: Bellec et al., Long short-term memory in networks of spiking neurons, NeurIPS 2018 (there scaled by 0.3).
    """

    def __init__(self, alpha: float = 1.0, spiking: bool = True) -> None:
        super().__init__(spiking=spiking, alpha=_positive("Triangle", "alpha", alpha))

    @staticmethod
    def spiking_function(u: torch.Tensor, alpha: float) -> torch.Tensor:
        return _Fire.apply(u, _triangle, {"alpha": alpha})

    @staticmethod
    def primitive_function(u: torch.Tensor, alpha: float) -> torch.Tensor:
        a = (alpha * u).clamp(-1.0, 1.0)
        return 0.5 + a - 0.5 * a * a.abs()


class ScaledTriangle(SurrogateFunctionBase):
    """Derivative height max(0, 1 - |u| / width); area height * width, which is below 1 to damp deep networks.

    Source: the surrogate of DIET-SNN (Rathi and Roy, 2021), where u = v / v_threshold - 1, height 0.3 and width 1.
    """

    def __init__(self, height: float = 0.3, width: float = 1.0, spiking: bool = True) -> None:
        super().__init__(
            spiking=spiking,
            height=_positive("ScaledTriangle", "height", height),
            width=_positive("ScaledTriangle", "width", width),
        )

    @staticmethod
    def spiking_function(u: torch.Tensor, height: float, width: float) -> torch.Tensor:
        return _Fire.apply(u, _scaled_triangle, {"height": height, "width": width})

    @staticmethod
    def primitive_function(u: torch.Tensor, height: float, width: float) -> torch.Tensor:
        a = (u / width).clamp(-1.0, 1.0)
        return height * width * (0.5 + a - 0.5 * a * a.abs())


class Gaussian(SurrogateFunctionBase):
    """Derivative: the normal density with standard deviation sigma; area 1.

    Source: Yin, Corradi and Bohte, Nature Machine Intelligence 2021 (the single-Gaussian case).
    """

    def __init__(self, sigma: float = 0.5, spiking: bool = True) -> None:
        super().__init__(spiking=spiking, sigma=_positive("Gaussian", "sigma", sigma))

    @staticmethod
    def spiking_function(u: torch.Tensor, sigma: float) -> torch.Tensor:
        return _Fire.apply(u, _gaussian, {"sigma": sigma})

    @staticmethod
    def primitive_function(u: torch.Tensor, sigma: float) -> torch.Tensor:
        return 0.5 * (1.0 + torch.erf(u / (sigma * math.sqrt(2.0))))


class ClippedTanh(SurrogateFunctionBase):
    """Derivative k sech^2(k u) / (2 tanh(k / 2)) for |u| < 1/2, else 0; area 1.

    Source: the released training code of MPBN (Guo et al., ICCV 2023), there as a function of x = u + 1/2.
    """

    def __init__(self, k: float = 3.0, spiking: bool = True) -> None:
        super().__init__(spiking=spiking, k=_positive("ClippedTanh", "k", k))

    @staticmethod
    def spiking_function(u: torch.Tensor, k: float) -> torch.Tensor:
        return _Fire.apply(u, _clipped_tanh, {"k": k})

    @staticmethod
    def primitive_function(u: torch.Tensor, k: float) -> torch.Tensor:
        edge = math.tanh(k / 2.0)
        return (torch.tanh(k * u.clamp(-0.5, 0.5)) + edge) / (2.0 * edge)


CLOSED_FORMS: dict[type, ClosedForm] = {
    sj.ATan: ClosedForm("atan", _atan),
    sj.Sigmoid: ClosedForm("sigmoid", _sigmoid),
    sj.SuperSpike: ClosedForm("super_spike", _super_spike),
    sj.SoftSign: ClosedForm("soft_sign", _soft_sign),
    sj.PiecewiseQuadratic: ClosedForm("triangle", _triangle),
    sj.Rect: ClosedForm("rectangle", _rectangle),
    sj.Erf: ClosedForm("erf", _erf),
    sj.PiecewiseExp: ClosedForm("piecewise_exp", _piecewise_exp),
    sj.LeakyKReLU: ClosedForm("leaky_k_relu", _leaky_k_relu, ("leak", "k")),
    sj.PiecewiseLeakyReLU: ClosedForm("piecewise_leaky_relu", _piecewise_leaky_relu, ("w", "c")),
    sj.DeterministicPass: ClosedForm("straight_through", lambda u: u * 0.0 + 1.0, ()),
    sj.MultiLevelSpikeCount: ClosedForm(
        "spike_count", _inside_window, ("max_spike_count", "grad_min", "grad_max"), _spike_count
    ),
    FastSigmoid: ClosedForm("fast_sigmoid", _fast_sigmoid),
    Triangle: ClosedForm("triangle", _triangle),
    ScaledTriangle: ClosedForm("scaled_triangle", _scaled_triangle, ("height", "width")),
    Gaussian: ClosedForm("gaussian", _gaussian, ("sigma",)),
    ClippedTanh: ClosedForm("clipped_tanh", _clipped_tanh, ("k",)),
}


def closed_form(surrogate: object) -> ClosedForm | None:
    """The closed form of a surrogate object; None where it has none or is switched to its smooth primitive."""
    if not getattr(surrogate, "spiking", True):
        return None
    return CLOSED_FORMS.get(type(surrogate))


def form_named(name: str) -> ClosedForm:
    """The closed form with this name.

    Raises:
        LookupError: there is none.
    """
    for form in CLOSED_FORMS.values():
        if form.name == name:
            return form
    raise LookupError(
        f"no surrogate has the closed form {name!r}; known: {sorted({f.name for f in CLOSED_FORMS.values()})}"
    )
