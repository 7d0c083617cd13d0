"""Functions that the generated GPU kernels call; the file imports Triton, so only generated kernels import it.

Triton's own exp, log and float32 division are the approximate instructions of the device. These are exact operations
or short polynomials of exact operations instead: the same bits on every device and in Triton's interpreter, provided
that products and sums are not fused (`enable_fp_fusion=False`). exp and tanh are the formulas of `cpu_math`, so that a
kernel on the GPU spikes where the kernel on the CPU does. Largest errors in units in the last place: exp 1, log 2, tanh
10 (float32) and 18 (float64). exp is clamped to the range in which its result is a normal number. NaN stays NaN.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exp_float32(x):  # type: ignore[no-untyped-def]
    x = tl.where(x < -87.0, -87.0, x)
    x = tl.where(x > 88.0, 88.0, x)
    k = tl.floor(x * 1.44269504 + 0.5)
    r = x - k * 0.693359375  # ln 2 in two parts: k times the first is exact
    r = r + k * 2.12194440e-4
    p = r * (1 / 5040) + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    power = ((k.to(tl.int32) + 127) << 23).to(tl.float32, bitcast=True)
    return ((p * r) * r + r + 1.0) * power


@triton.jit
def exp_float64(x):  # type: ignore[no-untyped-def]
    x = tl.where(x < -708.0, -708.0, x)
    x = tl.where(x > 709.0, 709.0, x)
    k = tl.floor(x * 1.4426950408889634 + 0.5)
    r = x - k * 6.93147180369123816490e-01
    r = r - k * 1.90821492927058770002e-10
    p = r * (1 / 6227020800) + 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    power = ((k.to(tl.int64) + 1023) << 52).to(tl.float64, bitcast=True)
    return ((p * r) * r + r + 1.0) * power


@triton.jit
def tanh_float32(x):  # type: ignore[no-untyped-def]
    e = exp_float32(tl.abs(x) * -2.0)
    y = tl.div_rn(1.0 - e, 1.0 + e)
    small = x - x * x * x * (1 / 3)  # the quotient loses digits near 0
    y = tl.where(x >= 0.0, y, -y)
    return tl.where(tl.abs(x) < 0.02, small, y)


@triton.jit
def tanh_float64(x):  # type: ignore[no-untyped-def]
    e = exp_float64(tl.abs(x) * -2.0)
    y = (1.0 - e) / (1.0 + e)
    square = x * x
    small = x * (1.0 - square * (1 / 3 - square * (2 / 15 - square * (17 / 315))))
    y = tl.where(x >= 0.0, y, -y)
    return tl.where(tl.abs(x) < 0.01, small, y)


@triton.jit
def log_float32(x):  # type: ignore[no-untyped-def]
    """log(x) = k ln 2 + 2 atanh(s), s = (m - 1) / (m + 1), for x = 2^k m with sqrt(1/2) <= m < sqrt(2)."""
    tiny = x < 1.17549435e-38
    scaled = tl.where(tiny, x * 8388608.0, x)  # 2^23: denormal numbers become normal ones
    bits = scaled.to(tl.int32, bitcast=True)
    k = ((bits >> 23) - 127).to(tl.float32)
    m = ((bits & 0x007FFFFF) | 0x3F800000).to(tl.float32, bitcast=True)
    k = tl.where(m > 1.41421356, k + 1.0, k)
    m = tl.where(m > 1.41421356, m * 0.5, m)
    k = tl.where(tiny, k - 23.0, k)
    s = tl.div_rn(m - 1.0, m + 1.0)
    square = s * s
    p = square * (1 / 9) + 1 / 7
    p = p * square + 1 / 5
    p = p * square + 1 / 3
    series = 2.0 * s + 2.0 * s * square * p
    y = k * 0.693359375 + (series - k * 2.12194440e-4)
    y = tl.where(x == 0.0, float("-inf"), y)
    y = tl.where(x == float("inf"), x, y)
    return tl.where(x >= 0.0, y, float("nan"))


@triton.jit
def log_float64(x):  # type: ignore[no-untyped-def]
    tiny = x < 2.2250738585072014e-308
    scaled = tl.where(tiny, x * 4503599627370496.0, x)  # 2^52
    bits = scaled.to(tl.int64, bitcast=True)
    k = ((bits >> 52) - 1023).to(tl.float64)
    fraction = bits - ((bits >> 52) << 52)
    m = (fraction + (1023 << 52)).to(tl.float64, bitcast=True)
    k = tl.where(m > 1.4142135623730951, k + 1.0, k)
    m = tl.where(m > 1.4142135623730951, m * 0.5, m)
    k = tl.where(tiny, k - 52.0, k)
    s = (m - 1.0) / (m + 1.0)
    square = s * s
    p = square * (1 / 23) + 1 / 21
    p = p * square + 1 / 19
    p = p * square + 1 / 17
    p = p * square + 1 / 15
    p = p * square + 1 / 13
    p = p * square + 1 / 11
    p = p * square + 1 / 9
    p = p * square + 1 / 7
    p = p * square + 1 / 5
    p = p * square + 1 / 3
    series = 2.0 * s + 2.0 * s * square * p
    y = k * 6.93147180369123816490e-01 + (series + k * 1.90821492927058770002e-10)
    y = tl.where(x == 0.0, float("-inf"), y)
    y = tl.where(x == float("inf"), x, y)
    return tl.where(x >= 0.0, y, float("nan"))


@triton.jit
def rint_float32(x):  # type: ignore[no-untyped-def]
    """Halves to even: adding 1.5 * 2^23 leaves no bit for the fraction."""
    return tl.where(tl.abs(x) < 4194304.0, (x + 12582912.0) - 12582912.0, x)


@triton.jit
def rint_float64(x):  # type: ignore[no-untyped-def]
    return tl.where(tl.abs(x) < 2251799813685248.0, (x + 6755399441055744.0) - 6755399441055744.0, x)
