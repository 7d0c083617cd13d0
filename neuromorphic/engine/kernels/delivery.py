"""Sparse spike delivery: one sorted row of packed offsets per source and target block, added into ring buffers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuromorphic.engine.kernels.prefetch import prefetch
from neuromorphic.engine.kernels.views import njit_views

INDIVIDUAL, PER_SOURCE, SHORT_TERM, LONG_TERM = range(4)


@njit_views
def wrap_position(offsets, low, high, room):  # type: ignore[no-untyped-def]
    """First index in [low, high) whose offset reaches ``room``; offsets are sorted."""
    if high == low or np.int64(offsets[high - 1]) < room:
        return high
    a, b = low, high
    while a < b:
        middle = (a + b) >> 1
        if np.int64(offsets[middle]) < room:
            a = middle + 1
        else:
            b = middle
    return a


@njit_views
def add_weighted(ring, shift, offsets, weights):  # type: ignore[no-untyped-def]
    """ring[shift + offset] += weight for a row; shift may be a negative number written modulo 2^64."""
    for j in range(offsets.shape[0]):
        ring[shift + np.uint64(offsets[j])] += weights[j]


@njit_views
def add_scaled(ring, shift, offsets, weights, factor):  # type: ignore[no-untyped-def]
    """ring[shift + offset] += factor * weight for a row."""
    for j in range(offsets.shape[0]):
        ring[shift + np.uint64(offsets[j])] += factor * weights[j]


@njit_views
def add_constant(ring, shift, offsets, weight):  # type: ignore[no-untyped-def]
    """ring[shift + offset] += weight for a row whose synapses share one weight."""
    for j in range(offsets.shape[0]):
        ring[shift + np.uint64(offsets[j])] += weight


class Tables(NamedTuple):
    """Synapses of the whole network. K tables of N sources, T target blocks.

    A table's rows are consecutive in ``offsets``; tables with one weight per synapse come first, so that ``weights``
    aligns with the front of ``offsets``.
    """

    kind: np.ndarray  # [K] one of INDIVIDUAL, PER_SOURCE, SHORT_TERM, LONG_TERM
    pointers: np.ndarray  # [K, N * T + 1] first synapse of (source, block)
    offsets: np.ndarray  # [S] uint32
    weights: np.ndarray  # [S'] one for each synapse of the leading tables
    row_weight: np.ndarray  # [K, N] weight of PER_SOURCE rows
    stp: np.ndarray  # [K, 3] U, tau_rec and tau_fac in steps, of SHORT_TERM tables
    stp_state: np.ndarray  # [T, K', N, 3] u, x and the last spike's step; each block keeps its own equal copy
    stp_index: np.ndarray  # [K] place in stp_state


@njit_views
def efficacy(table, b, s, t, tables):  # type: ignore[no-untyped-def]
    """Advance the Tsodyks-Markram state of source s to its spike at step t; returns u * x of this spike."""
    cell = tables.stp_state[b, tables.stp_index[table], s]
    start = tables.stp[table, 0]
    u, x, last = cell[0], cell[1], cell[2]
    if last >= 0.0:
        gap = t - last
        x = 1.0 + (x - x * u - 1.0) * np.exp(-gap / tables.stp[table, 1])
        keep = np.exp(-gap / tables.stp[table, 2]) if tables.stp[table, 2] > 0.0 else 0.0
        u = start + u * (1.0 - start) * keep
    cell[0], cell[1], cell[2] = u, x, np.float64(t)
    return u * x


@njit_views
def deliver(b, layout, tables, ring, log_step, log_id, first, last):  # type: ignore[no-untyped-def]
    """Add the synapses of spikes first..last-1 of the log into the ring of block b."""
    blocks = layout.block_cells.shape[0]
    slots = layout.slots[0]
    cells = layout.block_cells[b]
    turn = slots * cells
    end = layout.block_base[b] + turn
    for k in range(tables.kind.shape[0]):
        kind = tables.kind[k]
        if kind == LONG_TERM:
            continue
        pointers = tables.pointers[k]
        for q in range(first, last):
            s = np.int64(log_id[q])
            low, high = pointers[s * blocks + b], pointers[s * blocks + b + 1]
            if q + 1 < last:
                following = np.int64(log_id[q + 1]) * blocks + b
                prefetch(tables.offsets, pointers[following], pointers[following + 1])
                if kind != PER_SOURCE:
                    prefetch(tables.weights, pointers[following], pointers[following + 1])
            if kind == SHORT_TERM:
                if pointers[s * blocks] == pointers[s * blocks + blocks]:
                    continue
                factor = ring.dtype.type(efficacy(k, b, s, log_step[q], tables))
            base = (log_step[q] % slots) * cells
            cut = wrap_position(tables.offsets, low, high, end - base)
            ahead, wrapped = np.uint64(base), np.uint64(base - turn)
            if kind == PER_SOURCE:
                weight = tables.row_weight[k, s]
                add_constant(ring, ahead, tables.offsets[low:cut], weight)
                add_constant(ring, wrapped, tables.offsets[cut:high], weight)
            elif kind == SHORT_TERM:
                add_scaled(ring, ahead, tables.offsets[low:cut], tables.weights[low:cut], factor)
                add_scaled(ring, wrapped, tables.offsets[cut:high], tables.weights[cut:high], factor)
            else:
                add_weighted(ring, ahead, tables.offsets[low:cut], tables.weights[low:cut])
                add_weighted(ring, wrapped, tables.offsets[cut:high], tables.weights[cut:high])
