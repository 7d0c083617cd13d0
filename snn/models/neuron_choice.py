"""A neuron, chosen by name, class or function."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from snn import surrogate
from snn.errors import closest
from snn.neurons import NEURONS

# A name in `snn` or "package.module.Class"; the same with arguments as {"class": name, **arguments}; or a function
# without arguments that makes one layer of neurons.
NeuronChoice = str | Mapping[str, Any] | Callable[[], nn.Module]


def make_neuron(choice: NeuronChoice, neuron_count: int | None = None) -> nn.Module:
    """Return one new layer of neurons in multi-step mode.

    Args:
        choice: see `NeuronChoice`. Its argument `surrogate_function` may be the name of a surrogate of SpikingJelly or
            of snn.surrogate, or {"class": name, **arguments}.
        neuron_count: neurons of a fully connected layer, where known; a neuron with an argument `recurrent` takes it as
            the size of its all-to-all feedback.
    Raises: ValueError for an unknown name or argument, naming the closest valid one.

    >>> make_neuron({"class": "LIF", "tau": 4.0, "surrogate_function": "ATan"}).tau
    4.0
    """
    if callable(choice):
        return _multi_step("a function", choice())
    arguments = {} if isinstance(choice, str) else dict(choice)
    name = choice if isinstance(choice, str) else arguments.pop("class", None)
    if not isinstance(name, str):
        raise ValueError(f"neuron: a mapping needs the key 'class', got {choice!r}")
    neuron_class = _neuron_class(name)
    accepted = [key for key in inspect.signature(neuron_class).parameters if key != "self"]
    for key in arguments:
        if key not in accepted:
            raise ValueError(f"neuron: {name} has no argument {key!r}{closest(key, accepted)}")
    if "step_mode" in accepted:
        arguments.setdefault("step_mode", "m")
    if neuron_count is not None and "recurrent" in accepted:
        arguments.setdefault("recurrent", neuron_count)
    if isinstance(arguments.get("surrogate_function"), str | Mapping):
        arguments["surrogate_function"] = _surrogate(arguments["surrogate_function"])
    try:
        return _multi_step(name, neuron_class(**arguments))
    except (ValueError, TypeError) as error:
        raise ValueError(f"neuron: {name}: {error}") from error


def _surrogate(choice: str | Mapping[str, Any]) -> Any:
    base = surrogate.SurrogateFunctionBase
    members = {**vars(surrogate.sj), **vars(surrogate)}.items()
    known = {name: kind for name, kind in members if inspect.isclass(kind) and issubclass(kind, base) and kind != base}
    arguments = {} if isinstance(choice, str) else dict(choice)
    name = choice if isinstance(choice, str) else arguments.pop("class", None)
    if name not in known:
        raise ValueError(f"surrogate_function: unknown {name!r}{closest(str(name), known)}")
    try:
        return known[name](**arguments)
    except TypeError as error:
        raise ValueError(f"surrogate_function: {name}: {error}") from error


def _multi_step(name: str, layer: object) -> nn.Module:
    if not isinstance(layer, nn.Module):
        raise ValueError(f"{name} gives a {type(layer).__name__}, not a torch.nn.Module")
    mode = getattr(layer, "step_mode", "m")
    if mode != "m":
        raise ValueError(f"{name}: step_mode must be 'm' in a network over all steps, got {mode!r}")
    return layer


def _neuron_class(name: str) -> Callable[..., nn.Module]:
    module_name, _, class_name = name.rpartition(".")
    if module_name:
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise ValueError(f"neuron: {name!r} cannot be imported: {error}") from error
        if not callable(found):
            raise ValueError(f"neuron: {name!r} is not a class of neurons")
        return found
    neurons = {neuron.__name__: neuron for neuron in NEURONS.values()}
    if name not in neurons:
        raise ValueError(f"neuron: unknown {name!r}{closest(name, neurons)}")
    return neurons[name]
