"""Neuromorphic execution: event engine, compiler, chip targets and energy."""

from typing import TYPE_CHECKING, Any

from neuromorphic.engine.network import Network

if TYPE_CHECKING:
    from neuromorphic import energy as energy
    from neuromorphic import targets as targets
    from neuromorphic.targets import quantization_aware as quantization_aware
    from neuromorphic.targets import quantize as quantize

__all__ = ["Network", "energy", "quantization_aware", "quantize", "targets"]

# Names that need torch, and parts of the package, are imported when they are first asked for.
_FROM = {
    "quantization_aware": "neuromorphic.targets",
    "quantize": "neuromorphic.targets",
}
_PARTS = ("energy", "targets")


def __getattr__(name: str) -> Any:
    if name not in _FROM and name not in _PARTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    if name in _PARTS:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_FROM[name]), name)
