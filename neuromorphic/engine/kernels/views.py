"""The compiler settings of kernels that only look at arrays and never make one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from numba import njit

# Without Numba's runtime no slice counts references; the atomic counters cost a third of a small network's time.
SETTINGS: dict[str, Any] = {"error_model": "numpy", "_nrt": False}
njit_views: Callable[..., Any] = partial(njit, **SETTINGS)
