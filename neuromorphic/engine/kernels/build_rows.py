"""Parallel generation of synapses straight into rows by source; every row has its own random streams."""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from neuromorphic.engine.kernels.counter_rng import GOLDEN, below, mix, stream, unit

ALL_TO_ALL, ONE_TO_ONE, PROBABILITY, OUT_DEGREE, OUT_DEGREE_DISTINCT, GAUSSIAN, EXPONENTIAL, LISTED = range(8)
_CONSTANT, _NORMAL, _CLIPPED_NORMAL, _LOG_NORMAL, _UNIFORM = range(5)
_TWO_PI = 2.0 * np.pi
_TARGETS, _VALUES = np.uint64(0), np.uint64(1)


@njit(cache=True, error_model="numpy")
def row_targets(kind, s, n_post, number, skip_self, key, pre_xyz, post_xyz, shape, out, mark):  # type: ignore[no-untyped-def]
    """Write the targets of source s to ``out``; returns their count.

    number: out-degree or, for PROBABILITY, p. shape: [p_max, length, cutoff] of distance rules. mark [n_post] int64 is
    scratch that holds s + 1 for targets already taken (distinct draws).
    """
    words = stream(stream(key, np.uint64(s)), _TARGETS)
    if kind == ONE_TO_ONE:
        out[0] = s
        return 1
    if kind == ALL_TO_ALL:
        count = 0
        for t in range(n_post):
            if not (skip_self and t == s):
                out[count] = t
                count += 1
        return count
    if kind == PROBABILITY:
        count = 0
        if number <= 0.0:
            return 0
        scale = 1.0 / np.log1p(-number) if number < 1.0 else 0.0
        t = -1
        while True:
            words += GOLDEN
            gap = np.floor(np.log(unit(mix(words))) * scale)
            if gap >= n_post:
                return count
            t += 1 + np.int64(gap)
            if t >= n_post:
                return count
            if not (skip_self and t == s):
                out[count] = t
                count += 1
    if kind in (OUT_DEGREE, OUT_DEGREE_DISTINCT):
        count, wanted = 0, np.int64(number)
        while count < wanted:
            words += GOLDEN
            t = below(mix(words), n_post)
            if skip_self and t == s:
                continue
            if kind == OUT_DEGREE_DISTINCT:
                if mark[t] == s + 1:
                    continue
                mark[t] = s + 1
            out[count] = t
            count += 1
        return count
    count = 0
    for t in range(n_post):
        words += GOLDEN
        dx = pre_xyz[s, 0] - post_xyz[t, 0]
        dy = pre_xyz[s, 1] - post_xyz[t, 1]
        dz = pre_xyz[s, 2] - post_xyz[t, 2]
        squared = dx * dx + dy * dy + dz * dz
        if squared > shape[2] * shape[2] or (skip_self and t == s):
            continue
        if kind == GAUSSIAN:
            p = shape[0] * np.exp(-0.5 * squared / (shape[1] * shape[1]))
        else:
            p = shape[0] * np.exp(-np.sqrt(squared) / shape[1])
        if unit(mix(words)) < p:
            out[count] = t
            count += 1
    return count


@njit(cache=True, error_model="numpy")
def draw_pair(words, weight, delay):  # type: ignore[no-untyped-def]
    """One weight and one delay in ms; returns them with the advanced stream. Redraws come from the same stream."""
    normal_w, normal_d = 0.0, 0.0
    if weight[0] != _CONSTANT or delay[0] != _CONSTANT:
        words += GOLDEN
        radius = np.sqrt(-2.0 * np.log(unit(mix(words))))
        words += GOLDEN
        angle = _TWO_PI * unit(mix(words))
        normal_w, normal_d = radius * np.cos(angle), radius * np.sin(angle)
    w, words = _value(words, weight, normal_w)
    d, words = _value(words, delay, normal_d)
    return w, d, words


@njit(cache=True, error_model="numpy")
def _value(words, spec, normal):  # type: ignore[no-untyped-def]
    """A number of the distribution ``spec``; the first try uses the given standard normal."""
    kind = spec[0]
    if kind == _CONSTANT:
        return spec[1], words
    if kind == _UNIFORM:
        words += GOLDEN
        return spec[1] + (spec[2] - spec[1]) * unit(mix(words)), words
    while True:
        value = spec[1] + spec[2] * normal
        if kind == _LOG_NORMAL:
            value = np.exp(value)
        if kind == _CLIPPED_NORMAL:
            return min(max(value, spec[3]), spec[4]), words
        if value >= spec[3] and value <= spec[4]:
            return value, words
        words += GOLDEN
        radius = np.sqrt(-2.0 * np.log(unit(mix(words))))
        words += GOLDEN
        normal = radius * np.cos(_TWO_PI * unit(mix(words)))


@njit(cache=True, error_model="numpy")
def delay_steps(delay_ms, h):  # type: ignore[no-untyped-def]
    """Grid steps of a delay: rounded, ties upward, at least one."""
    return max(np.int64(np.floor(delay_ms / h + 0.5 + 1e-9)), np.int64(1))


