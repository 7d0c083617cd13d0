"""`neuron_model`: a neuron is one scalar step function with named states and parameters."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakValueDictionary

Step = Callable[[Any, Any, Any], tuple[Any, dict[str, Any]]]
"""step(x, s, p) -> (output, {state: new value}) with states `s.name` and parameters `p.name`."""


@dataclass(frozen=True, eq=False)
class NeuronModel:
    """A declared neuron: its step function and the names, starting values and defaults around it.

    Attributes:
        name: the step function's name; kernels and messages use it.
        step: `step(x, s, p) -> (output, new_states)`, pure and scalar.
        state: starting value of each state; a string names the parameter that holds it (0 where that is None).
        params: default of each parameter; None and booleans are fixed while the step is traced, numbers are values.
        key: "module:name", the text by which torch's operators name the model; `find_model` is its inverse.
    """

    name: str
    step: Step
    state: Mapping[str, float | str]
    params: Mapping[str, float | bool | None]
    key: str

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled and copied by reference, as a function is: the model is the module's object of that name."""
        return _declared, (self.step.__module__, self.step.__qualname__)

    def start(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The starting value of each state under the given parameters."""
        values = {}
        for name, start in self.state.items():
            value = params[start] if isinstance(start, str) else start
            values[name] = 0.0 if value is None else value
        return values


def _declared(module: str, name: str) -> NeuronModel:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


_by_key: WeakValueDictionary[str, NeuronModel] = WeakValueDictionary()
_declarations: Counter[str] = Counter()


def new_model(
    name: str,
    step: Step,
    state: Mapping[str, float | str],
    params: Mapping[str, float | bool | None],
    key: str,
) -> NeuronModel:
    """A model that `find_model` finds; its key is the given one, with a number if that was taken in this process."""
    _declarations[key] += 1
    unique = key if _declarations[key] == 1 else f"{key}#{_declarations[key]}"
    model = NeuronModel(name, step, dict(state), dict(params), unique)
    _by_key[unique] = model
    return model


def find_model(key: str) -> NeuronModel:
    """The model with this key; its module is imported if that has not happened yet.

    Raises:
        LookupError: there is no such model, as when a saved program names one that was declared in a notebook.
    """
    if key not in _by_key:
        module, _, name = key.partition(":")
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise LookupError(f"neuron model {name!r}: its module {module!r} cannot be imported: {error}") from error
    if key not in _by_key:
        raise LookupError(f"neuron model {key!r} is not declared in this process; import or run its declaration first")
    return _by_key[key]


def neuron_model(
    *, state: Mapping[str, float | str], params: Mapping[str, float | bool | None]
) -> Callable[[Step], NeuronModel]:
    """Declares a neuron model from its step function.

    The function is called as `step(x, s, p)`: input current `x`, states `s.<name>`, parameters `p.<name>`. It returns
    the output and a dictionary with the new value of every state. It is written for one neuron, with `+ - * /`,
    comparisons and the functions of `snn.ops` (`spike`, `select`, `where`, `exp`, ...). Python's `if` may
    only ask about parameters that are None or booleans.

    Args:
        state: name -> starting value, a number or the name of a parameter.
        params: name -> default; None or a boolean is a switch, a number may later be a tensor and learnable.

    Returns:
        The declared model; give it to `snn.Neuron` for a layer.

    Raises:
        TypeError: the function does not take (x, s, p).
        ValueError: a starting value names no parameter, or a name stands for a state and a parameter.

    >>> @neuron_model(state={"v": 0.0}, params={"leak": 0.9, "v_threshold": 1.0})
    ... def leaky(x, s, p):
    ...     v = p.leak * s.v + x
    ...     z = spike(v - p.v_threshold)
    ...     return z, {"v": v - z * p.v_threshold}
    """

    def declare(step: Step) -> NeuronModel:
        arguments = list(inspect.signature(step).parameters)
        if len(arguments) != 3:
            raise TypeError(f"neuron_model: {step.__name__} must take (x, s, p), it takes ({', '.join(arguments)})")
        if both := sorted(set(state) & set(params)):
            raise ValueError(f"neuron_model: {both} of {step.__name__} are both a state and a parameter")
        for name, start in state.items():
            if isinstance(start, str) and start not in params:
                raise ValueError(f"neuron_model: state {name!r} of {step.__name__} starts at {start!r}, no parameter")
        return new_model(step.__name__, step, state, params, f"{step.__module__}:{step.__qualname__}")

    return declare
