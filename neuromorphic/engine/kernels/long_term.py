"""Spike-timing dependent plasticity, touched at presynaptic spikes only (lazy), per target block.

Every post neuron keeps a ring of its last H spikes with its trace after each; a synapse catches up on the post spikes it
has missed when its source fires. Histories never overflow: when a neuron has filled its ring since the last flush, all
synapses catch up at once. The decision uses the spikes of all blocks, so it does not depend on the number of threads.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from neuromorphic.engine.kernels.views import njit_views
from neuromorphic.engine.plasticity import POWER_LAW, REWARD, TRIPLET

TABLE = 4096  # steps covered by the decay tables; later values are computed
PLUS, MINUS, SECOND_PRE, SECOND_POST, ELIGIBILITY = range(5)
RATE, ALPHA, W_MAX, MU_PLUS, MU_MINUS, NEAREST, A2_PLUS, A3_PLUS, A2_MINUS, A3_MINUS = range(10)


class Plastic(NamedTuple):
    """State of all plastic projections. M projections, one table each; T blocks."""

    table: np.ndarray  # [M] table
    rule: np.ndarray  # [M]
    numbers: np.ndarray  # [M, 10] parameters
    tau: np.ndarray  # [M, 5] time constants in steps, infinite where unused
    decay: np.ndarray  # [M, 5, TABLE] exp(-k / tau)
    first_synapse: np.ndarray  # [M] first synapse of the table
    first_entry: np.ndarray  # [M] its place in target, delay and eligibility
    target: np.ndarray  # [S] neuron of the post population
    delay: np.ndarray  # [S] steps
    eligibility: np.ndarray  # [S] float64 at the time ``done`` of the row; empty without reward rules
    pre: np.ndarray  # [M, 3] first id, size, first place in the source arrays
    post: np.ndarray  # [M, 3] first id, size, first place in the target arrays
    last: np.ndarray  # [T, sources] step of the last spike, -1 before the first
    done: np.ndarray  # [T, sources] post spikes that reached the synapse by this step are accounted for
    trace: np.ndarray  # [T, sources, 2] pre traces just after the last spike
    fill: np.ndarray  # [T, targets] spikes since the last flush, an upper bound of the history in use
    spikes: np.ndarray  # [targets] spikes so far
    step: np.ndarray  # [targets, H] history: step
    mark: np.ndarray  # [targets, H] post trace just after the spike
    second: np.ndarray  # [targets, H] slow post trace just before the spike
    longest: np.ndarray  # [M] longest delay in steps


@njit_views
def _decay(plastic, m, which, steps):  # type: ignore[no-untyped-def]
    """exp(-steps / tau) of trace ``which``."""
    if steps < TABLE:
        return plastic.decay[m, which, steps]
    return np.exp(-steps / plastic.tau[m, which])


@njit_views
def _power(x, exponent):  # type: ignore[no-untyped-def]
    if exponent == 0.0:
        return 1.0
    if exponent == 1.0:
        return x
    return x**exponent


@njit_views
def _potentiated(w, k, slow, rule, q):  # type: ignore[no-untyped-def]
    """Weight after a post spike that meets pre trace k; slow is the slow post trace just before it."""
    if rule == POWER_LAW:
        return w + q[RATE] * _power(w, q[MU_PLUS]) * k
    if rule == TRIPLET:
        return min(w + k * (q[A2_PLUS] + q[A3_PLUS] * slow), q[W_MAX])
    return min(w + q[RATE] * q[W_MAX] * _power(max(1.0 - w / q[W_MAX], 0.0), q[MU_PLUS]) * k, q[W_MAX])


@njit_views
def _depressed(w, k, slow, rule, q):  # type: ignore[no-untyped-def]
    """Weight after a pre spike that meets post trace k; slow is the slow pre trace just before it."""
    if rule == POWER_LAW:
        return max(w - q[RATE] * q[ALPHA] * w * k, 0.0)
    if rule == TRIPLET:
        return max(w - k * (q[A2_MINUS] + q[A3_MINUS] * slow), 0.0)
    return max(w - q[ALPHA] * q[RATE] * q[W_MAX] * _power(w / q[W_MAX], q[MU_MINUS]) * k, 0.0)


@njit_views
def _catch_up(b, m, s, j, until, tables, plastic):  # type: ignore[no-untyped-def]
    """Apply the post spikes that reached synapse j of source s after ``done`` and up to step ``until``."""
    entry = j - plastic.first_synapse[m] + plastic.first_entry[m]
    source = plastic.pre[m, 2] + s
    target = plastic.post[m, 2] + plastic.target[entry]
    d = np.int64(plastic.delay[entry])
    mask = plastic.step.shape[1] - 1  # the history length is a power of two
    done, last = plastic.done[b, source], plastic.last[b, source]
    rule = plastic.rule[m]
    newest = plastic.spikes[target]
    oldest = max(newest - mask - 1, 0)
    first = newest
    while first > oldest and plastic.step[target, (first - 1) & mask] + d > done:
        first -= 1
    w = np.float64(tables.weights[j])
    e = 0.0
    if rule == REWARD:
        e = plastic.eligibility[entry] * _decay(plastic, m, ELIGIBILITY, until - done)
    while first < newest:
        place = first & mask
        arrival = plastic.step[target, place] + d
        if arrival > until:
            break
        k = plastic.trace[b, source, 0] * _decay(plastic, m, PLUS, arrival - last)
        if rule == REWARD:
            e += k * _decay(plastic, m, ELIGIBILITY, until - arrival)
        else:
            w = _potentiated(w, k, plastic.second[target, place], rule, plastic.numbers[m])
        first += 1
    if rule == REWARD:
        plastic.eligibility[entry] = e
    else:
        tables.weights[j] = w
    return first  # one past the newest post spike that has reached the synapse


@njit_views
def _pre_spike(b, m, s, t, low, high, tables, plastic, ring, base, turn, end):  # type: ignore[no-untyped-def]
    """Bring the row of source s up to step t, depress it, and deliver its weights."""
    source = plastic.pre[m, 2] + s
    rule, mask = plastic.rule[m], plastic.step.shape[1] - 1
    last = plastic.last[b, source]
    fast = slow = 0.0
    if last >= 0:
        fast = plastic.trace[b, source, 0] * _decay(plastic, m, PLUS, t - last)
        slow = plastic.trace[b, source, 1] * _decay(plastic, m, SECOND_PRE, t - last)
    for j in range(low, high):
        entry = j - plastic.first_synapse[m] + plastic.first_entry[m]
        target = plastic.post[m, 2] + plastic.target[entry]
        d = np.int64(plastic.delay[entry])
        newest = _catch_up(b, m, s, j, t, tables, plastic)
        # Depression sees post spikes strictly before t - d.
        while newest > 0 and plastic.step[target, (newest - 1) & mask] + d >= t:
            newest -= 1
        if newest > 0:
            place = (newest - 1) & mask
            k = plastic.mark[target, place] * _decay(plastic, m, MINUS, t - d - plastic.step[target, place])
            if rule == REWARD:
                plastic.eligibility[entry] -= plastic.numbers[m, ALPHA] * k
            else:
                tables.weights[j] = _depressed(np.float64(tables.weights[j]), k, slow, rule, plastic.numbers[m])
        at = np.int64(tables.offsets[j]) + base
        ring[at - turn if at >= end else at] += tables.weights[j]
    plastic.trace[b, source, 0] = 1.0 if plastic.numbers[m, NEAREST] > 0.0 else fast + 1.0
    plastic.trace[b, source, 1] = slow + 1.0
    plastic.last[b, source] = t
    plastic.done[b, source] = t


@njit_views
def _post_spike(m, target, t, plastic):  # type: ignore[no-untyped-def]
    """Append a spike to the history of a post neuron."""
    mask = plastic.step.shape[1] - 1  # the history length is a power of two
    count = plastic.spikes[target]
    fast = slow = 0.0
    if count > 0:
        before = (count - 1) & mask
        gap = t - plastic.step[target, before]
        fast = plastic.mark[target, before] * _decay(plastic, m, MINUS, gap)
        slow = (plastic.second[target, before] + 1.0) * _decay(plastic, m, SECOND_POST, gap)
    place = count & mask
    plastic.step[target, place] = t
    plastic.mark[target, place] = 1.0 if plastic.numbers[m, NEAREST] > 0.0 else fast + 1.0
    plastic.second[target, place] = slow
    plastic.spikes[target] = count + 1


@njit_views(nogil=True)
def flush_block(b, m, until, chunk, layout, tables, plastic):  # type: ignore[no-untyped-def]
    """Bring all synapses of projection m onto block b up to step ``until``."""
    blocks = layout.block_cells.shape[0]
    pointers = tables.pointers[plastic.table[m]]
    for s in range(plastic.pre[m, 1]):
        source = plastic.pre[m, 2] + s
        if plastic.last[b, source] >= 0:
            row = (plastic.pre[m, 0] + s) * blocks + b
            for j in range(pointers[row], pointers[row + 1]):
                _catch_up(b, m, s, j, until, tables, plastic)
        plastic.done[b, source] = max(until, plastic.done[b, source])
    first = plastic.post[m, 2]
    plastic.fill[b, first : first + plastic.post[m, 1]] = plastic.longest[m] + chunk


@njit_views
def deliver_plastic(b, now, chunk, layout, tables, plastic, ring, log_step, log_id, first, last):  # type: ignore[no-untyped-def]
    """Histories, weights and delivery of the spikes first..last-1 of the log, all later than step ``now``."""
    blocks = layout.block_cells.shape[0]
    slots, cells = layout.slots[0], layout.block_cells[b]
    turn = slots * cells
    end = layout.block_base[b] + turn
    mask = plastic.step.shape[1] - 1  # the history length is a power of two
    for m in range(plastic.table.shape[0]):
        begin, count, place = plastic.post[m, 0], plastic.post[m, 1], plastic.post[m, 2]
        full = False
        for q in range(first, last):
            i = log_id[q] - begin
            if i >= 0 and i < count:
                plastic.fill[b, place + i] += 1
                full |= plastic.fill[b, place + i] > mask - 1
        if full:
            flush_block(b, m, now, chunk, layout, tables, plastic)
            for q in range(first, last):
                i = log_id[q] - begin
                if i >= 0 and i < count:
                    plastic.fill[b, place + i] += 1
        p = np.searchsorted(layout.first_id, begin)
        low, high = layout.bounds[p, b], layout.bounds[p, b + 1]
        for q in range(first, last):
            i = log_id[q] - begin
            if i >= low and i < high:
                _post_spike(m, place + i, log_step[q], plastic)
        begin, count = plastic.pre[m, 0], plastic.pre[m, 1]
        pointers = tables.pointers[plastic.table[m]]
        for q in range(first, last):
            s = log_id[q] - begin
            if s >= 0 and s < count:
                row = np.int64(log_id[q]) * blocks + b
                base = (log_step[q] % slots) * cells
                _pre_spike(
                    b, m, s, log_step[q], pointers[row], pointers[row + 1], tables, plastic, ring, base, turn, end
                )
