"""Lists of events: from dense rows, to dense rows, moved and merged."""

from __future__ import annotations

from neuromorphic.engine.kernels.views import njit_views


@njit_views
def scan(dense, n, places, moved, ids, values):  # type: ignore[no-untyped-def]
    """Lists the entries of `dense` that are not zero; returns (how many, 1 if a value is not 1)."""
    count = 0
    for i in range(n):
        ids[count] = i
        count += dense[i] != 0
    valued = 0
    for k in range(count):
        value = dense[ids[k]]
        values[k] = value
        valued |= value != 1
    if moved:
        for k in range(count):
            ids[k] = places[ids[k]]
    return count, valued


@njit_views
def take_events(source_ids, source_values, first, last, places, moved, ids, values):  # type: ignore[no-untyped-def]
    """Copies given events into a list; returns (how many, 1 if a value is not 1)."""
    valued = 0
    for k in range(first, last):
        i = source_ids[k]
        ids[k - first] = places[i] if moved else i
        values[k - first] = source_values[k]
        valued |= source_values[k] != 1
    return last - first, valued


@njit_views
def move_list(ids, values, count, valued, places, moved, gain, to_ids, to_values, position):  # type: ignore[no-untyped-def]
    """Appends events at their new places (a place of -1 drops them); returns the new length."""
    for k in range(count):
        i = ids[k]
        place = places[i] if moved else i
        if place >= 0:
            to_ids[position] = place
            to_values[position] = gain * values[k] if valued else gain
            position += 1
    return position


@njit_views
def move_buffer(source, n, places, moved, out):  # type: ignore[no-untyped-def]
    """out[place of i] += source[i]; a place of -1 drops it."""
    if not moved:
        for i in range(n):
            out[i] += source[i]
        return
    for i in range(n):
        place = places[i]
        if place >= 0:
            out[place] += source[i]


@njit_views
def delay_events(ring, n, length, now, steps, ids, values, count, valued, to_ids, to_values):  # type: ignore[no-untyped-def]
    """Puts events into the ring `steps` of their place ahead, then lists and clears the slot of this step."""
    for k in range(count):
        i = ids[k]
        slot = (now + steps[i]) % length
        ring[slot * n + i] += values[k] if valued else 1
    due = ring[now % length * n : now % length * n + n]
    number, any_value = scan(due, n, steps, False, to_ids, to_values)
    for k in range(number):
        due[to_ids[k]] = 0
    return number, any_value
