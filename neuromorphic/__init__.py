"""Neuromorphic execution: event engine, compiler, chip targets and energy."""

from typing import TYPE_CHECKING, Any

from neuromorphic.engine.network import Network

if TYPE_CHECKING:
    from neuromorphic import energy as energy
    from neuromorphic import targets as targets
    from neuromorphic.compiler import EventNetwork as EventNetwork
    from neuromorphic.compiler import compile as compile
    from neuromorphic.compiler import from_nir as from_nir
    from neuromorphic.compiler import to_nir as to_nir
    from neuromorphic.targets import quantization_aware as quantization_aware
    from neuromorphic.targets import quantize as quantize

__all__ = [
    "EventNetwork",
    "Network",
    "compile",
    "energy",
    "from_nir",
    "quantization_aware",
    "quantize",
    "targets",
    "to_nir",
]

# Names that need torch, and parts of the package, are imported when they are first asked for.
_FROM = {
    "EventNetwork": "neuromorphic.compiler",
    "compile": "neuromorphic.compiler",
    "from_nir": "neuromorphic.compiler",
    "quantization_aware": "neuromorphic.targets",
    "quantize": "neuromorphic.targets",
    "to_nir": "neuromorphic.compiler",
}
_PARTS = ("energy", "targets")


def __getattr__(name: str) -> Any:
    if name not in _FROM and name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_FROM[name]), name)
