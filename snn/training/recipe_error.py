"""The error of a recipe that cannot be run."""


class RecipeError(ValueError):
    """A recipe, or an override of it, that cannot be run; the message names the key and what is accepted."""


def require(condition: bool, key: str, expected: str, received: object) -> None:
    """Raise RecipeError unless the condition holds."""
    if not condition:
        raise RecipeError(f"{key} must be {expected}, got {received!r}")
