"""Worker threads: how many, and how they run the compiled loop side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

import numba

_LARGE = 20_000  # neurons from which more than one thread pays


def choose(threads: int | None, neurons: int) -> int:
    """The number asked for, or the cores of the machine for large networks."""
    if threads is None:
        return (os.cpu_count() or 1) if neurons >= _LARGE else 1
    return threads


def on_all(loop: Callable[..., Any], count: int, arguments: Sequence[Any]) -> Any:
    """loop(b, *arguments) for b in 0..count-1, each in its own thread; returns the result of b = 0.

    The loop releases the interpreter lock. Compilation happens before the first thread starts.
    """
    if count == 1:
        return loop(0, *arguments)
    loop.compile(tuple(numba.typeof(a) for a in (0, *arguments)))  # type: ignore[attr-defined]
    others = [Thread(target=loop, args=(b, *arguments), daemon=True) for b in range(1, count)]
    for thread in others:
        thread.start()
    result = loop(0, *arguments)
    for thread in others:
        thread.join()
    return result


@contextmanager
def limited(threads: int) -> Iterator[None]:
    """Let Numba's parallel loops of the build use at most ``threads`` threads; restores the caller's number."""
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    try:
        yield
    finally:
        numba.set_num_threads(before)
