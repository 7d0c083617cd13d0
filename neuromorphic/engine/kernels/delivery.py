"""Sparse spike delivery: one sorted row of packed offsets per source and target block, added into ring buffers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuromorphic.engine.kernels.prefetch import STRIP, prefetch_one, prefetch_strip
from neuromorphic.engine.kernels.views import njit_views

INDIVIDUAL, PER_SOURCE, SHORT_TERM, LONG_TERM = range(4)
_AHEAD = 256  # synapses between the row that is asked for and the row that is added: the time of a memory access
_MOST_AHEAD = 16  # rows


@njit_views
def add_weighted(ring, direct, wrapped, room, tables, low, high, factor, at, stop):  # type: ignore[no-untyped-def]
    """ring[offset + shift] += factor * weight for synapses low..high-1, while synapses from ``at`` on are asked for.

    The shift is ``direct`` for offsets below ``room`` and ``wrapped`` beyond, a negative number modulo 2^64: choosing
    for each synapse costs less than searching the row for the place. Returns the first synapse before ``stop`` that is
    yet to be asked for: a strip of the row ahead for each strip of this row, so that memory is never asked for much at once.
    """
    for first in range(low, high, STRIP):
        if at < stop:
            prefetch_strip(tables.offsets, at)
            prefetch_strip(tables.weights, at)
            at += STRIP
        end = min(first + STRIP, high)
        offsets, weights = tables.offsets[first:end], tables.weights[first:end]
        if factor == 1.0:
            for j in range(offsets.shape[0]):
                offset = np.uint64(offsets[j])
                ring[offset + (direct if offset < room else wrapped)] += weights[j]
        else:
            for j in range(offsets.shape[0]):
                offset = np.uint64(offsets[j])
                ring[offset + (direct if offset < room else wrapped)] += factor * weights[j]
    return at


@njit_views
def add_constant(ring, direct, wrapped, room, tables, low, high, weight, at, stop):  # type: ignore[no-untyped-def]
    """``add_weighted`` for a row whose synapses share one weight."""
    for first in range(low, high, STRIP):
        if at < stop:
            prefetch_strip(tables.offsets, at)
            at += STRIP
        offsets = tables.offsets[first : min(first + STRIP, high)]
        for j in range(offsets.shape[0]):
            offset = np.uint64(offsets[j])
            ring[offset + (direct if offset < room else wrapped)] += weight
    return at


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
    stp_state: np.ndarray  # [W, K', N, 3] u, x and the last spike's step; each thread keeps its own equal copy
    stp_index: np.ndarray  # [K] place in stp_state


@njit_views
def efficacy(table, w, s, t, tables):  # type: ignore[no-untyped-def]
    """Advance the Tsodyks-Markram state of source s to its spike at step t; returns u * x of this spike."""
    cell = tables.stp_state[w, tables.stp_index[table], s]
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
def factors_of(w, layout, tables, factors, log_step, log_id, first, last):  # type: ignore[no-untyped-def]
    """factors[K', 0..last-first-1]: u * x of the spikes first..last-1 in each SHORT_TERM table, for thread w."""
    blocks = layout.block_cells.shape[0]
    for k in range(tables.kind.shape[0]):
        if tables.kind[k] != SHORT_TERM:
            continue
        pointers, out = tables.pointers[k], factors[tables.stp_index[k]]
        for q in range(first, last):
            s = np.int64(log_id[q])
            if pointers[s * blocks] < pointers[s * blocks + blocks]:
                out[q - first] = efficacy(k, w, s, log_step[q], tables)


@njit_views
def deliver(b, layout, tables, ring, factors, log_step, log_id, first, last):  # type: ignore[no-untyped-def]
    """Add the synapses of spikes first..last-1 of the log into the ring of block b.

    factors: of these spikes, see ``factors_of``.
    """
    blocks = layout.block_cells.shape[0]
    slots = layout.slots[0]
    cells = layout.block_cells[b]
    turn = slots * cells
    end = layout.block_base[b] + turn
    one = ring.dtype.type(1.0)
    for k in range(tables.kind.shape[0]):
        kind = tables.kind[k]
        if kind == LONG_TERM:
            continue
        pointers = tables.pointers[k]
        ahead = 2 + _AHEAD * (pointers.shape[0] - 1) // (pointers[-1] - pointers[0] + 1)
        ahead = min(ahead, _MOST_AHEAD)
        for q in range(first, last):
            s = np.int64(log_id[q])
            low, high = pointers[s * blocks + b], pointers[s * blocks + b + 1]
            if q + 2 * ahead < last:
                prefetch_one(pointers, np.int64(log_id[q + 2 * ahead]) * blocks + b)
            at = stop = np.int64(0)
            if q + ahead < last:
                following = np.int64(log_id[q + ahead]) * blocks + b
                at, stop = pointers[following] // STRIP * STRIP, pointers[following + 1]
            base = (log_step[q] % slots) * cells
            direct, wrapped, room = np.uint64(base), np.uint64(base - turn), np.uint64(end - base)
            if kind == PER_SOURCE:
                weight = tables.row_weight[k, s]
                at = add_constant(ring, direct, wrapped, room, tables, low, high, weight, at, stop)
            else:
                factor = factors[tables.stp_index[k], q - first] if kind == SHORT_TERM else one
                at = add_weighted(ring, direct, wrapped, room, tables, low, high, factor, at, stop)
            while at < stop:
                prefetch_strip(tables.offsets, at)
                if kind != PER_SOURCE:
                    prefetch_strip(tables.weights, at)
                at += STRIP
