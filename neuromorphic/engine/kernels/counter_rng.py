"""Random numbers from a counter: a value depends on its key only, never on the order or the thread that draws it.

The generator is SplitMix64 (Steele, Lea, Flood 2014): word i of stream k is mix(k + i * GOLDEN).
"""

from __future__ import annotations

import numpy as np
from numba import njit

GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_M1 = np.uint64(0xBF58476D1CE4E5B9)
_M2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_S11, _S32 = np.uint64(11), np.uint64(32)
_TO_UNIT = 2.0**-53
_MASK = 2**64 - 1


def mix_reference(z: int) -> int:
    """``mix`` on Python integers."""
    z = ((z ^ (z >> 30)) * int(_M1)) & _MASK
    z = ((z ^ (z >> 27)) * int(_M2)) & _MASK
    return z ^ (z >> 31)


def stream_reference(key: int, number: int) -> int:
    """``stream`` on Python integers; used for the keys of whole projections and populations."""
    return mix_reference(key ^ mix_reference(((number + 1) * int(GOLDEN)) & _MASK))


@njit(error_model="numpy")
def mix(z):  # type: ignore[no-untyped-def]
    """Finaliser of SplitMix64: a bijection of 64-bit words."""
    z = (z ^ (z >> _S30)) * _M1
    z = (z ^ (z >> _S27)) * _M2
    return z ^ (z >> _S31)


@njit(error_model="numpy")
def stream(key, number):  # type: ignore[no-untyped-def]
    """Key of sub-stream ``number`` of ``key``."""
    return mix(key ^ mix((number + np.uint64(1)) * GOLDEN))


@njit(error_model="numpy")
def unit(word):  # type: ignore[no-untyped-def]
    """A float64 in (0, 1) from a word."""
    return (np.float64(word >> _S11) + 0.5) * _TO_UNIT


@njit(error_model="numpy")
def below(word, n):  # type: ignore[no-untyped-def]
    """An integer in [0, n) from a word, n < 2^32; the bias is below n / 2^32."""
    return np.int64(((word >> _S32) * np.uint64(n)) >> _S32)
