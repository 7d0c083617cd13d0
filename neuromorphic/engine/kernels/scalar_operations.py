"""Scalar forms of `models.operations` for generated loops; each keeps the type of its argument and vectorises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic, overload, register_jitable

LOG2_E = np.float32(1.44269504)
LN2_HIGH = np.float32(0.693359375)
LN2_LOW = np.float32(-2.12194440e-4)
ONE = np.float32(1.0)
HALF = np.float32(0.5)
LIMIT = np.float32(87.0)
_C0 = np.float32(1.9875691500e-4)
_C1 = np.float32(1.3981999507e-3)
_C2 = np.float32(8.3334519073e-3)
_C3 = np.float32(4.1665795894e-2)
_C4 = np.float32(1.6666665459e-1)
_C5 = np.float32(5.0000001201e-1)


@intrinsic
def _power_of_two(typing_context, k):  # type: ignore[no-untyped-def]
    """2^k as float32 from an int32 k in [-126, 127], by writing the exponent bits."""
    if k != types.int32:
        return None

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        biased = builder.add(arguments[0], ir.Constant(ir.IntType(32), 127))
        return builder.bitcast(builder.shl(biased, ir.Constant(ir.IntType(32), 23)), ir.FloatType())

    return types.float32(types.int32), generate


@register_jitable
def _exp_single(x):  # type: ignore[no-untyped-def]
    """exp for float32 to 2 units in the last place (Cephes polynomial); the argument is clipped to [-87, 87]."""
    x = x if x < LIMIT else LIMIT
    x = x if x > -LIMIT else -LIMIT
    k = np.int32(np.floor(x * LOG2_E + HALF))
    whole = np.float32(k)
    r = x - whole * LN2_HIGH - whole * LN2_LOW
    p = ((((_C0 * r + _C1) * r + _C2) * r + _C3) * r + _C4) * r + _C5
    return (p * r * r + r + ONE) * _power_of_two(k)


def exp(x):  # type: ignore[no-untyped-def]
    """e to the power x."""
    return math.exp(x)


@overload(exp, inline="never")
def _overload_exp(x):  # type: ignore[no-untyped-def]
    if x == types.float32:
        return lambda x: _exp_single(x)
    return lambda x: math.exp(x)


@njit(inline="always")
def exp_decay(x):  # type: ignore[no-untyped-def]
    """exp(-x)."""
    return exp(-x)


@njit(inline="always")
def select(condition, if_true, if_false):  # type: ignore[no-untyped-def]
    """``if_true`` where the condition holds, else ``if_false``."""
    return if_true if condition else if_false


@njit(inline="always")
def minimum(a, b):  # type: ignore[no-untyped-def]
    """The smaller of two numbers."""
    return a if a < b else b


@njit(inline="always")
def maximum(a, b):  # type: ignore[no-untyped-def]
    """The larger of two numbers."""
    return a if a > b else b
