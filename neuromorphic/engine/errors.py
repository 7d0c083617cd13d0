"""Error texts of the engine: what was expected, what was given, the closest accepted name."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UnsupportedError(NotImplementedError):
    """A backend cannot express what the description asks for; the message names it."""


def unknown_name(kind: str, given: object, accepted: Iterable[str]) -> ValueError:
    """An error that names what was given, the closest accepted name and all accepted names."""
    names = sorted(accepted)
    close = difflib.get_close_matches(str(given), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return ValueError(f"unknown {kind} {given!r}{hint} Accepted: {', '.join(names) or 'none'}")
