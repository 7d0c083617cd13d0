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
def pack(
    x: Array, first: int, lanes: int, before: int, steps: int, origin: int, N: int, rows: Array
) -> None:  # pragma: no cover
    """rows[i, before + t, lane] = x[t, first + lane, origin + i] for i < N, 0 beyond the batch.

    rows is flat, with `steps` lines per feature.
    """
    T, B, _ = x.shape
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
                    rows[i * length + place + lane] = line[origin + i]
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


def _kernels_for(lanes: int) -> tuple[Any, Any]:
    """`weighted_shifts` and `shifted_products` for so many values in a vector.

    The number is a constant of the compiled code: the compiler then knows that no index is negative, and vectorises.
    """

    @njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
    def add_group(total: Array, rows: Array, place: Array, near: Array, far: Array) -> None:  # pragma: no cover
        size = total.shape[0]
        x_0 = rows[place[0] : place[0] + size + lanes]
        x_1 = rows[place[1] : place[1] + size + lanes]
        x_2 = rows[place[2] : place[2] + size + lanes]
        x_3 = rows[place[3] : place[3] + size + lanes]
        near_0, near_1, near_2, near_3 = near[0], near[1], near[2], near[3]
        far_0, far_1, far_2, far_3 = far[0], far[1], far[2], far[3]
        for q in range(size):
            total[q] += ((near_0 * x_0[q + lanes] + far_0 * x_0[q]) + (near_1 * x_1[q + lanes] + far_1 * x_1[q])) + (
                (near_2 * x_2[q + lanes] + far_2 * x_2[q]) + (near_3 * x_3[q + lanes] + far_3 * x_3[q])
            )

    @njit(cache=True, nogil=True, error_model="numpy")
    def weighted_shifts(rows: Array, place: Array, near: Array, far: Array, out: Array) -> None:  # pragma: no cover
        """out[o] += sum over i of near[o, i] rows[place[o, i] + lanes:] + far[o, i] rows[place[o, i]:].

        out is [outputs, size]; the number of inputs is a multiple of GROUP.
        """
        outputs, inputs = place.shape
        for first in range(0, inputs, BLOCK):
            last = min(first + BLOCK, inputs)
            for o in range(outputs):
                for i in range(first, last, GROUP):
                    stop = i + GROUP
                    add_group(out[o], rows, place[o, i:stop], near[o, i:stop], far[o, i:stop])

    @njit(cache=True, nogil=True, error_model="numpy", fastmath={"reassoc", "contract"})
    def two_products(x: Array, g: Array) -> Any:  # pragma: no cover
        # Freely ordered sums vectorise; no threshold is tested on these, and the order is that of the compiled code.
        near = far = g[0] * 0
        for q in range(g.shape[0]):
            near += x[q + lanes] * g[q]
            far += x[q] * g[q]
        return near, far

    @njit(cache=True, nogil=True, error_model="numpy")
    def shifted_products(rows: Array, place: Array, g: Array, near: Array, far: Array) -> None:  # pragma: no cover
        """near[o, i] += <rows[place[o, i] + lanes:], g[o]>, far[o, i] += <rows[place[o, i]:], g[o]>."""
        outputs, inputs = place.shape
        size = g.shape[1]
        for first in range(0, inputs, BLOCK):
            for o in range(outputs):
                for i in range(first, min(first + BLOCK, inputs)):
                    start = place[o, i]
                    a, b = two_products(rows[start : start + size + lanes], g[o])
                    near[o, i] += a
                    far[o, i] += b

    return weighted_shifts, shifted_products


KERNELS = {lanes: _kernels_for(lanes) for lanes in (LANE_BYTES // 8, LANE_BYTES // 4)}
"""(weighted_shifts, shifted_products) by values in a vector."""


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
