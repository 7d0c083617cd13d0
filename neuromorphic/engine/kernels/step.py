"""Pieces of one time step that do not depend on the neuron models: input, stimuli, spike lists, samples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuromorphic.engine.kernels.counter_rng import stream
from neuromorphic.engine.kernels.stimuli import draw_counts
from neuromorphic.engine.kernels.views import njit_views
from neuromorphic.engine.layout import TILE

POISSON_SOURCE, LIST_SOURCE = -1, -2


class Drives(NamedTuple):
    """Poisson stimuli, sorted by population. Q drives."""

    first: np.ndarray  # [P + 1] first drive of each population
    row: np.ndarray  # [Q] receptor
    low: np.ndarray  # [Q] first neuron
    high: np.ndarray  # [Q] one past the last neuron
    start: np.ndarray  # [Q] first step
    stop: np.ndarray  # [Q] one past the last step
    weight: np.ndarray  # [Q]
    key: np.ndarray  # [Q] uint64 stream
    base: np.ndarray  # [Q] int32 count below all thresholds
    threshold_start: np.ndarray  # [Q + 1]
    thresholds: np.ndarray  # uint32


class SpikeLists(NamedTuple):
    """Spikes of list sources by population and block, sorted by step, then neuron."""

    start: np.ndarray  # [P, T + 1]
    step: np.ndarray  # [S] int64
    neuron: np.ndarray  # [S] int32, index in the population
    cursor: np.ndarray  # [P, T] next spike; advanced by the run


class Samplers(NamedTuple):
    """State recorders. K samplers; entries are grouped by sampler and block."""

    population: np.ndarray  # [K]
    row: np.ndarray  # [K] state row
    interval: np.ndarray  # [K] steps
    width: np.ndarray  # [K] neurons
    start: np.ndarray  # [K, T + 1] first entry of each block
    position: np.ndarray  # [E] element of row 0 in the state array
    column: np.ndarray  # [E] place in the recorder's row
    out_start: np.ndarray  # [K] first element in ``out``
    out: np.ndarray  # samples of one call of the run loop


class Scratch(NamedTuple):
    """Buffers of W threads and T blocks."""

    flags: np.ndarray  # [W, TILE rounded up to 64] uint8 spikes of a tile
    words: np.ndarray  # [W, TILE / 2 + 8] uint64
    counts: np.ndarray  # [W, TILE] int32
    ids: np.ndarray  # [T, S] int32 spikes of a chunk: by step, then population, then neuron
    segments: np.ndarray  # [T, steps, P] spikes in each stretch of ids
    cursor: np.ndarray  # [W, max(16, T)] reading positions of each thread's merge


@njit_views
def add_drives(drives, p, t, first_neuron, n, ring, cell, stride, words, counts):  # type: ignore[no-untyped-def]
    """Add the Poisson stimuli of population p at step t to the ring cells of a tile, ``stride`` apart for receptors."""
    for q in range(drives.first[p], drives.first[p + 1]):
        low = max(drives.low[q] - first_neuron, 0)
        high = min(drives.high[q] - first_neuron, n)
        if t < drives.start[q] or t >= drives.stop[q] or low >= high:
            continue
        thresholds = drives.thresholds[drives.threshold_start[q] : drives.threshold_start[q + 1]]
        draw_counts(stream(drives.key[q], np.uint64(t)), first_neuron, n, words, counts, drives.base[q], thresholds)
        start = cell + drives.row[q] * stride
        row = ring[start : start + n]
        weight = drives.weight[q]
        for i in range(low, high):
            row[i] += weight * ring.dtype.type(counts[i])


@njit_views
def collect(flags, n, first_id, ids, position):  # type: ignore[no-untyped-def]
    """Append the ids of set flags, looking at 64 flags at a time; returns the new length."""
    groups = (n + 63) // 64
    for i in range(n, groups * 64):
        flags[i] = 0
    words = flags.view(np.uint64)
    for g in range(groups):
        k = g * 8
        low = words[k] | words[k + 1] | words[k + 2] | words[k + 3]
        high = words[k + 4] | words[k + 5] | words[k + 6] | words[k + 7]
        if low | high:
            for i in range(g * 64, g * 64 + 64):
                if flags[i] != 0:
                    ids[position] = first_id + i
                    position += 1
    return position


@njit_views
def emit_sources(layout, drives, lists, p, w, b, t, scratch, position):  # type: ignore[no-untyped-def]
    """Append the spikes of a source population in this block and step; returns the new length."""
    low, high = layout.bounds[p, b], layout.bounds[p, b + 1]
    first_id = layout.first_id[p]
    ids = scratch.ids[b]
    if layout.kind[p] == LIST_SOURCE:
        at, end = lists.cursor[p, b], lists.start[p, b + 1]
        while at < end and lists.step[at] <= t:
            if lists.step[at] == t:
                ids[position] = first_id + lists.neuron[at]
                position += 1
            at += 1
        lists.cursor[p, b] = at
        return position
    q = drives.first[p]
    thresholds = drives.thresholds[drives.threshold_start[q] : drives.threshold_start[q + 1]]
    key = stream(drives.key[q], np.uint64(t))
    for first in range(low, high, TILE):
        n = min(TILE, high - first)
        draw_counts(key, first, n, scratch.words[w], scratch.counts[w], drives.base[q], thresholds)
        for i in range(n):
            if scratch.counts[w, i] > 0:
                ids[position] = first_id + first + i
                position += 1
    return position


@njit_views
def sample(samplers, b, t, step, state):  # type: ignore[no-untyped-def]
    """Copy recorded states of block b at step t; ``step`` is the step at which this call of the run loop began."""
    for k in range(samplers.population.shape[0]):
        interval = samplers.interval[k]
        if t % interval == 0:
            index = t // interval - step // interval - 1
            out = samplers.out_start[k] + index * samplers.width[k]
            for e in range(samplers.start[k, b], samplers.start[k, b + 1]):
                samplers.out[out + samplers.column[e]] = state[samplers.position[e] + samplers.row[k] * TILE]


@njit_views
def merge_lists(scratch, reader, m, step, log_step, log_id, position, counts):  # type: ignore[no-untyped-def]
    """Append the blocks' spikes in the order step, population, neuron, whatever the number of blocks."""
    blocks, _, populations = scratch.segments.shape
    cursor = scratch.cursor[reader]
    cursor[:] = 0
    for j in range(m):
        for p in range(populations):
            for b in range(blocks):
                n = scratch.segments[b, j, p]
                at = cursor[b]
                for i in range(n):
                    log_id[position + i] = scratch.ids[b, at + i]
                    log_step[position + i] = step + j + 1
                position += n
                cursor[b] = at + n
                counts[p] += n
    return position
