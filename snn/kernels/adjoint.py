"""Reverse-mode differentiation of a traced step, node by node."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from snn.kernels.graph import Graph, Node, in_order

Derivative = Callable[[Node], Node]
"""The surrogate: node of u -> node of d spike / d u."""


class Adjoint:
    """Builds the vector-Jacobian product of a step as new nodes of the same graph."""

    def __init__(self, graph: Graph, surrogate: Derivative) -> None:
        self.graph = graph
        self.surrogate = surrogate
        self._sums: dict[int, Node] = {}
        names = "add sub mul div neg abs exp log tanh sqrt min max where select spike"
        self._rules = {name: getattr(self, f"_{name}") for name in names.split()}

    def __call__(self, seeds: Sequence[tuple[Node, Node]]) -> None:
        """Propagates `seeds` (node, gradient that arrives there) down to the leaves."""
        for node, gradient in seeds:
            self._arrive(node, gradient)
        for node in reversed(in_order(node for node, _ in seeds)):
            if node.op in self._rules and id(node) in self._sums:  # comparisons, rounding and detach pass nothing on
                self._rules[node.op](node, self._sums[id(node)], *node.args)

    def of(self, node: Node) -> Node | None:
        """The gradient that reached `node`; None where it is zero for every input."""
        return self._sums.get(id(node))

    def _arrive(self, node: Node, gradient: Node) -> None:
        if node.op == "const" or node.is_boolean:
            return
        known = self._sums.get(id(node))
        self._sums[id(node)] = gradient if known is None else self.graph.node("add", known, gradient)

    def _op(self, op: str, *args: Node) -> Node:
        return self.graph.node(op, *args)

    def _masked(self, condition: Node, gradient: Node, when: bool) -> Node:
        zero = self.graph.const(0.0)
        return self._op("where", condition, gradient, zero) if when else self._op("where", condition, zero, gradient)

    def _add(self, node: Node, g: Node, a: Node, b: Node) -> None:
        self._arrive(a, g)
        self._arrive(b, g)

    def _sub(self, node: Node, g: Node, a: Node, b: Node) -> None:
        self._arrive(a, g)
        self._arrive(b, self._op("neg", g))

    def _mul(self, node: Node, g: Node, a: Node, b: Node) -> None:
        self._arrive(a, self._op("mul", g, b))
        self._arrive(b, self._op("mul", g, a))

    def _div(self, node: Node, g: Node, a: Node, b: Node) -> None:
        share = self._op("mul", g, self._op("div", self.graph.const(1.0), b))
        self._arrive(a, share)
        self._arrive(b, self._op("neg", self._op("mul", share, node)))

    def _neg(self, node: Node, g: Node, a: Node) -> None:
        self._arrive(a, self._op("neg", g))

    def _abs(self, node: Node, g: Node, a: Node) -> None:
        zero = self.graph.const(0.0)
        below = self._masked(self._op("lt", a, zero), self._op("neg", g), True)
        self._arrive(a, self._op("where", self._op("gt", a, zero), g, below))

    def _exp(self, node: Node, g: Node, a: Node) -> None:
        self._arrive(a, self._op("mul", g, node))

    def _log(self, node: Node, g: Node, a: Node) -> None:
        self._arrive(a, self._op("div", g, a))

    def _tanh(self, node: Node, g: Node, a: Node) -> None:
        slope = self._op("sub", self.graph.const(1.0), self._op("mul", node, node))
        self._arrive(a, self._op("mul", g, slope))

    def _sqrt(self, node: Node, g: Node, a: Node) -> None:
        self._arrive(a, self._op("div", g, self._op("mul", self.graph.const(2.0), node)))

    def _extreme(self, chosen: str, g: Node, a: Node, b: Node) -> None:
        half = self._op("mul", self.graph.const(0.5), g)  # torch shares a tie
        for one, other in ((a, b), (b, a)):
            at_tie = self._masked(self._op("ne", one, other), half, False)
            self._arrive(one, self._op("where", self._op(chosen, one, other), g, at_tie))

    def _min(self, node: Node, g: Node, a: Node, b: Node) -> None:
        self._extreme("lt", g, a, b)

    def _max(self, node: Node, g: Node, a: Node, b: Node) -> None:
        self._extreme("gt", g, a, b)

    def _where(self, node: Node, g: Node, condition: Node, a: Node, b: Node) -> None:
        self._arrive(a, self._masked(condition, g, True))
        self._arrive(b, self._masked(condition, g, False))

    def _select(self, node: Node, g: Node, z: Node, fired: Node, silent: Node) -> None:
        condition = self._op("ne", z, self.graph.const(0.0))
        self._arrive(fired, self._masked(condition, g, True))
        self._arrive(silent, self._masked(condition, g, False))
        self._arrive(z, self._op("mul", g, self._op("sub", fired, silent)))

    def _spike(self, node: Node, g: Node, u: Node) -> None:
        self._arrive(u, self._op("mul", g, self.surrogate(u)))
