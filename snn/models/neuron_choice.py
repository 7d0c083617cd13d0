"""A neuron, chosen by name, class or function."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from snn import surrogate
from snn.errors import closest
from snn.neurons import NEURONS

# The name of a neuron class in `snn` or "package.module.Class"; the same with arguments as {"class": name, **arguments};
# or a function without arguments that makes one layer of neurons.
NeuronChoice = str | Mapping[str, Any] | Callable[[], nn.Module]


def make_neuron(choice: NeuronChoice, neuron_count: int | None = None) -> nn.Module:
    """Return one new layer of neurons in multi-step mode.

    Args:
        choice: see `NeuronChoice`. The argument `surrogate_function` may be a name, or {"class": name, **arguments}, of
            SpikingJelly's surrogates and those of snn.surrogate.
        neuron_count: neurons of a fully connected layer, where known; a neuron with the required argument `recurrent`
            takes it as the size of its all-to-all feedback.
    Raises: ValueError for an unknown name or argument, naming the closest valid one.

    >>> make_neuron({"class": "LIF", "tau": 4.0, "surrogate_function": "ATan"}).tau
    4.0
    """
    if callable(choice):
        return choice()
    neuron_class, arguments = _class_and_arguments("neuron", choice, _neurons())
    accepted = inspect.signature(neuron_class).parameters
    _require_accepted("neuron", neuron_class, arguments)
    if "step_mode" in accepted:
        arguments.setdefault("step_mode", "m")
    if neuron_count is not None and "recurrent" in accepted:
        arguments.setdefault("recurrent", neuron_count)
    function = arguments.get("surrogate_function")
    if isinstance(function, str | Mapping):
        surrogate_class, given = _class_and_arguments("surrogate_function", function, _surrogates())
        _require_accepted("surrogate_function", surrogate_class, given)
        arguments["surrogate_function"] = surrogate_class(**given)
    try:
        neuron: nn.Module = neuron_class(**arguments)
    except TypeError as error:
        raise ValueError(f"neuron: {error}") from error
    return neuron


def _neurons() -> dict[str, type]:
    return {neuron.__name__: neuron for neuron in NEURONS.values()}


def _surrogates() -> dict[str, type]:
    base = surrogate.SurrogateFunctionBase
    found = {**vars(surrogate.sj), **vars(surrogate)}
    return {
        name: kind for name, kind in found.items() if inspect.isclass(kind) and issubclass(kind, base) and kind != base
    }


def _class_and_arguments(
    argument: str, choice: str | Mapping[str, Any], known: Mapping[str, type]
) -> tuple[Callable[..., Any], dict[str, Any]]:
    arguments = {} if isinstance(choice, str) else dict(choice)
    name = choice if isinstance(choice, str) else arguments.pop("class", None)
    if not isinstance(name, str):
        raise ValueError(f"{argument}: a mapping needs the key 'class', got {choice!r}")
    module_name, _, class_name = name.rpartition(".")
    if module_name:
        try:
            return getattr(importlib.import_module(module_name), class_name), arguments
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{argument}: {name!r} cannot be imported: {error}") from error
    if name not in known:
        raise ValueError(f"{argument}: unknown {name!r}{closest(name, known)}")
    return known[name], arguments


def _require_accepted(argument: str, constructor: Callable[..., Any], given: Mapping[str, Any]) -> None:
    accepted = list(inspect.signature(constructor).parameters)
    for key in given:
        if key not in accepted:
            raise ValueError(f"{argument}: {constructor.__name__} has no argument {key!r}{closest(key, accepted)}")
