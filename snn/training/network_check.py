"""One pass of two empty images through a new network, before anything is written."""

import inspect

import torch
from torch import nn

from snn.training.data import Splits
from snn.training.encoding import encoded
from snn.training.recipe import Recipe, RecipeError
from snn.training.seeding import EVALUATE, derived_seed


def check_network(recipe: Recipe, network: nn.Module, splits: Splits) -> None:
    """Raise RecipeError unless the network maps images to logits, and can carry state where the recipe needs it."""
    kind = type(network).__name__
    if recipe.bptt_steps is not None and "state" not in inspect.signature(network.forward).parameters:
        raise RecipeError(f"bptt_steps: {kind}.forward has no argument 'state' to carry from chunk to chunk")
    images = torch.zeros(2, *splits.input_shape)
    expected = (recipe.encoding.steps, len(images), splits.class_count)
    was_training = network.training
    network.eval()
    try:
        with torch.no_grad():
            logits = network(encoded(images, recipe.encoding, derived_seed(recipe.seed, EVALUATE)))
    except (RuntimeError, ValueError, TypeError) as error:
        raise RecipeError(f"network: {kind} fails on images {tuple(images.shape[1:])}: {error}") from error
    finally:
        network.train(was_training)
    got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != expected:
        raise RecipeError(f"network: {kind} must return logits [T, B, classes] = {expected}, got {got}")
