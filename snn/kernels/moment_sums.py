"""Numba kernel of the membrane statistics. Imported on first use: importing Numba is slow."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numba import njit

from snn.kernels import threads
from snn.kernels.moments import of_channels

Array = np.ndarray[Any, Any]
BLOCK = 2048  # lanes whose sums stay in the first-level cache


@njit(cache=True, nogil=True, error_model="numpy")
def lane_moments(rows: Array, first: int, last: int, mean: Array, spread: Array) -> None:  # pragma: no cover
    """mean and sum of squared deviations down each column (lane) of rows[:, first:last].

    Sums are of differences to the first row, so that a large common value costs no digits.
    """
    count = rows.shape[0]
    for low in range(first, last, BLOCK):
        high = min(low + BLOCK, last)
        origin, total, square = rows[0, low:high], mean[low:high], spread[low:high]
        for j in range(high - low):
            total[j] = 0
            square[j] = 0
        for k in range(1, count):
            row = rows[k, low:high]
            for j in range(high - low):
                distance = row[j] - origin[j]
                total[j] += distance
                square[j] += distance * distance
        for j in range(high - low):
            offset = total[j] / count
            square[j] -= offset * total[j]
            total[j] = origin[j] + offset


def channel_moments(h: torch.Tensor, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance of each channel of h [B, channels * inner], a contiguous CPU tensor."""
    rows = h.detach().reshape(h.shape[0], -1).numpy()
    mean, spread = np.empty((2, rows.shape[1]), rows.dtype)

    def work(pieces: Iterable[tuple[int, int]]) -> None:
        for first, last in pieces:
            lane_moments(rows, first, last, mean, spread)

    count = torch.get_num_threads()
    threads.run(work, threads.ranges(rows.shape[1], len(rows), count, BLOCK), count)
    return of_channels(mean, spread, len(rows), channels)
