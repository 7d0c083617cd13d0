"""Compiled loops that run an integer network: event-driven input sums and the scalar neurons over all steps.

Arrays are [T, B, N] with neurons row-major in their shape; parameters [K, N] hold one row for each argument of the
scalar function after its states. Samples run in parallel; every number is an integer, so threads cannot change results.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from neuromorphic.targets.arithmetic import (
    bit_shift_step,
    cuba_step,
    event_if_step,
    fixed_point_step,
    receive,
)

_NEVER = 2**50
"""A threshold that no state reaches."""


@njit(cache=True, nogil=True, parallel=True)
def linear_sums(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Sum over inputs of x weight; x [T, B, I] int32, weight [I, O] int32; returns int64 [T, B, O]. Zeros are skipped."""
    T, B, inputs = x.shape
    a = np.zeros((T, B, weight.shape[1]), np.int64)
    for b in prange(B):
        for t in range(T):
            row = a[t, b]
            for i in range(inputs):
                value = x[t, b, i]
                if value != 0:
                    for o in range(row.size):
                        row[o] += value * weight[i, o]
    return a


@njit(cache=True, nogil=True)
def _output_at(position: int, stride: int, size: int) -> int:
    """The output whose window starts at `position` of the padded input, or -1 where there is none."""
    if position < 0 or position % stride != 0 or position // stride >= size:
        return -1
    return position // stride


@njit(cache=True, nogil=True, parallel=True)
def conv_sums(
    x: np.ndarray, weight: np.ndarray, geometry: np.ndarray, in_shape: np.ndarray, out_shape: np.ndarray
) -> np.ndarray:
    """Convolution sums spike by spike, with shared weights.

    Args:
        x: [T, B, C H W] int32.
        weight: [C_in / groups, kh, kw, C_out] int32.
        geometry: stride, padding, dilation, each (y, x), then groups.
        in_shape, out_shape: (C, H, W).
    Returns: int64 [T, B, C_out H_out W_out].
    """
    T, B, _ = x.shape
    _, height, width = in_shape
    outputs, out_height, out_width = out_shape
    per_group, kh, kw, _ = weight.shape
    out_per_group = outputs // geometry[6]
    area = out_height * out_width
    a = np.zeros((T, B, outputs * area), np.int64)
    for b in prange(B):
        for t in range(T):
            for index in range(x.shape[2]):
                value = x[t, b, index]
                if value == 0:
                    continue
                c, y, z = index // (height * width), index // width % height, index % width
                first = c // per_group * out_per_group
                for ky in range(kh):
                    oy = _output_at(y + geometry[2] - ky * geometry[4], geometry[0], out_height)
                    for kx in range(kw):
                        ox = _output_at(z + geometry[3] - kx * geometry[5], geometry[1], out_width)
                        if oy < 0 or ox < 0:
                            continue
                        for o in range(first, first + out_per_group):
                            a[t, b, o * area + oy * out_width + ox] += value * weight[c % per_group, ky, kx, o]
    return a


