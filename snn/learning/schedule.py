"""The order in which layers update their states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch

from snn.errors import closest

Schedule = Literal["top_down", "bottom_up", "up_and_down", "odd_even", "even_odd", "random", "parallel"]


def updates(schedule: str, top: int, sweeps: int, generator: torch.Generator | None = None) -> Iterator[list[int]]:
    """Yield groups of layers 1..top; the layers of a group update together, from the states before the group.

    - top_down: top, ..., 1. One sweep carries the error through the whole network.
    - bottom_up: 1, ..., top. Each sweep carries the error one layer down, so it takes sweeps >= top.
    - up_and_down: top, ..., 2, then (sweeps - 1) times 1, ..., top, ..., 1 (each end once), then 1.
    - odd_even, even_odd: all layers of one parity, then of the other.
    - random: sweeps * top layers, drawn uniformly.
    - parallel: all layers at once.

    Args:
        schedule: one of the names above.
        top: number of layers.
        sweeps: how often the order is run through, >= 1.
        generator: for "random".
    Raises: ValueError for an unknown schedule or sweeps < 1.

    >>> [group for group in updates("top_down", 3, 1)]
    [[3], [2], [1]]
    >>> [group for group in updates("odd_even", 3, 1)]
    [[1, 3], [2]]
    """
    if schedule not in get_args(Schedule):
        raise ValueError(f"schedule: unknown {schedule!r}{closest(schedule, get_args(Schedule))}")
    if sweeps < 1:
        raise ValueError(f"sweeps must be >= 1, got {sweeps}")
    up, down = [[k] for k in range(1, top + 1)], [[k] for k in range(top, 0, -1)]
    odd, even = list(range(1, top + 1, 2)), list(range(2, top + 1, 2))
    if schedule == "random":
        for k in torch.randint(1, top + 1, (sweeps * top,), generator=generator).tolist():
            yield [k]
    elif schedule == "up_and_down":
        yield from down[:-1]
        for _ in range(sweeps - 1):
            yield from up[:-1]
            yield from down[:-1]
        yield [1]
    else:
        orders = {
            "top_down": down,
            "bottom_up": up,
            "odd_even": [odd, even],
            "even_odd": [even, odd],
            "parallel": [list(range(1, top + 1))],
        }
        for _ in range(sweeps):
            yield from (group for group in orders[schedule] if group)
