"""Chips: data sheets, integer arithmetic, quantisation and the placement of layers on cores."""

from __future__ import annotations

import importlib
from typing import Any

from neuromorphic.targets.sheet import Entry, SheetError, Target, load, names

# Public names that bring torch, and where they live.
_LAZY: dict[str, str] = {}

__all__ = ["Entry", "SheetError", "Target", "load", "names"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
