"""Network and optimiser from their entries in a recipe."""

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

import snn.models
from snn.errors import UnsupportedError, closest
from snn.layers.delay_positions import (
    Delays,
    delay_parameter_groups,
    learnable_delays,
    weight_parameter_groups,
)
from snn.training.loss import SequenceLoss
from snn.training.recipe import Recipe, RecipeError

if TYPE_CHECKING:
    from snn.learning import CreditRule


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
    if any(isinstance(module, Delays) for module in network.modules()):
        factor = arguments.pop("delay_lr_factor", 100.0)
        lr = arguments.get("lr", inspect.signature(optimizer_class).parameters["lr"].default)
        learned = bool(learnable_delays(network))
        parameters = delay_parameter_groups(network, lr, factor) if learned else weight_parameter_groups(network, lr)
    optimizer: torch.optim.Optimizer = _constructed(
        "optimizer", name, lambda **given: optimizer_class(parameters, **given), accepted, arguments
    )
    return optimizer


def build_rule(recipe: Recipe, network: nn.Module) -> "CreditRule":
    """Return the rule of a recipe, ready for the network.

    Raises: RecipeError naming the key that is wrong, or the layer that the rule cannot train.
    """
    # Not at the top: snn.learning itself needs the rule of this package.
    from snn.learning import make_rule

    options: dict[str, Any] = {"class": recipe.rule} if isinstance(recipe.rule, str) else dict(recipe.rule)
    name = options.pop("class")
    if recipe.bptt_steps is not None:
        if name != "bp":
            raise RecipeError(f"bptt_steps: only the rule bp cuts the sequence into chunks, got rule {name!r}")
        options["chunk_steps"] = recipe.bptt_steps
    loss = SequenceLoss(recipe.loss.name, recipe.loss.on, recipe.loss.label_smoothing)
    try:
        rule = make_rule(name, loss, options, recipe.seed)
        rule.prepare(network, recipe.encoding.steps)
    except (ValueError, TypeError) as error:
        raise RecipeError(str(error)) from error
    except UnsupportedError as error:
        raise RecipeError(f"rule: {error}") from error
    return rule


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