@njit(cache=True, parallel=True, error_model="numpy")
def count_rows(kind, n_pre, n_post, number, skip_self, key, pre_xyz, post_xyz, shape, parts):  # type: ignore[no-untyped-def]
    """[n_pre] int64 synapses of each source, for rules whose out-degree is random."""
    counts = np.zeros(n_pre, dtype=np.int64)
    for part in prange(parts):
        out = np.empty(n_post, dtype=np.int32)
        mark = np.zeros(1, dtype=np.int64)
        for s in range(n_pre * part // parts, n_pre * (part + 1) // parts):
            counts[s] = row_targets(kind, s, n_post, number, skip_self, key, pre_xyz, post_xyz, shape, out, mark)
    return counts


@njit(cache=True, parallel=True, error_model="numpy")
def fill_rows(  # type: ignore[no-untyped-def]
    kind, counts, n_post, p, skip_self, key, pre_xyz, post_xyz, shape, listed, listed_order,
    weight, delay, weight_list, delay_list, store_weights, signed, absolute, cells, total_cells, h,
    write_at, offsets, weights, parts,
):  # fmt: skip
    """Write every row of a projection whose sources generate their own targets.

    counts [n_pre] synapses of each row; write_at [n_pre] first element in ``offsets``. A synapse is written as
    delay * total_cells + cell; ``finish_rows`` turns it into its place in the ring. signed: negative weights use
    cells[1]. Returns the longest and shortest delay in steps and the number of synapses that do not fit 32 bits.
    """
    n_pre = counts.shape[0]
    longest = np.zeros(parts, dtype=np.int64)
    shortest = np.full(parts, np.int64(2**62))
    too_far = np.zeros(parts, dtype=np.int64)
    first = np.zeros(n_pre + 1, dtype=np.int64)
    first[1:] = np.cumsum(counts)
    for part in prange(parts):
        low, high = n_pre * part // parts, n_pre * (part + 1) // parts
        size = 1
        for s in range(low, high):
            size = max(size, counts[s])
        out = np.empty(max(size, n_post) if kind == PROBABILITY else size, dtype=np.int32)
        mark = np.zeros(n_post if kind == OUT_DEGREE_DISTINCT else 1, dtype=np.int64)
        for s in range(low, high):
            n = counts[s]
            if n == 0:
                continue
            if kind != LISTED:
                number = p if kind == PROBABILITY else np.float64(n)
                row_targets(kind, s, n_post, number, skip_self, key, pre_xyz, post_xyz, shape, out, mark)
            words = stream(stream(key, np.uint64(s)), _VALUES)
            for k in range(n):
                w, d, words = draw_pair(words, weight, delay)
                if kind == LISTED:
                    entry = listed_order[first[s] + k]
                    target = np.int64(listed[entry])
                    if weight_list.shape[0]:
                        w = weight_list[entry]
                    if delay_list.shape[0]:
                        d = delay_list[entry]
                else:
                    target = np.int64(out[k])
                steps = delay_steps(d, h)
                longest[part] = max(longest[part], steps)
                shortest[part] = min(shortest[part], steps)
                packed = steps * total_cells + cells[1 if signed and w < 0.0 else 0, target]
                if packed >= 2**32:
                    too_far[part] += 1
                at = write_at[s] + k
                offsets[at] = np.uint32(packed)
                if store_weights:
                    weights[at] = abs(w) if absolute else w
    return longest.max(), shortest.min(), too_far.sum()


@njit(cache=True, error_model="numpy")
def _indegree_sources(t, n_pre, k, skip_self, distinct, key, out, mark):  # type: ignore[no-untyped-def]
    """The k sources of target t; mark [n_pre] as in ``row_targets``."""
    words = stream(stream(key, np.uint64(t)), _TARGETS)
    count = 0
    while count < k:
        words += GOLDEN
        s = below(mix(words), n_pre)
        if skip_self and s == t:
            continue
        if distinct:
            if mark[s] == t + 1:
                continue
            mark[s] = t + 1
        out[count] = s
        count += 1


@njit(cache=True, parallel=True, error_model="numpy")
def count_indegree(n_pre, n_post, k, skip_self, distinct, key, parts):  # type: ignore[no-untyped-def]
    """[parts, n_pre] int32 synapses of each source within each part of the targets."""
    counts = np.zeros((parts, n_pre), dtype=np.int32)
    for part in prange(parts):
        out = np.empty(k, dtype=np.int32)
        mark = np.zeros(n_pre if distinct else 1, dtype=np.int64)
        for t in range(n_post * part // parts, n_post * (part + 1) // parts):
            _indegree_sources(t, n_pre, k, skip_self, distinct, key, out, mark)
            for j in range(k):
                counts[part, out[j]] += np.int32(1)
    return counts


@njit(cache=True, parallel=True, error_model="numpy")
def fill_indegree(  # type: ignore[no-untyped-def]
    n_pre, n_post, k, skip_self, distinct, key, weight, delay, store_weights, signed, absolute, cells, total_cells, h,
    write_at, offsets, weights,
):  # fmt: skip
    """As ``fill_rows`` for a fixed in-degree; write_at [parts, n_pre] int64 is advanced."""
    parts = write_at.shape[0]
    longest = np.zeros(parts, dtype=np.int64)
    shortest = np.full(parts, np.int64(2**62))
    too_far = np.zeros(parts, dtype=np.int64)
    for part in prange(parts):
        out = np.empty(k, dtype=np.int32)
        mark = np.zeros(n_pre if distinct else 1, dtype=np.int64)
        for t in range(n_post * part // parts, n_post * (part + 1) // parts):
            _indegree_sources(t, n_pre, k, skip_self, distinct, key, out, mark)
            words = stream(stream(key, np.uint64(t)), _VALUES)
            for j in range(k):
                w, d, words = draw_pair(words, weight, delay)
                steps = delay_steps(d, h)
                longest[part] = max(longest[part], steps)
                shortest[part] = min(shortest[part], steps)
                packed = steps * total_cells + cells[1 if signed and w < 0.0 else 0, t]
                if packed >= 2**32:
                    too_far[part] += 1
                at = write_at[part, out[j]]
                write_at[part, out[j]] += 1
                offsets[at] = np.uint32(packed)
                if store_weights:
                    weights[at] = abs(w) if absolute else w
    return longest.max(), shortest.min(), too_far.sum()
