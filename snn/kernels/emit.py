"""Writes expression graphs as lines of Python that Numba (or Triton) compiles."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from snn.kernels.graph import Node, in_order

INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "ne": "!="}


@dataclass(frozen=True)
class Dialect:
    """How a target language spells what differs between targets.

    Attributes:
        call: operation -> function name, for exp, log, tanh, sqrt, abs and rint, and for every arithmetic operation
            that the target's own operator would round differently.
        where: (condition, if_true, if_false) -> text.
        const: number -> text.
    """

    call: Mapping[str, str]
    where: Callable[[str, str, str], str]
    const: Callable[[float], str]


class Emitter:
    """Turns nodes into assignments; nodes that already have a name are read, not computed.

    Args:
        dialect: the target's spelling.
        names: the names of leaves and other given values.
        prefix: first letters of the names it makes.
    """

    def __init__(self, dialect: Dialect, names: Mapping[Node, str], prefix: str = "t") -> None:
        self.dialect = dialect
        self.names = dict(names)
        self.prefix = prefix
        self._count = 0

    def define(self, nodes: Iterable[Node]) -> list[str]:
        """Assignments after which every node of `nodes` has a name (constants and given values need none)."""
        targets = list(nodes)
        order = self._missing(targets)
        uses = Counter(id(arg) for node in order for arg in node.args)
        kept_whole = {id(node) for node in targets}
        for node in order:
            if node.op in {"where", "min", "max"}:  # their operands are read twice or under a condition
                kept_whole.update(id(arg) for arg in node.args)
        lines = []
        for node in order:
            text = self._text(node)
            if uses[id(node)] == 1 and id(node) not in kept_whole and len(text) < 60:
                self.names[node] = f"({text})"
            else:
                self._count += 1
                name = f"{self.prefix}{self._count}"
                lines.append(f"{name} = {text}")
                self.names[node] = name
        return lines

    def read(self, node: Node) -> str:
        """The name or literal of a node."""
        return self.dialect.const(node.value) if node.op == "const" else self.names[node]

    def _missing(self, targets: list[Node]) -> list[Node]:
        known: set[int] = set()
        for node in in_order(targets):
            if node in self.names or node.op == "const":
                known.add(id(node))
        order: dict[int, Node] = {}

        def visit(node: Node) -> None:
            if id(node) in known or id(node) in order:
                return
            for arg in node.args:
                visit(arg)
            if not node.args:
                raise KeyError(f"{node.op} {node.value!r} has no name in this kernel")
            order[id(node)] = node

        for target in targets:
            visit(target)
        return list(order.values())

    def _text(self, node: Node) -> str:
        args = [self.read(arg) for arg in node.args]
        if node.op in self.dialect.call:
            return f"{self.dialect.call[node.op]}({', '.join(args)})"
        if node.op in INFIX:
            return f"{args[0]} {INFIX[node.op]} {args[1]}"
        if node.op == "neg":
            return f"-{args[0]}"
        if node.op == "where":
            return self.dialect.where(*args)
        if node.op in {"min", "max"}:
            smaller = f"{args[0]} {'<' if node.op == 'min' else '>'} {args[1]}"
            return self.dialect.where(smaller, *args)
        raise KeyError(f"operation {node.op!r} has no spelling in this dialect")
