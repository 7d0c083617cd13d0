"""Rounding that torch can train through: whole numbers forward, the gradient of the unrounded value backward.

Values are float64 tensors that hold integers. A float64 holds every integer up to 2^53, products with a 12-bit decay
included, so results equal integer arithmetic bit for bit on any device.
"""

from __future__ import annotations

from typing import Any

import torch


class _Replace(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradient, None


def replaced(x: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """`value` forward; backward the gradient goes to x unchanged."""
    result: torch.Tensor = _Replace.apply(x, value.detach())
    return result


def nearest(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest integer, halves to even."""
    return replaced(x, torch.round(x))


def truncated(x: torch.Tensor) -> torch.Tensor:
    """Round toward zero."""
    return replaced(x, torch.trunc(x))


def floored(x: torch.Tensor) -> torch.Tensor:
    """Round down."""
    return replaced(x, torch.floor(x))


def bounded(x: torch.Tensor, low: float, high: float) -> torch.Tensor:
    """x within low..high; the gradient passes for values inside and on the bounds (releases of torch differ there)."""
    return torch.where((x >= low) & (x <= high), x, x.detach().clamp(low, high))


def halves_away(x: torch.Tensor) -> torch.Tensor:
    """Round to the nearest integer, halves away from zero."""
    return replaced(x, torch.sign(x) * torch.floor(x.abs() + 0.5))


def integers(name: str, value: Any) -> torch.Tensor:
    """`value` as float64.

    Raises: ValueError naming `name` unless every number is whole and a float64 holds it.
    """
    tensor = torch.as_tensor(value).to(torch.float64)
    if not bool(torch.isfinite(tensor).all()) or bool((tensor != torch.round(tensor)).any()):
        raise ValueError(f"{name} must hold whole numbers, got {value}")
    if tensor.numel() and tensor.abs().max() > 2**53:
        raise ValueError(f"{name} must stay within 2^53, got {tensor.abs().max().item():.0f}")
    return tensor


def within(name: str, value: Any, low: int, high: int) -> torch.Tensor:
    """`value` as float64 integers.

    Raises: ValueError naming `name` unless every number is whole and lies in low..high.
    """
    tensor = integers(name, value)
    if tensor.numel() and not bool(((tensor >= low) & (tensor <= high)).all()):
        outside = tensor[(tensor < low) | (tensor > high)].flatten()[0].item()
        raise ValueError(f"{name} must lie in {low}..{high}, got {outside:.0f}")
    return tensor
