"""From plain nested dictionaries to a checked recipe."""

from collections.abc import Mapping
from typing import Any

from snn.training.recipe import Recipe, RecipeError, check_keys


def recipe_from_dict(given: Mapping[str, Any]) -> Recipe:
    """Return the recipe with these keys, the others at their defaults.

    Raises: RecipeError naming the key that is unknown or has a wrong value; ImportError without jsonargparse.
    """
    try:
        from jsonargparse import ArgumentError, ArgumentParser
    except ImportError as error:
        raise ImportError("training needs jsonargparse; install it with: pip install 'spikeloop[train]'") from error
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    check_keys(given, Recipe)
    try:
        return Recipe(**vars(parser.instantiate(parser.parse_object(dict(given)))))
    except ArgumentError as error:
        raise RecipeError(_plain(error)) from error


def _plain(error: Exception) -> str:
    return " ".join(str(error).replace("Parser key ", "").split())
