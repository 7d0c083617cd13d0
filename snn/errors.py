"""Errors that callers may want to tell apart; all other errors are ValueError and TypeError."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ShapeError(ValueError):
    """A tensor's shape does not fit; the text holds both shapes and the remedy."""


class UnsupportedError(NotImplementedError):
    """A backend or target cannot express what was asked; the text names it."""


def closest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?" for the known name most like `name`, or the list of known names."""
    names = sorted(known)
    folded = {other.casefold(): other for other in names}
    near = difflib.get_close_matches(name.casefold(), folded, n=1)
    return f"; did you mean {folded[near[0]]!r}?" if near else f"; accepted: {', '.join(names)}"
