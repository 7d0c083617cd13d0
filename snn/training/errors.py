"""What can end a run other than a bug, and the valid word closest to a wrong one."""

from collections.abc import Iterable
from difflib import get_close_matches


class RecipeError(ValueError):
    """A recipe, or an override of it, that cannot be run; the message names the key and what is accepted."""


class RunInterrupted(Exception):  # noqa: N818 - nothing went wrong
    """Ctrl-C ended the run; the folder holds the last finished epoch."""


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return the end of an error message: the closest valid word, if there is one, and all valid words.

    >>> suggestion("epoch", ["epochs", "seed"])
    "did you mean 'epochs'? Valid: epochs, seed"
    """
    names = sorted(valid)
    lowered = {name.lower(): name for name in names}
    close = get_close_matches(word.lower(), lowered, n=1, cutoff=0.5)
    listing = f"Valid: {', '.join(names)}"
    return f"did you mean {lowered[close[0]]!r}? {listing}" if close else listing


def require_known(word: str, valid: Iterable[str], place: str) -> None:
    """Raise RecipeError naming `place` unless `word` is one of `valid`."""
    names = list(valid)
    if word not in names:
        raise RecipeError(f"{place}: unknown {word!r}; {suggestion(word, names)}")
