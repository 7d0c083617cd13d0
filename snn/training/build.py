"""Network and optimiser from their entries in a recipe."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

import snn.models
from snn.errors import closest
from snn.layers.delay_positions import Delays, delay_parameter_groups
from snn.training.recipe import RecipeError


def build_network(choice: Mapping[str, Any], input_shape: Sequence[int], class_count: int) -> nn.Module:
    """Return the network of a recipe.

    Args:
        choice: `class`, a name in snn.models or `package.module.Class`, and arguments of its constructor. The arguments
            `input_shape` and `classes` are filled in from the data where the constructor has them.
        input_shape: shape of one input.
        class_count: number of classes.
    Raises: RecipeError naming the key that is wrong.
    """
    arguments = dict(choice)
    name = arguments.pop("class")
    network_class = _imported("network.class", name, snn.models, nn.Module)
    accepted = _arguments(network_class)
    for key, value in (("input_shape", tuple(input_shape)), ("classes", class_count)):
        if key in accepted:
            arguments.setdefault(key, value)
    network = _constructed("network", name, network_class, accepted, arguments)
    if not isinstance(network, nn.Module):
        raise RecipeError(f"network.class: {name!r} gives a {type(network).__name__}, not a torch.nn.Module")
    return network


def build_optimizer(choice: Mapping[str, Any], network: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser of a recipe over all parameters that need gradients.

    Args:
        choice: `class`, a name in torch.optim or `package.module.Class`, and arguments of its constructor.
        network: whose parameters it updates.
    Raises: RecipeError naming the key that is wrong.
    """
    arguments = dict(choice)
    name = arguments.pop("class")
    optimizer_class = _imported("optimizer.class", name, torch.optim, torch.optim.Optimizer)
    accepted = [key for key in _arguments(optimizer_class) if key != "params"]
    parameters: list[Any] = [parameter for parameter in network.parameters() if parameter.requires_grad]
    if any(isinstance(module, Delays) and module.delay.requires_grad for module in network.modules()):
        factor = arguments.pop("delay_lr_factor", 100.0)
        lr = arguments.get("lr", inspect.signature(optimizer_class).parameters["lr"].default)
        parameters = delay_parameter_groups(network, lr, factor)
    optimizer: torch.optim.Optimizer = _constructed(
        "optimizer", name, lambda **given: optimizer_class(parameters, **given), accepted, arguments
    )
    return optimizer


def _imported(key: str, name: object, package: Any, base: type) -> Callable[..., Any]:
    if not isinstance(name, str):
        raise RecipeError(f"{key} must be a name, got {name!r}")
    module_name, _, class_name = name.rpartition(".")
    if module_name:
        try:
            found = getattr(importlib.import_module(module_name), class_name)
        except (ImportError, AttributeError, ValueError, TypeError) as error:
            raise RecipeError(f"{key}: {name!r} cannot be imported: {error}") from error
        if not callable(found) or (inspect.isclass(found) and not issubclass(found, base)):
            raise RecipeError(f"{key}: {name!r} is not a {base.__name__}")
        return found
    members = vars(package).items()
    names = [entry for entry, value in members if inspect.isclass(value) and issubclass(value, base) and value != base]
    if name not in names:
        raise RecipeError(f"{key}: unknown {name!r}{closest(name, names)}")
    return getattr(package, name)


def _arguments(constructor: Callable[..., Any]) -> list[str]:
    return [name for name in inspect.signature(constructor).parameters if name != "self"]


def _constructed(
    place: str, name: str, constructor: Callable[..., Any], accepted: Sequence[str], arguments: Mapping[str, Any]
) -> Any:
    for key in arguments:
        if key not in accepted:
            raise RecipeError(f"{place}.{key}: {name} has no such argument{closest(str(key), accepted)}")
    try:
        return constructor(**arguments)
    except (ValueError, TypeError) as error:
        given = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
        raise RecipeError(f"{place}: {name}({given}): {error}") from error
