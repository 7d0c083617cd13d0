"""Traces a declared neuron to its expression graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from snn.declaration import NeuronModel
from snn.kernels.graph import Graph, Node, Symbol, TraceError

OUTPUT = "z"


def is_switch(value: object) -> bool:
    """True for a parameter value that the step function may branch on: None or a boolean."""
    return value is None or isinstance(value, bool)


@dataclass(frozen=True, eq=False)
class TracedStep:
    """One step as a graph.

    Attributes:
        model: the declared model.
        switches: the parameter values that were fixed during the trace.
        values: names of the parameters that stay variables, in declaration order.
        output: node of the output.
        new_states: node of each state's new value, in declaration order.
    """

    model: NeuronModel
    switches: dict[str, bool | None]
    values: tuple[str, ...]
    graph: Graph
    output: Node
    new_states: dict[str, Node]


def trace(model: NeuronModel, params: Mapping[str, Any]) -> TracedStep:
    """The expression graph of `model` with the switches among `params` fixed.

    Raises:
        TraceError: the step function uses an operation that a graph cannot hold; the text names model and operation.
        ValueError: the step function does not return every state, or returns one that was not declared.
    """
    graph = Graph()
    switches = {name: value for name, value in params.items() if is_switch(value)}
    values = tuple(name for name in model.params if name not in switches)
    x = Symbol(graph, graph.leaf("input", "x"))
    s = SimpleNamespace(**{name: Symbol(graph, graph.leaf("state", name)) for name in model.state})
    p = SimpleNamespace(**switches, **{name: Symbol(graph, graph.leaf("param", name)) for name in values})
    try:
        output, new_states = model.step(x, s, p)
        if set(new_states) != set(model.state):
            raise ValueError(
                f"neuron {model.name!r} declares states {sorted(model.state)}, its step returned {sorted(new_states)}"
            )
        nodes = {name: x.lift(new_states[name]) for name in model.state}
        return TracedStep(model, switches, values, graph, x.lift(output), nodes)
    except (TypeError, AttributeError) as error:
        raise TraceError(f"neuron {model.name!r} cannot be traced: {error}") from error
