"""Neuromorphic execution: event engine, compiler, chip targets and energy."""

from typing import TYPE_CHECKING, Any

from neuromorphic.engine.network import Network

if TYPE_CHECKING:
    from neuromorphic.compiler import EventNetwork as EventNetwork
    from neuromorphic.compiler import compile as compile
    from neuromorphic.compiler import from_nir as from_nir
    from neuromorphic.compiler import to_nir as to_nir

__all__ = ["EventNetwork", "Network", "compile", "from_nir", "to_nir"]

# Names that need torch are imported when they are first asked for.
_FROM = {
    "EventNetwork": "neuromorphic.compiler",
    "compile": "neuromorphic.compiler",
    "from_nir": "neuromorphic.compiler",
    "to_nir": "neuromorphic.compiler",
}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_FROM[name]), name)
