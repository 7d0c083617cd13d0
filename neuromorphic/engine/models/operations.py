"""The functions a step may call, on NumPy arrays. Generated loops use the scalar forms in `scalar_operations`."""

from __future__ import annotations

from typing import Any

import numpy as np


def select(condition: Any, if_true: Any, if_false: Any) -> Any:
    """``if_true`` where the condition holds, else ``if_false``; both are evaluated."""
    return np.where(condition, if_true, if_false)


def exp(x: Any) -> Any:
    """e to the power x."""
    return np.exp(x)


def exp_decay(x: Any) -> Any:
    """exp(-x) for x >= 0, cheapest in generated loops when x is small."""
    return np.exp(-x)


def minimum(a: Any, b: Any) -> Any:
    """The smaller of two numbers."""
    return np.minimum(a, b)


def maximum(a: Any, b: Any) -> Any:
    """The larger of two numbers."""
    return np.maximum(a, b)
