"""The adjoint of a traced step equals the Jacobian that SymPy derives from the same graph."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
import sympy
from members import NEURONS, Member

from snn.kernels.adjoint import Adjoint
from snn.kernels.graph import Graph, Node, Symbol, in_order
from snn.kernels.lower import backward_step
from snn.kernels.trace import trace
from snn.ops import exp, log, maximum, minimum, sqrt, tanh, where
from snn.surrogate import closed_form

SLOPE = sympy.Function("slope")  # the derivative of the spike


class Fire(sympy.Function):
    """The spike as an unknown function whose derivative is SLOPE."""

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return SLOPE(self.args[0])


class Held(sympy.Function):
    """A value through which no gradient passes."""

    def fdiff(self, argindex: int = 1) -> sympy.Expr:
        return sympy.Integer(0)


def as_sympy(roots: list[Node]) -> dict[Node, sympy.Expr]:
    made: dict[Node, sympy.Expr] = {}
    for node in in_order(roots):
        a = [made[arg] for arg in node.args]
        if not node.args:
            made[node] = (
                sympy.Float(node.value) if node.op == "const" else sympy.Symbol(f"{node.op}_{node.value}", real=True)
            )
        else:
            made[node] = {
                "add": lambda a=a: a[0] + a[1],
                "sub": lambda a=a: a[0] - a[1],
                "mul": lambda a=a: a[0] * a[1],
                "div": lambda a=a: a[0] / a[1],
                "neg": lambda a=a: -a[0],
                "abs": lambda a=a: sympy.Abs(a[0]),
                "exp": lambda a=a: sympy.exp(a[0]),
                "log": lambda a=a: sympy.log(a[0]),
                "tanh": lambda a=a: sympy.tanh(a[0]),
                "sqrt": lambda a=a: sympy.sqrt(a[0]),
                "min": lambda a=a: sympy.Min(a[0], a[1]),
                "max": lambda a=a: sympy.Max(a[0], a[1]),
                "detach": lambda a=a: Held(a[0]),
                "spike": lambda a=a: Fire(a[0]),
                "slope": lambda a=a: SLOPE(a[0]),
                "select": lambda a=a: a[0] * a[1] + (1 - a[0]) * a[2],
                "where": lambda a=a: sympy.Piecewise((a[1], a[0]), (a[2], True)),
                "gt": lambda a=a: a[0] > a[1],
                "ge": lambda a=a: a[0] >= a[1],
                "lt": lambda a=a: a[0] < a[1],
                "le": lambda a=a: a[0] <= a[1],
                "ne": lambda a=a: sympy.Ne(a[0], a[1]),
            }[node.op]()
    return made


def value(expression: sympy.Expr, at: dict[str, float]) -> float:
    numbers = {symbol: at[symbol.name] for symbol in expression.free_symbols}
    replaced = (
        expression.subs(numbers)
        .replace(Held, lambda u: u)
        .replace(SLOPE, lambda u: 1 / (1 + u**2))
        .replace(Fire, lambda u: sympy.Heaviside(u, 1))
    )
    return float(replaced)


@pytest.mark.parametrize("member", [m for m in NEURONS if m.name != "multi_spike_lif"], ids=lambda m: m.name)
def test_step_jacobian(member: Member) -> None:
    layer = member.build()
    step = trace(layer.model, layer.call_params())
    graph = step.graph
    adjoint = Adjoint(graph, lambda u: graph.node("slope", u))
    seeds = [(step.output, graph.leaf("grad", "z"))]
    seeds += [(node, graph.leaf("grad", name)) for name, node in step.new_states.items()]
    adjoint(seeds)
    leaves = [graph.leaf("input", "x"), *(graph.leaf("state", name) for name in step.new_states)]
    leaves += [graph.leaf("param", name) for name in step.values]
    gradients = {leaf: adjoint.of(leaf) for leaf in leaves}
    made = as_sympy([*[node for node, _ in seeds], *(g for g in gradients.values() if g is not None)])
    objective = sum(made[node] * sympy.Symbol(f"grad_{seed.value}", real=True) for node, seed in seeds)

    rng = random.Random(0)
    names = {f"{leaf.op}_{leaf.value}" for leaf in leaves} | {f"grad_{seed.value}" for _, seed in seeds}
    for _ in range(5):
        at = {name: rng.uniform(0.2, 2.0) for name in sorted(names)}
        for leaf, gradient in gradients.items():
            symbol = sympy.Symbol(f"{leaf.op}_{leaf.value}", real=True)
            expected = value(sympy.diff(objective, symbol).replace(sympy.Derivative, lambda *_: sympy.Integer(0)), at)
            got = 0.0 if gradient is None else value(made[gradient], at)
            assert got == pytest.approx(expected, rel=1e-9, abs=1e-9), leaf


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: a * b / (a + b),
        lambda a, b: exp(a) - log(b),
        lambda a, b: tanh(a) * sqrt(b),
        lambda a, b: abs(a - b) * -a,
        lambda a, b: minimum(a, b) + 3.0 * maximum(a * a, b),
        lambda a, b: where(a > b, a * b, a - b),
        lambda a, b: 1.0 - 2.0 / a + (b - 0.5) ** 2,
    ],
)
def test_each_operation(function: Any) -> None:
    graph = Graph()
    a, b = (Symbol(graph, graph.leaf("state", name)) for name in "ab")
    root = function(a, b).node
    adjoint = Adjoint(graph, lambda u: u)
    adjoint([(root, graph.const(1.0))])
    made = as_sympy([root, *(adjoint.of(leaf.node) for leaf in (a, b))])
    for at in ({"state_a": 0.7, "state_b": 1.3}, {"state_a": 1.9, "state_b": 0.4}):
        for leaf in (a, b):
            expected = value(sympy.diff(made[root], sympy.Symbol(f"state_{leaf.node.value}", real=True)), at)
            assert value(made[adjoint.of(leaf.node)], at) == pytest.approx(expected, rel=1e-12)


def test_kept_values_are_as_few_as_possible() -> None:
    def kept(name: str, **arguments: Any) -> list[str]:
        layer = Member(name).build(**arguments)
        form = closed_form(layer.surrogate_function)
        assert form is not None
        return [node.op for node in backward_step(trace(layer.model, layer.call_params()), form, ()).kept]

    assert kept("lif") == ["add"]  # the charged membrane alone
    assert kept("cuba_lif") == ["add"]  # two states, one value
    assert kept("li") == []  # linear: nothing
    assert len(kept("alif")) == 2


def test_ties_share_the_gradient_as_torch_does() -> None:
    graph = Graph()
    a, b = (Symbol(graph, graph.leaf("state", name)) for name in "ab")
    root = maximum(a, b).node
    adjoint = Adjoint(graph, lambda u: u)
    adjoint([(root, graph.const(1.0))])
    gradient = adjoint.of(a.node)
    assert gradient is not None
    assert value(as_sympy([gradient])[gradient], {"state_a": 1.0, "state_b": 1.0}) == 0.5
    assert math.isclose(value(as_sympy([gradient])[gradient], {"state_a": 2.0, "state_b": 1.0}), 1.0)
