"""One instruction of the event network on its flat memory; neuron updates are generated beside it.

`program` holds one row per instruction; `lists` holds (start, capacity, count, valued) for each event list, whose places
are in `places` and values in `values`; `state` holds buffers, membranes and caches; `weights` never changes.
"""

from __future__ import annotations

from neuromorphic.compiler.kernels.delivery import (
    deliver_conv,
    deliver_conv_general,
    deliver_delayed,
    deliver_dense,
    deliver_diagonal,
    deliver_pool,
    max_pool_list,
    max_pool_values,
)
from neuromorphic.compiler.kernels.lists import delay_events, move_buffer, move_list, scan, take_events
from neuromorphic.engine.kernels.views import njit_views

# Instructions; those from NEURON on are layers of neurons.
INPUT, FILL, DENSE, CONV, CONV_GENERAL, POOL, DIAGONAL = 0, 1, 2, 3, 4, 5, 6
MOVE_LIST, SCAN, MOVE_BUFFER, AFFINE_BUFFER, MAX_POOL_LIST, MAX_POOL_BUFFER = 7, 8, 9, 10, 11, 12
OUTPUT_LIST, OUTPUT_BUFFER, DELAY, DELAYED_DENSE = 13, 14, 15, 16
NEURON = 100

# Columns of a row; 4 to 17 hold the geometry of convolutions and pooling in the order that the kernels read.
OP, SOURCE, TARGET, SIZE = 0, 1, 2, 3
GEOMETRY = 4
WEIGHTS, WEIGHTS_SIZE, TABLE, TABLE_SIZE, CACHE, GAIN, EXTRA, MARKS, MARKS_SIZE = 18, 19, 20, 21, 22, 23, 24, 25, 26
OWN = 27  # first column that belongs to the kind of neuron
# Columns of `lists`.
START, CAPACITY, COUNT, VALUED = 0, 1, 2, 3


@njit_views
def deliver(row, out, weights, places, values, lists):  # type: ignore[no-untyped-def]
    """Adds what the events of a list send through the row's connection to `out`; returns the number of additions."""
    source = row[SOURCE]
    start, count, valued = lists[source, START], lists[source, COUNT], lists[source, VALUED]
    if count == 0:
        return 0
    ids, numbers = places[start : start + count], values[start : start + count]
    own = weights[row[WEIGHTS] : row[WEIGHTS] + row[WEIGHTS_SIZE]]
    table = places[row[TABLE] : row[TABLE] + row[TABLE_SIZE]]
    op = row[OP]
    if op == DENSE:
        return deliver_dense(out, own, row[SIZE], ids, numbers, count, valued)
    if op == CONV:
        marks = places[row[MARKS] : row[MARKS] + row[MARKS_SIZE]]
        touched = places[row[MARKS] + row[MARKS_SIZE] : row[MARKS] + 2 * row[MARKS_SIZE] + 1]
        return deliver_conv(row, out, own, table, ids, numbers, count, valued, marks, touched)
    if op == CONV_GENERAL:
        return deliver_conv_general(row, out, own, ids, numbers, count, valued)
    if op == POOL:
        return deliver_pool(row, out, weights[row[GAIN]], ids, numbers, count, valued)
    n = row[WEIGHTS_SIZE]
    return deliver_diagonal(out, own, n, table, row[TABLE_SIZE] > 0, ids, numbers, count, valued, weights[row[GAIN]])


@njit_views
def set_list(lists, k, count, valued):  # type: ignore[no-untyped-def]
    """Writes the length and kind of a list."""
    lists[k, COUNT] = count
    lists[k, VALUED] = valued


@njit_views
def connection(row, t, repeated, state, weights, places, values, lists):  # type: ignore[no-untyped-def]
    """A connection into its buffer; what a repeated input sends is computed at the first step only."""
    n = row[SIZE]
    out = state[row[TARGET] : row[TARGET] + n]
    if not repeated or row[CACHE] < 0:
        return deliver(row, out, weights, places, values, lists)
    cache = state[row[CACHE] : row[CACHE] + n]
    adds = 0
    if t == 0:
        for j in range(n):
            cache[j] = 0
        adds = deliver(row, cache, weights, places, values, lists)
    for j in range(n):
        out[j] += cache[j]
    return adds


@njit_views
def delayed_connection(row, clock, state, weights, places, values, lists):  # type: ignore[no-untyped-def]
    """A connection with a delay per synapse; returns the number of additions.

    Column CACHE names 2 * length rows of sums for the steps ahead. The present one moves down them, and after `length`
    steps the lower half comes up, so that no place has to be wrapped round.
    """
    n, length, source = row[SIZE], row[EXTRA], row[SOURCE]
    start, count, valued = lists[source, START], lists[source, COUNT], lists[source, VALUED]
    ids, numbers = places[start : start + count], values[start : start + count]
    own = weights[row[WEIGHTS] : row[WEIGHTS] + row[WEIGHTS_SIZE]]
    table = places[row[TABLE] : row[TABLE] + row[TABLE_SIZE]]
    half = n * length
    rows = state[row[CACHE] : row[CACHE] + 2 * half]
    now = clock % length * n
    if now == 0:
        for j in range(half):
            rows[j] = rows[half + j]
            rows[half + j] = 0
    adds = deliver_delayed(rows[now : now + half], own, table, n, ids, numbers, count, valued)
    due, out = rows[now : now + n], state[row[TARGET] : row[TARGET] + n]
    for j in range(n):
        out[j] += due[j]
    return adds


