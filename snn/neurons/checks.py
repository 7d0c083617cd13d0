"""Checks of neuron parameters at the constructor."""

from __future__ import annotations

import math

import torch


def require_above(layer: str, name: str, value: float | torch.Tensor, bound: float, unit: str = "") -> None:
    """Raises ValueError unless every number of `value` is finite and greater than `bound`."""
    tensor = torch.as_tensor(value)
    if tensor.is_floating_point() and bool((tensor > bound).all()) and bool(torch.isfinite(tensor).all()):
        return
    if isinstance(value, int) and not isinstance(value, bool) and value > bound:
        return
    got = value if isinstance(value, float | int) else tensor.min().item()
    raise ValueError(f"{layer}: {name} must be > {bound:g}{' ' + unit if unit else ''}, got {got}")


def require_finite(layer: str, **values: float | torch.Tensor | None) -> None:
    """Raises ValueError for a value that is not a finite number (None passes)."""
    for name, value in values.items():
        if value is not None and not math.isfinite(torch.as_tensor(value, dtype=torch.float64).abs().max().item()):
            raise ValueError(f"{layer}: {name} must be finite, got {value}")


def require_within(layer: str, low: float, high: float, **values: float | torch.Tensor) -> None:
    """Raises ValueError for a value outside [low, high]."""
    for name, value in values.items():
        tensor = torch.as_tensor(value, dtype=torch.float64)
        if not bool(((tensor >= low) & (tensor <= high)).all()):
            raise ValueError(f"{layer}: {name} must lie in [{low:g}, {high:g}], got {value}")
