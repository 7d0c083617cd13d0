"""Exponentials that LLVM vectorises, for the generated CPU kernels.

exp(x) = 2^k exp(r) with k = round(x / ln 2) and |r| <= ln(2) / 2; exp(r) is its Taylor series up to a term below the
rounding error, 2^k is written into the exponent bits. Within 2 units in the last place; inputs are clamped to the range
in which the result is a normal number.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_F = np.float32


@njit(error_model="numpy")
def exp_float32(x):  # type: ignore[no-untyped-def]
    x = min(max(x, _F(-87.0)), _F(88.0))
    k = np.floor(x * _F(1.44269504) + _F(0.5))
    r = x - k * _F(0.693359375)  # ln 2 in two parts: k times the first is exact
    r = r + k * _F(2.12194440e-4)
    p = _F(1 / 5040)
    p = p * r + _F(1 / 720)
    p = p * r + _F(1 / 120)
    p = p * r + _F(1 / 24)
    p = p * r + _F(1 / 6)
    p = p * r + _F(0.5)
    return ((p * r) * r + r + _F(1.0)) * np.int32((np.int32(k) + 127) << 23).view(np.float32)


@njit(error_model="numpy")
def exp_float64(x):  # type: ignore[no-untyped-def]
    x = min(max(x, -708.0), 709.0)
    k = np.floor(x * 1.4426950408889634 + 0.5)
    r = x - k * 6.93147180369123816490e-01
    r = r - k * 1.90821492927058770002e-10
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    return ((p * r) * r + r + 1.0) * np.int64((np.int64(k) + 1023) << 52).view(np.float64)


@njit(error_model="numpy")
def tanh_float32(x):  # type: ignore[no-untyped-def]
    e = exp_float32(_F(-2.0) * abs(x))
    y = (_F(1.0) - e) / (_F(1.0) + e)
    small = x - x * x * x * _F(1 / 3)  # the quotient loses digits near 0
    y = y if x >= _F(0.0) else -y
    return small if abs(x) < _F(0.02) else y


@njit(error_model="numpy")
def tanh_float64(x):  # type: ignore[no-untyped-def]
    e = exp_float64(-2.0 * abs(x))
    y = (1.0 - e) / (1.0 + e)
    square = x * x
    small = x * (1.0 - square * (1.0 / 3.0 - square * (2.0 / 15.0 - square * (17.0 / 315.0))))
    y = y if x >= 0.0 else -y
    return small if abs(x) < 0.01 else y


@njit(nogil=True, error_model="numpy")
def spread(work, row, values, inner, low, count):  # type: ignore[no-untyped-def]  # pragma: no cover
    """work[row + j] = values[((low + j) // inner) % values.size] for j < count, without a division per neuron."""
    size = values.size
    place = (low // inner) % size
    j = 0
    until = inner - low % inner
    while j < count:
        value = values[place]
        for k in range(j, min(until, count)):
            work[row + k] = value
        j = until
        until += inner
        place = place + 1 if place + 1 < size else 0
