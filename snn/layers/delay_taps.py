"""Numba kernels of delays between two whole steps. Imported on first use: importing Numba is slow.

LANES samples of the batch lie side by side, so that a delay is a shift by whole vectors: with the input of one feature
as a row [steps, lanes], a synapse adds two shifted copies of that row to the row of its output. The cost does not depend
on the longest delay, and no kernel over time is ever made. A block of BLOCK inputs stays in the second-level cache
while all outputs take from it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

Array = np.ndarray[Any, Any]
LANE_BYTES = 64
BLOCK = 16
GROUP = 4  # synapses that one pass over an output row adds


@njit(cache=True, nogil=True, error_model="numpy")
def pack(x: Array, first: int, lanes: int, before: int, steps: int, rows: Array) -> None:  # pragma: no cover
    """rows[i, before + t, lane] = x[t, first + lane, i], 0 beyond the batch; rows is flat, `steps` lines per feature."""
    T, B, N = x.shape
    length = steps * lanes
    used = min(lanes, B - first)
    for i in range(N):
        rows[i * length : i * length + before * lanes] = 0
        rows[i * length + (before + T) * lanes : (i + 1) * length] = 0
    for t in range(T):
        for low in range(0, N, 16):
            high = min(low + 16, N)
            place = (before + t) * lanes
            for lane in range(used):
                line = x[t, first + lane]
                for i in range(low, high):
                    rows[i * length + place + lane] = line[i]
            for lane in range(used, lanes):
                for i in range(low, high):
                    rows[i * length + place + lane] = 0


@njit(cache=True, nogil=True, error_model="numpy")
def unpack(rows: Array, first: int, lanes: int, y: Array) -> None:  # pragma: no cover
    """y[t, first + lane, o] = rows[o, t, lane]."""
    T, B, N = y.shape
    used = min(lanes, B - first)
    for t in range(T):
        for low in range(0, N, 16):
            high = min(low + 16, N)
            for lane in range(used):
                line = y[t, first + lane]
                for o in range(low, high):
                    line[o] = rows[(o * T + t) * lanes + lane]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _add_group(total: Array, rows: Array, place: Array, near: Array, far: Array, lanes: int) -> None:
    """total[q] += sum over 4 synapses of near x[q + lanes] + far x[q], x = rows[place:]."""  # pragma: no cover
    size = total.shape[0]
    p_0, p_1, p_2, p_3 = place[0], place[1], place[2], place[3]
    far_0, far_1, far_2, far_3 = far[0], far[1], far[2], far[3]
    near_0, near_1, near_2, near_3 = near[0], near[1], near[2], near[3]
    x_0, y_0 = rows[p_0 : p_0 + size], rows[p_0 + lanes : p_0 + lanes + size]
    x_1, y_1 = rows[p_1 : p_1 + size], rows[p_1 + lanes : p_1 + lanes + size]
    x_2, y_2 = rows[p_2 : p_2 + size], rows[p_2 + lanes : p_2 + lanes + size]
    x_3, y_3 = rows[p_3 : p_3 + size], rows[p_3 + lanes : p_3 + lanes + size]
    for q in range(size):
        total[q] += ((near_0 * y_0[q] + far_0 * x_0[q]) + (near_1 * y_1[q] + far_1 * x_1[q])) + (
            (near_2 * y_2[q] + far_2 * x_2[q]) + (near_3 * y_3[q] + far_3 * x_3[q])
        )


@njit(cache=True, nogil=True, error_model="numpy")
def weighted_shifts(rows: Array, place: Array, near: Array, far: Array, lanes: int, out: Array) -> None:
    """out[o] = sum over i of near[o, i] rows[place[o, i] + lanes:] + far[o, i] rows[place[o, i]:], out [outputs, size].

    The number of inputs is a multiple of GROUP.
    """  # pragma: no cover
    outputs, inputs = place.shape
    for o in range(outputs):
        out[o, :] = 0
    for first in range(0, inputs, BLOCK):
        last = min(first + BLOCK, inputs)
        for o in range(outputs):
            for i in range(first, last, GROUP):
                stop = i + GROUP
                _add_group(out[o], rows, place[o, i:stop], near[o, i:stop], far[o, i:stop], lanes)


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
def _two_products(near: Array, far: Array, g: Array) -> Any:  # pragma: no cover
    # Freely ordered sums vectorise; no threshold is tested on these, and the order is that of the compiled code.
    near_sum = far_sum = g[0] * 0
    for q in range(g.shape[0]):
        near_sum += near[q] * g[q]
        far_sum += far[q] * g[q]
    return near_sum, far_sum


@njit(cache=True, nogil=True, error_model="numpy")
def shifted_products(rows: Array, place: Array, g: Array, lanes: int, near: Array, far: Array) -> None:
    """near[o, i] += <rows[place[o, i] + lanes:], g[o]>, far[o, i] += <rows[place[o, i]:], g[o]>."""  # pragma: no cover
    outputs, inputs = place.shape
    size = g.shape[1]
    for first in range(0, inputs, BLOCK):
        for o in range(outputs):
            for i in range(first, min(first + BLOCK, inputs)):
                start = place[o, i]
                a, b = _two_products(rows[start + lanes : start + lanes + size], rows[start : start + size], g[o])
                near[o, i] += a
                far[o, i] += b


@njit(cache=True, nogil=True, error_model="numpy")
def scatter_events(x: Array, weight: Array, place: Array, first: int, last: int, y: Array) -> None:  # pragma: no cover
    """y[t + delay, b, o] += x[t, b, i] weight[i, o] for the non-zero x of samples first..last - 1.

    place[i, o] = delay[i, o] * B * outputs + o; y is flat and max_delay steps longer than x.
    """
    T, B, inputs = x.shape
    outputs = weight.shape[1]
    for t in range(T):
        for b in range(first, last):
            line = x[t, b]
            target = y[(t * B + b) * outputs :]
            for i in range(inputs):
                value = line[i]
                if value != 0:
                    w = weight[i]
                    at = place[i]
                    if value == 1:
                        for o in range(outputs):
                            target[at[o]] += w[o]
                    else:
                        for o in range(outputs):
                            target[at[o]] += value * w[o]
