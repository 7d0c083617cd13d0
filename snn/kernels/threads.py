"""Runs a kernel over ranges of neurons on several threads.

Kernels release the interpreter lock. Threads take the next range when they are done with one, so a busy core does not
hold the others up; neurons do not interact, so results do not depend on who computed what.

The threads are torch's own OpenMP team where its library can be reached: after each torch operation that team waits
spinning for the next one, and other threads would have to share the cores with it. Elsewhere, and in a forked process,
where an OpenMP team is dead, a pool of this module serves.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch

Piece = tuple[int, int]
Work = Callable[[Iterator[Piece]], None]

SMALLEST_SHARE = 1 << 15  # neuron steps; below, starting a thread costs more than it saves
TURNS = 2  # ranges for each thread, so that a thread on a busy core leaves work to the others
LONG_ROW = 4096  # neurons; shorter rows of memory are slow to stream
LANES = 64  # ranges start at multiples of this, so that two threads never write to one cache line

_OMP_BODY = ctypes.CFUNCTYPE(None, ctypes.c_void_p)

_pool: ThreadPoolExecutor | None = None
_pool_size = 0
_forked = False


def ranges(neurons: int, steps: int, threads: int, width: int) -> list[Piece]:
    """Splits `neurons` into the ranges that threads take one by one; one range if the work is small."""
    threads = min(threads, max(1, neurons * steps // SMALLEST_SHARE))
    if threads == 1:
        return [(0, neurons)]
    share = -(-neurons // threads)
    size = min(width, max(share // TURNS, min(share, LONG_ROW)))
    size = -(-size // LANES) * LANES
    return [(first, min(first + size, neurons)) for first in range(0, neurons, size)]


def run(work: Work, pieces: list[Piece], threads: int) -> None:
    """Calls `work` on up to `threads` threads, this one among them, each time with an iterator over the pieces left.

    Raises:
        Exception: the first one that `work` raised in any thread.
    """
    threads = min(threads, len(pieces))
    if threads == 1:
        work(iter(pieces))
        return
    counter = itertools.count()
    errors: list[BaseException] = []

    def remaining() -> Iterator[Piece]:
        while not errors and (k := next(counter)) < len(pieces):
            yield pieces[k]

    def guarded(_: object = None) -> None:
        try:
            work(remaining())
        except BaseException as error:  # a foreign thread has nobody to raise to
            errors.append(error)

    team = None if _forked else _torch_team()
    if team is not None:
        team(_OMP_BODY(guarded), None, threads, 0)
    else:
        waiting = [_executor(threads - 1).submit(guarded) for _ in range(threads - 1)]
        guarded()
        for future in waiting:
            future.result()
    if errors:
        raise errors[0]


def run_each(work: Callable[[int], None], count: int) -> None:
    """Calls work(k) for each k < count on torch's threads, without recording gradients.

    Raises:
        Exception: the first one that `work` raised in any thread.
    """

    def run_pieces(pieces: Iterator[Piece]) -> None:
        with torch.no_grad():  # the other threads have modes of their own
            for k, _ in pieces:
                work(k)

    run(run_pieces, [(k, k + 1) for k in range(count)], torch.get_num_threads())


@cache
def _torch_team() -> Callable[..., None] | None:
    """`GOMP_parallel(body, data, threads, flags)` of the OpenMP library that torch is linked with, or None."""
    if not sys.platform.startswith("linux") or not torch.backends.openmp.is_available():
        return None
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        team = library.GOMP_parallel  # looked up in torch's library and in those that it loads
    except (OSError, AttributeError):
        return None
    team.argtypes = [_OMP_BODY, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    team.restype = None
    return team


def _executor(size: int) -> ThreadPoolExecutor:
    global _pool, _pool_size
    if _pool is None or _pool_size < size:
        _pool, _pool_size = ThreadPoolExecutor(size, thread_name_prefix="spikeloop"), size
    return _pool


def _after_fork() -> None:
    global _pool, _pool_size, _forked
    _pool, _pool_size, _forked = None, 0, True  # threads do not survive a fork


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
