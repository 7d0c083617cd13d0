"""A neuron declared for training (`snn.neuron_model`) as a population of the engine, by way of its traced step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from neuromorphic.engine.errors import UnsupportedError, unknown_name
from neuromorphic.engine.models.description import NeuronModel, Parameter, State
from neuromorphic.engine.models.operations import exp, select

_CALLS = {"exp": "exp", "tanh": "np.tanh", "log": "np.log", "sqrt": "np.sqrt", "abs": "abs", "rint": "np.rint"}


def from_declaration(declared: Any, given: Mapping[str, Any]) -> tuple[NeuronModel, dict[str, Any]]:
    """The engine's description of a declared neuron.

    Its input x is the sum of the weights that arrive in a step, in the unit of the threshold; one grid step is one step
    of the trained network. ``spike(u)`` is the step function u >= 0, whatever surrogate a layer uses for training.

    Args:
        declared: an `snn.declaration.NeuronModel`.
        given: parameters of the population; None and booleans are switches of the declaration.
    Returns:
        the description and the parameters that stay numbers.
    """
    from snn.kernels.emit import Dialect, Emitter
    from snn.kernels.lower import forward_step
    from snn.kernels.trace import is_switch, trace
    from snn.surrogate import ClosedForm

    for name in given:
        if name not in declared.params:
            raise unknown_name(f"parameter of {declared.name}", name, declared.params)
    values = {**declared.params, **given}
    step = trace(declared, values)
    if step.output.op != "spike":
        raise UnsupportedError(
            f"population: the output of {declared.name!r} is {step.output.op!r}, not spike(); the engine sends plain spikes"
        )
    plain = forward_step(step, ClosedForm("none", lambda u: u, ()))  # a derivative is never asked for
    names = {step.graph.leaf("input", "x"): "x_input"}
    names |= {step.graph.leaf("state", name): f"s_{name}" for name in declared.state}
    names |= {step.graph.leaf("param", name): f"c_{name}" for name in step.values}
    dialect = Dialect(_CALLS, lambda c, a, b: f"select({c}, {a}, {b})", lambda value: f"real({value!r})")
    emitter = Emitter(dialect, names)
    new_states = list(plain.new_states.values())
    lines = emitter.define([plain.output, *new_states])
    lines.append(f"z = {emitter.read(plain.output)} != real(0.0)")
    lines += [f"n_{name} = {emitter.read(node)}" for name, node in plain.new_states.items()]
    body = "\n".join(lines)
    switches = ", ".join(f"{name}={value}" for name, value in values.items() if is_switch(value))
    model = NeuronModel(
        name=declared.name,
        parameters={
            name: Parameter(float(declared.params[name] or 0.0), "", "see the declaration") for name in step.values
        },
        states={name: State("", _start(declared.start(values)[name])) for name in declared.state},
        receptors=("input",),
        constants=lambda p, h: dict(p),
        step=_numpy_step(body, tuple(declared.state), step.values),
        equation=f"declared in {declared.step.__module__}" + (f" with {switches}" if switches else ""),
        body=body,
    )
    return model, {name: value for name, value in given.items() if not is_switch(value)}


def _start(value: Any) -> float:
    if np.ndim(value):
        raise UnsupportedError("population: a starting value that differs between neurons must be given as initial=")
    return float(value)


def _numpy_step(body: str, states: tuple[str, ...], constants: tuple[str, ...]) -> Callable[..., Any]:
    """The emitted lines on NumPy arrays."""
    code = compile(body, "<declared neuron>", "exec")

    def step(s: Any, x: Any, c: Any) -> Any:
        scope = {"np": np, "select": select, "exp": exp, "real": float, "x_input": x["input"]}
        scope |= {f"s_{name}": s[name] for name in states} | {f"c_{name}": c[name] for name in constants}
        exec(code, scope)
        return scope["z"], {name: scope[f"n_{name}"] for name in states}

    return step
