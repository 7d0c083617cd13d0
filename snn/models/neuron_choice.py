"""A neuron, chosen by name, class or function."""

import importlib
import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any

from torch import nn

import snn

# A name in `snn` or "package.module.Class"; the same with arguments as {"class": name, **arguments}; or a function
# without arguments that makes one layer of neurons.
NeuronChoice = str | Mapping[str, Any] | Callable[[], nn.Module]


def make_neuron(choice: NeuronChoice) -> nn.Module:
    """Return one new layer of neurons in multi-step mode.

    Raises: ValueError for an unknown name or argument, naming the closest valid one.

    >>> make_neuron({"class": "LIF", "tau": 4.0}).tau
    4.0
    """
    if callable(choice):
        return choice()
    arguments = {} if isinstance(choice, str) else dict(choice)
    name = choice if isinstance(choice, str) else arguments.pop("class", None)
    if not isinstance(name, str):
        raise ValueError(f"neuron: a mapping needs the key 'class', got {choice!r}")
    neuron_class = _neuron_class(name)
    accepted = [key for key in inspect.signature(neuron_class).parameters if key != "self"]
    for key in arguments:
        if key not in accepted:
            raise ValueError(
                f"neuron: {name} has no argument {key!r}{_closest(key, accepted)}; valid: {', '.join(accepted)}"
            )
    arguments.setdefault("step_mode", "m")
    neuron: nn.Module = neuron_class(**arguments)
    return neuron


def _neuron_class(name: str) -> Callable[..., nn.Module]:
    module_name, _, class_name = name.rpartition(".")
    if module_name:
        try:
            return getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"neuron: {name!r} cannot be imported: {error}") from error
    names = sorted(key for key in snn.__all__ if _is_neuron(getattr(snn, key)))
    if name not in names:
        raise ValueError(f"neuron: unknown {name!r}{_closest(name, names)}; valid: {', '.join(names)}")
    return getattr(snn, name)


def _is_neuron(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module)


def _closest(word: str, names: list[str]) -> str:
    close = get_close_matches(word, names, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else ""