@njit(cache=True, nogil=True, parallel=True)
def run_cuba(a: np.ndarray, feedback: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`cuba_step` over a [T, B, N]; feedback [N, N] int32 (source, target) or [0, 0]; spikes int32."""
    T, B, N = a.shape
    out = np.zeros((T, B, N), np.int32)
    for b in prange(B):
        state = np.zeros((3, N), np.int64)
        total = np.zeros(N, np.int64)
        for t in range(T):
            total[:] = a[t, b]
            _add_feedback(total, out, feedback, t, b)
            for n in range(N):
                z, u, v, hold = cuba_step(
                    total[n], state[0, n], state[1, n], state[2, n], p[0, n], p[1, n], p[2, n], p[3, n], p[4, n]
                )
                out[t, b, n] = z
                state[0, n], state[1, n], state[2, n] = u, v, hold
    return out


@njit(cache=True, nogil=True)
def _add_feedback(total: np.ndarray, out: np.ndarray, feedback: np.ndarray, t: int, b: int) -> None:
    if t == 0 or feedback.shape[0] == 0:
        return
    for m in range(out.shape[2]):
        value = out[t - 1, b, m]
        if value != 0:
            for n in range(total.size):
                total[n] += value * feedback[m, n]


@njit(cache=True, nogil=True, parallel=True)
def run_fixed_point(a: np.ndarray, feedback: np.ndarray, p: np.ndarray, spiking: bool) -> np.ndarray:
    """`fixed_point_step` over a [T, B, N]; with spiking False the voltage itself, never reset; int64."""
    T, B, N = a.shape
    out = np.zeros((T, B, N), np.int64)
    for b in prange(B):
        state = np.zeros((2, N), np.int64)
        total = np.zeros(N, np.int64)
        for t in range(T):
            total[:] = a[t, b]
            _add_feedback(total, out, feedback, t, b)
            for n in range(N):
                threshold = p[2, n] if spiking else _NEVER
                z, c, v = fixed_point_step(
                    total[n],
                    state[0, n],
                    state[1, n],
                    p[0, n],
                    p[1, n],
                    threshold,
                    p[3, n],
                    p[4, n],
                    p[5, n],
                    p[6, n],
                    p[7, n] != 0,
                )
                out[t, b, n] = z if spiking else v
                state[0, n], state[1, n] = c, v
    return out


@njit(cache=True, nogil=True, parallel=True)
def run_bit_shift(x: np.ndarray, weight: np.ndarray, feedback: np.ndarray, p: np.ndarray) -> np.ndarray:
    """`receive` spike by spike, then `bit_shift_step`; x [T, B, I] int32 counts, weight [I, N]; counts int32 [T, B, N]."""
    T, B, inputs = x.shape
    N = weight.shape[1]
    out = np.zeros((T, B, N), np.int32)
    for b in prange(B):
        state = np.zeros((2, N), np.int64)
        for t in range(T):
            for i in range(inputs):
                for n in range(N) if x[t, b, i] != 0 else range(0):
                    state[0, n] = receive(state[0, n], weight[i, n], x[t, b, i], p[5, n])
            if t > 0 and feedback.shape[0] > 0:
                for m in range(N):
                    for n in range(N) if out[t - 1, b, m] != 0 else range(0):
                        state[0, n] = receive(state[0, n], feedback[m, n], out[t - 1, b, m], p[5, n])
            for n in range(N):
                z, i_new, v = bit_shift_step(
                    state[0, n], state[1, n], 0, p[0, n], p[1, n], p[2, n], p[3, n], p[4, n], p[5, n]
                )
                out[t, b, n] = z
                state[0, n], state[1, n] = i_new, v
    return out


@njit(cache=True, nogil=True, parallel=True)
def run_event_if(
    x: np.ndarray,
    weight: np.ndarray,
    geometry: np.ndarray,
    in_shape: np.ndarray,
    out_shape: np.ndarray,
    bias: np.ndarray,
    p: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Events one by one through a convolution (a linear layer is one of 1x1) into `event_if_step` neurons.

    Within a step the bias comes first, as one event at each neuron that has one, then inputs in row-major order, an
    input of count k as k events in a row. Arguments as in `conv_sums`; bias [N] int64.
    Returns: spike counts int32 [T, B, N] and the membranes after each step int64 [T, B, N].
    """
    T, B, _ = x.shape
    _, height, width = in_shape
    outputs, out_height, out_width = out_shape
    per_group, kh, kw, _ = weight.shape
    out_per_group = outputs // geometry[6]
    area = out_height * out_width
    counts = np.zeros((T, B, outputs * area), np.int32)
    membranes = np.zeros((T, B, outputs * area), np.int64)
    for b in prange(B):
        v = np.zeros(outputs * area, np.int64)
        for t in range(T):
            for n in range(v.size):
                if bias[n] != 0:
                    z, v[n] = event_if_step(bias[n], v[n], p[0, n], p[1, n], p[2, n] != 0)
                    counts[t, b, n] += z
            for index in range(x.shape[2]):
                c, y, column = index // (height * width), index // width % height, index % width
                first = c // per_group * out_per_group
                for _ in range(x[t, b, index]):
                    for ky in range(kh):
                        oy = _output_at(y + geometry[2] - ky * geometry[4], geometry[0], out_height)
                        for kx in range(kw):
                            ox = _output_at(column + geometry[3] - kx * geometry[5], geometry[1], out_width)
                            if oy < 0 or ox < 0:
                                continue
                            for o in range(first, first + out_per_group):
                                n = o * area + oy * out_width + ox
                                w = weight[c % per_group, ky, kx, o]
                                z, v[n] = event_if_step(w, v[n], p[0, n], p[1, n], p[2, n] != 0)
                                counts[t, b, n] += z
            membranes[t, b] = v
    return counts, membranes
