"""Second pass over the synapses: packed (delay, cell) becomes a ring offset, rows are sorted and cut into blocks."""

from __future__ import annotations

import numpy as np
from numba import njit

_SMALL = 48  # rows shorter than this are sorted by insertion


@njit(cache=True, error_model="numpy")
def _insertion_sort(keys, values):  # type: ignore[no-untyped-def]
    for i in range(1, keys.shape[0]):
        key, value = keys[i], values[i]
        j = i - 1
        while j >= 0 and keys[j] > key:
            keys[j + 1] = keys[j]
            values[j + 1] = values[j]
            j -= 1
        keys[j + 1] = key
        values[j + 1] = value


@njit(cache=True, error_model="numpy")
def _radix_sort(keys, values, other_keys, other_values, counts, top):  # type: ignore[no-untyped-def]
    """Stable sort by bytes of keys below ``top``; the result is in keys and values."""
    n = keys.shape[0]
    shift = np.uint32(0)
    passes = 0
    while shift < 32 and (np.uint64(top) >> np.uint64(shift)) > 0:
        counts[:] = 0
        for i in range(n):
            counts[(keys[i] >> shift) & np.uint32(255)] += 1
        total = 0
        for c in range(256):
            here = counts[c]
            counts[c] = total
            total += here
        for i in range(n):
            digit = (keys[i] >> shift) & np.uint32(255)
            at = counts[digit]
            counts[digit] = at + 1
            other_keys[at] = keys[i]
            other_values[at] = values[i]
        keys, other_keys = other_keys, keys
        values, other_values = other_values, values
        shift += np.uint32(8)
        passes += 1
    if passes % 2 == 1:
        other_keys[:] = keys
        other_values[:] = values


@njit(cache=True, error_model="numpy", nogil=True)
def finish_rows(  # type: ignore[no-untyped-def]
    part, starts, ends, rows, blocks, pointers, offsets, weights, has_weights, cell_edges, block_cells, block_base, slots, parts
):  # fmt: skip
    """Place, sort and cut one part of the rows of a table.

    starts, ends, rows [R]: first and last element of each row and its source; pointers [N * T + 1] receives the first
    element of (source, block), already filled with row starts. cell_edges [T + 1]: first global cell of each block.
    """
    total_cells = np.uint32(cell_edges[blocks])
    scale = blocks / cell_edges[blocks]
    n_rows = starts.shape[0]
    top = block_base[blocks - 1] + block_cells[blocks - 1] * slots
    low, high = n_rows * part // parts, n_rows * (part + 1) // parts
    size = 1
    for r in range(low, high):
        size = max(size, ends[r] - starts[r])
    other_keys = np.empty(size, dtype=np.uint32)
    order = np.empty(size, dtype=weights.dtype)
    blank = np.empty(0 if has_weights else size, dtype=weights.dtype)
    counts = np.empty(256, dtype=np.int64)
    for r in range(low, high):
        start, end = starts[r], ends[r]
        n = end - start
        keys = offsets[start:end]
        values = weights[start:end] if has_weights else blank[:n]
        for j in range(n):
            delay = keys[j] // total_cells
            cell = np.int64(keys[j] - delay * total_cells)
            b = np.int64(cell * scale)  # blocks are nearly equal: the guess is off by one at most times
            while cell < cell_edges[b]:
                b -= 1
            while cell >= cell_edges[b + 1]:
                b += 1
            keys[j] = np.uint32(block_base[b] + np.int64(delay) * block_cells[b] + cell - cell_edges[b])
        if n < _SMALL:
            _insertion_sort(keys, values)
        else:
            _radix_sort(keys, values, other_keys[:n], order[:n], counts, top)
        at, position = rows[r] * blocks, start
        for b in range(blocks):
            pointers[at + b] = position
            edge = block_base[b] + block_cells[b] * slots
            while position < end and np.int64(offsets[position]) < edge:
                # skip to the edge by halves
                a, z = position, end
                while a < z:
                    middle = (a + z) >> 1
                    if np.int64(offsets[middle]) < edge:
                        a = middle + 1
                    else:
                        z = middle
                position = a