@njit_views
def between_lists(row, clock, state, weights, places, values, lists):  # type: ignore[no-untyped-def]
    """Instructions that make a list from a list; returns the number of elementary operations."""
    op = row[OP]
    source, target = row[SOURCE], row[TARGET]
    start, count, valued = lists[source, START], lists[source, COUNT], lists[source, VALUED]
    ids, numbers = places[start : start + count], values[start : start + count]
    first, last = lists[target, START], lists[target, START] + lists[target, CAPACITY]
    to_ids, to_values = places[first:last], values[first:last]
    table = places[row[TABLE] : row[TABLE] + row[TABLE_SIZE]]
    if op == MOVE_LIST:
        before = lists[target, COUNT] if row[EXTRA] else 0
        earlier = lists[target, VALUED] if row[EXTRA] else 0
        gain = weights[row[GAIN]]
        now = move_list(ids, numbers, count, valued, table, row[TABLE_SIZE] > 0, gain, to_ids, to_values, before)
        # Values are written in any case, so a list may become valued by what is appended to it.
        set_list(lists, target, now, 1 if earlier or valued or gain != 1 else 0)
        return count
    if op == MAX_POOL_LIST:
        marks = places[row[MARKS] : row[MARKS] + row[MARKS_SIZE]]
        number, tests = max_pool_list(row, marks, ids, count, to_ids)
        set_list(lists, target, number, 0)
        for k in range(number):
            to_values[k] = 1
        return tests
    n, length = row[SIZE], row[EXTRA]
    ring = state[row[WEIGHTS] : row[WEIGHTS] + n * length]
    number, any_value = delay_events(ring, n, length, clock, table, ids, numbers, count, valued, to_ids, to_values)
    set_list(lists, target, number, any_value)
    return count


@njit_views
def output(row, state, weights, places, values, lists, out):  # type: ignore[no-untyped-def]
    """Writes a layer's values into its columns of `out`, in torch's order of features."""
    n = row[SIZE]
    columns = out[row[TARGET] : row[TARGET] + n]
    table = places[row[TABLE] : row[TABLE] + row[TABLE_SIZE]]
    moved = row[TABLE_SIZE] > 0
    if row[OP] == OUTPUT_BUFFER:
        source = state[row[SOURCE] : row[SOURCE] + n]
        for i in range(n):
            columns[table[i] if moved else i] = source[i]
        return
    for i in range(n):
        columns[i] = 0
    k = row[SOURCE]
    start, count, valued = lists[k, START], lists[k, COUNT], lists[k, VALUED]
    ids, numbers = places[start : start + count], values[start : start + count]
    deliver_diagonal(columns, numbers[:0], 0, table, moved, ids, numbers, count, valued, weights[row[GAIN]])


@njit_views
def on_buffers(row, state, weights, places, values, lists):  # type: ignore[no-untyped-def]
    """Instructions that read or write dense values; returns the number of elementary operations."""
    op, n = row[OP], row[SIZE]
    if op == FILL:
        out, base = state[row[TARGET] : row[TARGET] + n], weights[row[WEIGHTS] : row[WEIGHTS] + n]
        for j in range(n):
            out[j] = base[j]
        return 0
    source = state[row[SOURCE] : row[SOURCE] + n]
    table = places[row[TABLE] : row[TABLE] + row[TABLE_SIZE]]
    if op == SCAN:
        k = row[TARGET]
        first, last = lists[k, START], lists[k, START] + lists[k, CAPACITY]
        count, valued = scan(source, n, table, row[TABLE_SIZE] > 0, places[first:last], values[first:last])
        set_list(lists, k, count, valued)
        return 0
    if op == MOVE_BUFFER:
        move_buffer(source, n, table, row[TABLE_SIZE] > 0, state[row[TARGET] : row[TARGET] + row[EXTRA]])
        return n
    if op == AFFINE_BUFFER:
        scale, shift = weights[row[WEIGHTS] : row[WEIGHTS] + n], weights[row[EXTRA] : row[EXTRA] + n]
        for j in range(n):
            source[j] = source[j] * scale[j] + shift[j]
        return n
    return max_pool_values(row, source, state[row[TARGET] : row[TARGET] + row[EXTRA]])


@njit_views
def read_input(row, t, x, given_ids, given_values, bounds, places, values, lists):  # type: ignore[no-untyped-def]
    """The list of the input's entries at this step, from dense rows or from given events."""
    k = row[TARGET]
    first, last = lists[k, START], lists[k, START] + lists[k, CAPACITY]
    ids, numbers = places[first:last], values[first:last]
    table = places[row[TABLE] : row[TABLE] + row[TABLE_SIZE]]
    moved = row[TABLE_SIZE] > 0
    if x.shape[0] == 0:
        count, valued = take_events(given_ids, given_values, bounds[t], bounds[t + 1], table, moved, ids, numbers)
    else:
        count, valued = scan(x[t], row[SIZE], table, moved, ids, numbers)
    set_list(lists, k, count, valued)
