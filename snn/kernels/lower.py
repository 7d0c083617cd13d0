"""From a traced step to the plain expressions of a kernel: forward, backward, and what to keep in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import networkx as nx

from snn.kernels.adjoint import Adjoint
from snn.kernels.graph import Graph, Node, Symbol, in_order, rewrite
from snn.kernels.trace import OUTPUT, TracedStep
from snn.surrogate import ClosedForm


def _surrogate_node(graph: Graph, form: ClosedForm, function: Callable[..., Symbol], u: Node) -> Node:
    values = {name: Symbol(graph, graph.leaf("surrogate", name)) for name in form.params}
    return function(Symbol(graph, u), **values).node


def _plain(roots: dict[str, Node], graph: Graph, form: ClosedForm) -> dict[str, Node]:
    """The roots without spike, select and detach, which have become comparisons and wheres."""
    zero = graph.const(0.0)

    def differs(node: Node, args: tuple[Node, ...]) -> Node:
        a, b = args
        if b is zero and a.op == "where" and a.args[1:] == (graph.const(1.0), zero):
            return a.args[0]  # [c ? 1 : 0] != 0 is c
        return graph.node("ne", a, b)

    rules = {
        "spike": lambda node, args: _surrogate_node(graph, form, form.forward, args[0]),
        "select": lambda node, args: graph.node("where", differs(node, (args[0], zero)), args[1], args[2]),
        "detach": lambda node, args: args[0],
        "ne": differs,
    }
    # a surrogate's own forward may hold detach-like words, so rewrite until nothing changes
    rewritten = rewrite(roots, graph, rules)
    return rewritten if rewritten == roots else _plain(rewritten, graph, form)


@dataclass(frozen=True)
class ForwardStep:
    """Plain expressions of one step: the output and the new states."""

    output: Node
    new_states: dict[str, Node]


@dataclass(frozen=True)
class BackwardStep:
    """Plain expressions of one step backwards in time.

    Attributes:
        kept: values of the forward step that the backward step reads again, as few as the graph allows.
        new_states: the forward step, needed to recompute the states.
        g_input, g_states, g_params: gradients in terms of kept values, x, parameters and arriving gradients.
    """

    kept: tuple[Node, ...]
    new_states: dict[str, Node]
    g_input: Node
    g_states: dict[str, Node]
    g_params: dict[str, Node]

    @property
    def kept_apart(self) -> list[Node]:
        """The kept values but x, which is at hand in any case."""
        return [node for node in self.kept if node.op != "input"]


def forward_step(step: TracedStep, form: ClosedForm) -> ForwardStep:
    """The step without its words for gradients."""
    (output,) = _plain({OUTPUT: step.output}, step.graph, form).values()
    return ForwardStep(output, _plain(step.new_states, step.graph, form))


def backward_step(step: TracedStep, form: ClosedForm, learnable: Iterable[str]) -> BackwardStep:
    """The vector-Jacobian product of `step`; `learnable` names the parameters whose gradient is wanted."""
    graph = step.graph
    seeds = [(step.output, graph.leaf("grad", OUTPUT))]
    seeds += [(node, graph.leaf("grad", f"s_{name}")) for name, node in step.new_states.items()]
    leaves = {"input x": graph.leaf("input", "x")}
    leaves |= {f"state {name}": graph.leaf("state", name) for name in step.new_states}
    leaves |= {f"param {name}": graph.leaf("param", name) for name in learnable}
    found = gradients_of(step, form, seeds, leaves)
    gradients = {name: found.get(name, graph.const(0.0)) for name in leaves}
    new_states = _plain(step.new_states, graph, form)
    output = _plain({OUTPUT: step.output}, graph, form)
    return BackwardStep(
        kept=_kept(list(gradients.values()), list(new_states.values()), output[OUTPUT]),
        new_states=new_states,
        g_input=gradients["input x"],
        g_states={name: gradients[f"state {name}"] for name in step.new_states},
        g_params={name: gradients[f"param {name}"] for name in learnable},
    )


def gradients_of(
    step: TracedStep, form: ClosedForm, seeds: Sequence[tuple[Node, Node]], leaves: Mapping[str, Node]
) -> dict[str, Node]:
    """Plain expressions of the gradients of `leaves`, but for those that no gradient reaches.

    Args:
        seeds: (node, gradient that arrives there).
    """
    graph = step.graph
    adjoint = Adjoint(graph, lambda u: _surrogate_node(graph, form, form.derivative, u))
    adjoint(seeds)
    found = {name: adjoint.of(leaf) for name, leaf in leaves.items()}
    return _plain({name: node for name, node in found.items() if node is not None}, graph, form)


def _depends_on_gradients(roots: list[Node]) -> set[int]:
    found: set[int] = set()
    for node in in_order(roots):
        if node.op == "grad" or any(id(arg) in found for arg in node.args):
            found.add(id(node))
    return found


def _kept(gradients: list[Node], new_states: list[Node], output: Node) -> tuple[Node, ...]:
    """The smallest set of forward values from which the gradients can be computed (a minimum cut of the graph).

    The input can be read again at little cost, parameters and constants at none; a comparison is never kept but
    recomputed. What only the output needs is kept where nothing else will do. Among equally small sets the one closest
    to the gradients wins, so that least is computed twice.
    """
    try:
        return _smallest_cut(gradients, in_order(new_states))
    except nx.NetworkXUnbounded:
        return _smallest_cut(gradients, in_order([*new_states, output]))


def _smallest_cut(gradients: list[Node], recomputed: list[Node]) -> tuple[Node, ...]:
    by_gradient = _depends_on_gradients(gradients)
    while_recomputing = {id(node) for node in recomputed}
    needed = in_order(gradients)
    forward = [node for node in needed if id(node) not in by_gradient]
    wanted = {id(arg) for node in needed if id(node) in by_gradient for arg in node.args} | {id(g) for g in gradients}

    unlimited = float("inf")
    flow = nx.DiGraph()
    flow.add_nodes_from(("leaves", "gradients"))
    for node in forward:
        can_be_kept = (
            id(node) in while_recomputing and not node.is_boolean and node.op not in {"const", "param", "surrogate"}
        )
        cost = (9 if node.op == "input" else 10) if can_be_kept else unlimited
        flow.add_edge((id(node), "in"), (id(node), "out"), capacity=cost)
        for arg in node.args:
            flow.add_edge((id(arg), "out"), (id(node), "in"), capacity=unlimited)
        if node.op in {"input", "state"}:
            flow.add_edge("leaves", (id(node), "in"), capacity=unlimited)
        if id(node) in wanted:
            flow.add_edge((id(node), "out"), "gradients", capacity=unlimited)
    _, (_, near) = nx.minimum_cut(flow, "leaves", "gradients")
    return tuple(node for node in forward if (id(node), "in") not in near and (id(node), "out") in near)
