"""Runs a kernel over ranges of neurons on a pool of threads.

Kernels release the interpreter lock. Threads take the next range when they are done with one, so a busy core does not
hold the others up; neurons do not interact, so results do not depend on who computed what. Numba's own parallel loops
are not used: their fork and threading-layer rules would become the user's, and they share no cores with torch's pool.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

SMALLEST_SHARE = 1 << 15  # neuron steps; below, starting a thread costs more than it saves
LANES = 64  # ranges start at multiples of this, so that two threads never write to one cache line

_pool: ThreadPoolExecutor | None = None
_pool_size = 0


def _forget_pool() -> None:
    global _pool, _pool_size
    _pool, _pool_size = None, 0


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)  # threads do not survive a fork


def _executor(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < size:
        _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="spikeloop"), size
    return _pool


def ranges(neurons: int, steps: int, threads: int, width: int) -> list[tuple[int, int]]:
    """Splits `neurons` into the ranges that threads take one by one; one range if the work is small."""
    threads = min(threads, max(1, neurons * steps // SMALLEST_SHARE))
    if threads == 1:
        return [(0, neurons)]
    share = -(-neurons // threads)
    size = min(share, width) if share < 4 * width else -(-share // 4)
    size = -(-size // LANES) * LANES
    return [(first, min(first + size, neurons)) for first in range(0, neurons, size)]


def run(work: Callable[[list[tuple[int, int]]], None], pieces: list[tuple[int, int]], threads: int) -> None:
    """Calls `work` with an iterator over the pieces, once in this thread and in up to `threads - 1` others."""
    if len(pieces) == 1 or threads == 1:
        work(pieces)
        return
    counter = itertools.count()

    def remaining():  # type: ignore[no-untyped-def]
        while (k := next(counter)) < len(pieces):
            yield pieces[k]

    helpers = min(threads, len(pieces)) - 1
    waiting = [_executor(helpers).submit(work, remaining()) for _ in range(helpers)]
    work(remaining())
    for future in waiting:
        future.result()
