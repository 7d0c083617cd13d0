"""The expression graph of one neuron step.

Calling a step function with symbols instead of tensors records every operation, in the order in which the function
wrote it, as a directed acyclic graph. Equal expressions share one node. Evaluation order is kept on purpose: an algebra
system would reorder sums and products, and then a kernel's float rounding (and with it a spike) could differ from the
reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

BOOLEAN_OPS = frozenset({"ge", "gt", "le", "lt", "ne"})
LEAVES = frozenset({"input", "state", "param", "surrogate", "const", "grad"})


class TraceError(TypeError):
    """A step function did something that has no place in an expression graph; the text names the operation."""


@dataclass(frozen=True, eq=False)
class Node:
    """One operation: `op` applied to `args`; leaves carry a name or a constant in `value`."""

    op: str
    args: tuple[Node, ...] = ()
    value: Any = None

    @property
    def is_boolean(self) -> bool:
        return self.op in BOOLEAN_OPS

    def __repr__(self) -> str:
        if self.op in LEAVES:
            return f"{self.op}:{self.value}"
        return f"{self.op}({', '.join(map(repr, self.args))})"


@dataclass
class Graph:
    """Makes nodes; the same operation on the same arguments is the same node."""

    _known: dict[tuple[Any, ...], Node] = field(default_factory=dict)

    def node(self, op: str, *args: Node, value: Any = None) -> Node:
        key = (op, value, *map(id, args))
        if key not in self._known:
            self._known[key] = Node(op, args, value)
        return self._known[key]

    def const(self, value: float) -> Node:
        return self.node("const", value=float(value))

    def leaf(self, kind: str, name: str) -> Node:
        return self.node(kind, value=name)

    def __len__(self) -> int:
        return len(self._known)


class Symbol:
    """Stands for a tensor while a step function is traced; supports the arithmetic that a kernel can hold."""

    __array_ufunc__ = None  # numpy must not take a symbol for an object scalar

    def __init__(self, graph: Graph, node: Node) -> None:
        self.graph = graph
        self.node = node

    def lift(self, other: object) -> Node:
        if isinstance(other, Symbol):
            return other.node
        if isinstance(other, bool) or not isinstance(other, int | float):
            raise TraceError(
                f"a {type(other).__name__} is combined with a traced value; use numbers, states and params"
            )
        return self.graph.const(other)

    def apply(self, op: str, *args: object) -> Symbol:
        return Symbol(self.graph, self.graph.node(op, *map(self.lift, args)))

    def __add__(self, other: object) -> Symbol:
        return self.apply("add", self, other)

    def __radd__(self, other: object) -> Symbol:
        return self.apply("add", other, self)

    def __sub__(self, other: object) -> Symbol:
        return self.apply("sub", self, other)

    def __rsub__(self, other: object) -> Symbol:
        return self.apply("sub", other, self)

    def __mul__(self, other: object) -> Symbol:
        return self.apply("mul", self, other)

    def __rmul__(self, other: object) -> Symbol:
        return self.apply("mul", other, self)

    def __truediv__(self, other: object) -> Symbol:
        return self.apply("div", self, other)

    def __rtruediv__(self, other: object) -> Symbol:
        return self.apply("div", other, self)

    def __neg__(self) -> Symbol:
        return self.apply("neg", self)

    def __abs__(self) -> Symbol:
        return self.apply("abs", self)

    def __pow__(self, exponent: object) -> Symbol:
        if exponent != 2:
            raise TraceError(
                f"power {exponent!r} cannot be traced; only squares (**2) can, write products or exp and log"
            )
        return self * self

    def __ge__(self, other: object) -> Symbol:
        return self.apply("ge", self, other)

    def __gt__(self, other: object) -> Symbol:
        return self.apply("gt", self, other)

    def __le__(self, other: object) -> Symbol:
        return self.apply("le", self, other)

    def __lt__(self, other: object) -> Symbol:
        return self.apply("lt", self, other)

    def __bool__(self) -> bool:
        raise TraceError("a Python branch (if, and, or, while) on a traced value cannot be traced; use where(...)")

    def __float__(self) -> float:
        raise TraceError("float() or a function of module math on a traced value cannot be traced; use snn.ops")

    __int__ = __index__ = __float__

    def __iter__(self) -> Iterator[Any]:
        raise TraceError("iterating over a traced value cannot be traced; a step function is scalar")

    def __getitem__(self, index: object) -> Any:
        raise TraceError(f"indexing a traced value with {index!r} cannot be traced; a step function is scalar")

    def __getattr__(self, name: str) -> Any:
        raise TraceError(f"method .{name}() of a traced value cannot be traced; use the functions of snn.ops")


def in_order(roots: Iterable[Node]) -> list[Node]:
    """All nodes that the roots need, each after its arguments, in a fixed order."""
    done: dict[int, Node] = {}
    for root in roots:
        stack = [(root, False)]
        while stack:
            node, ready = stack.pop()
            if id(node) in done:
                continue
            if ready:
                done[id(node)] = node
            else:
                stack.append((node, True))
                stack.extend((arg, False) for arg in reversed(node.args))
    return list(done.values())


def rewrite(roots: dict[str, Node], graph: Graph, rules: dict[str, Any]) -> dict[str, Node]:
    """The same expressions in `graph`, where `rules[op](node, new_args)` replaces a node of that operation."""
    new: dict[int, Node] = {}
    for node in in_order(roots.values()):
        args = tuple(new[id(arg)] for arg in node.args)
        rule = rules.get(node.op)
        new[id(node)] = rule(node, args) if rule else graph.node(node.op, *args, value=node.value)
    return {name: new[id(node)] for name, node in roots.items()}
