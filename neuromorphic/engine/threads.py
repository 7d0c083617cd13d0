"""Worker threads: how many, and how they run the compiled loop side by side."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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


def on_parts(kernel: Callable[..., Any], parts: int, threads: int, *arguments: Any) -> None:
    """kernel(part, *arguments) for every part, on a pool of threads; the kernel releases the interpreter lock."""
    if threads == 1:
        for part in range(parts):
            kernel(part, *arguments)
        return
    kernel(0, *arguments)  # compiles before the pool starts
    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(kernel, part, *arguments) for part in range(1, parts)]:
            done.result()
