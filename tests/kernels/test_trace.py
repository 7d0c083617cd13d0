"""Tracing records what the step function wrote, in its order, and refuses by name what a graph cannot hold."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

import snn
from snn.kernels.graph import Graph, Node, TraceError, in_order
from snn.kernels.trace import trace
from snn.ops import exp, spike, where


def declared(step: Any) -> snn.NeuronModel:
    return snn.neuron_model(state={"v": 0.0}, params={"a": 0.5})(step)


def trace_of(step: Any) -> Any:
    return trace(declared(step), {"a": 0.5})


def test_order_of_operations_is_kept() -> None:
    def first(x: Any, s: Any, p: Any) -> Any:
        return (x + s.v) + p.a, {"v": x}

    def second(x: Any, s: Any, p: Any) -> Any:
        return x + (s.v + p.a), {"v": x}

    assert repr(trace_of(first).output) == "add(add(input:x, state:v), param:a)"
    assert repr(trace_of(second).output) == "add(input:x, add(state:v, param:a))"


def test_equal_expressions_are_one_node() -> None:
    def step(x: Any, s: Any, p: Any) -> Any:
        return exp(x * p.a) + exp(x * p.a), {"v": exp(x * p.a)}

    traced = trace_of(step)
    left, right = traced.output.args
    assert left is right is traced.new_states["v"]


def test_division_stays_a_division() -> None:
    def step(x: Any, s: Any, p: Any) -> Any:
        return x / p.a, {"v": s.v}

    assert trace_of(step).output.op == "div"


def test_switches_are_fixed_and_numbers_stay_variables() -> None:
    traced = trace(snn.LIF().model, {**snn.LIF().model.params, "v_reset": None})
    assert traced.switches == {"v_reset": None, "decay_input": True, "detach_reset": False}
    assert set(traced.values) == {"tau", "v_threshold"}


@pytest.mark.parametrize(
    ("step", "named"),
    [
        (lambda x, s, p: (x if s.v > 0 else -x, {"v": x}), "branch"),
        (lambda x, s, p: (math.exp(x), {"v": x}), "math"),
        (lambda x, s, p: (torch.exp(x), {"v": x}), "exp"),
        (lambda x, s, p: (x**3, {"v": x}), "power 3"),
        (lambda x, s, p: (x[0], {"v": x}), "indexing"),
        (lambda x, s, p: (x.clamp(0), {"v": x}), "clamp"),
        (lambda x, s, p: (x * "a", {"v": x}), "str"),
        (lambda x, s, p: (where(x, 1.0, 0.0), {"v": x}), "comparison"),
    ],
)
def test_what_cannot_be_traced_is_named(step: Any, named: str) -> None:
    with pytest.raises(TraceError, match=named):
        trace_of(step)


def test_a_missing_state_is_named() -> None:
    with pytest.raises(ValueError, match=r"declares states \['v'\], its step returned \['w'\]"):
        trace_of(lambda x, s, p: (x, {"w": x}))


def test_in_order_puts_arguments_first() -> None:
    graph = Graph()
    x = graph.leaf("input", "x")
    y: Node = x
    for _ in range(2000):  # deeper than Python's recursion allows
        y = graph.node("add", y, x)
    order = in_order([y])
    assert order[0] is x
    assert order[-1] is y
    assert len(order) == 2001


def test_declaration_checks_its_names() -> None:
    with pytest.raises(TypeError, match=r"must take \(x, s, p\)"):
        snn.neuron_model(state={}, params={})(lambda x, s: (x, {}))
    with pytest.raises(ValueError, match="both a state and a parameter"):
        snn.neuron_model(state={"v": 0.0}, params={"v": 1.0})(lambda x, s, p: (x, {}))
    with pytest.raises(ValueError, match="no parameter"):
        snn.neuron_model(state={"v": "rest"}, params={})(lambda x, s, p: (x, {}))


def test_spike_of_a_tensor_needs_a_surrogate() -> None:
    with pytest.raises(RuntimeError, match="fire_with"):
        spike(torch.zeros(1))
