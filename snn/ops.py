"""The words of a neuron's step function besides arithmetic and comparisons.

Each works on torch tensors (the reference path) and on traced symbols (the kernels), with the same meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch

from snn.kernels.graph import Symbol, TraceError

_surrogate: ContextVar[Callable[[torch.Tensor], torch.Tensor] | None] = ContextVar("spikeloop_surrogate", default=None)
_membrane_view: ContextVar[Callable[[Any, Any], tuple[Any, Any]] | None] = ContextVar(
    "spikeloop_membrane_view", default=None
)


@contextmanager
def fire_with(surrogate: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Within this context `spike` of a tensor calls `surrogate`."""
    token = _surrogate.set(surrogate)
    try:
        yield
    finally:
        _surrogate.reset(token)


def spike(u: Any) -> Any:
    """1 where `u >= 0`, else 0; its derivative is the surrogate of the layer that runs the step."""
    if isinstance(u, Symbol):
        return u.apply("spike", u)
    surrogate = _surrogate.get()
    if surrogate is None:
        raise RuntimeError(
            "spike() of a tensor was called outside a neuron layer; wrap the call in fire_with(surrogate)"
        )
    return surrogate(u)


@contextmanager
def membrane_seen_through(view: Callable[[Any, Any], tuple[Any, Any]]) -> Iterator[None]:
    """Within this context `over_threshold(h, threshold)` is `view(h, threshold)`."""
    token = _membrane_view.set(view)
    try:
        yield
    finally:
        _membrane_view.reset(token)


def over_threshold(h: Any, threshold: Any) -> tuple[Any, Any]:
    """(how far the membrane `h` is over the firing threshold, the membrane that the reset acts on).

    This is `(h - threshold, h)`, unless the layer puts a normalisation between charge and fire. A neuron that writes
    `u, h = over_threshold(h, p.v_threshold); z = spike(u)` can be given one.
    """
    view = _membrane_view.get()
    return (h - threshold, h) if view is None else view(h, threshold)


def detach(a: Any) -> Any:
    """The value of `a`, through which no gradient flows."""
    return a.apply("detach", a) if isinstance(a, Symbol) else a.detach()


def select(z: Any, fired: Any, silent: Any) -> Any:
    """`fired` where the 0/1 spike `z` is 1, else `silent`; the gradient for `z` is `fired - silent`."""
    if isinstance(z, Symbol):
        return z.apply("select", z, fired, silent)
    return z * fired + (1.0 - z) * silent


def where(condition: Any, if_true: Any, if_false: Any) -> Any:
    """`if_true` where the comparison `condition` holds, else `if_false`; no gradient for the condition."""
    if isinstance(condition, Symbol):
        if not condition.node.is_boolean:
            raise TraceError("the condition of where() must be a comparison")
        return condition.apply("where", condition, if_true, if_false)
    return torch.where(condition, if_true, if_false)


def indicator(condition: Any, like: Any) -> Any:
    """1 where the comparison holds, else 0, in the dtype of `like`."""
    if isinstance(condition, Symbol):
        return where(condition, 1.0, 0.0)
    return condition.to(like.dtype)


def _unary(op: str, function: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Any], Any]:
    def apply(a: Any) -> Any:
        if isinstance(a, Symbol):
            return a.apply(op, a)
        if isinstance(a, int | float):
            return function(torch.tensor(a, dtype=torch.float64)).item()
        return function(a)

    apply.__name__ = apply.__qualname__ = op
    apply.__doc__ = f"Elementwise {op}."
    return apply


exp = _unary("exp", torch.exp)
log = _unary("log", torch.log)
tanh = _unary("tanh", torch.tanh)
sqrt = _unary("sqrt", torch.sqrt)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of `a` and the number, state or parameter `b`."""
    if isinstance(a, Symbol):
        return a.apply("min", a, b)
    return torch.minimum(a, torch.as_tensor(b, dtype=a.dtype, device=a.device))


def maximum(a: Any, b: Any) -> Any:
    """The larger of `a` and the number, state or parameter `b`."""
    if isinstance(a, Symbol):
        return a.apply("max", a, b)
    return torch.maximum(a, torch.as_tensor(b, dtype=a.dtype, device=a.device))


def rounded(a: Any) -> Any:
    """`a` rounded to the nearest integer, halves to even; no gradient."""
    return a.apply("rint", a) if isinstance(a, Symbol) else torch.round(a).detach()
