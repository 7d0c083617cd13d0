"""Large output tensors in recycled memory.

The C library hands large freed blocks back to the system, and the next call of the same layer then pays a page fault
for every 4 KiB that it writes; for a neuron layer that is more than the computation. Here the memory of a large output
returns to a small store when its last tensor is gone and serves the next output of that size.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

SMALLEST = 1 << 20  # bytes; smaller blocks stay with the C library, which recycles them itself
IDLE_LIMIT = 256 << 20  # bytes kept for later; beyond it the block that has waited longest goes back to the system
ALIGNMENT = 64


class _Store:
    """Idle blocks, oldest first.

    A collection of garbage may bring a block back in the middle of any method, so all of them go over copies.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a block may come back while this thread holds the lock
        self.blocks: deque[np.ndarray] = deque()

    def take(self, size: int) -> np.ndarray:
        with self.lock:
            for block in reversed(tuple(self.blocks)):
                if block.nbytes == size:
                    self.blocks = deque(other for other in tuple(self.blocks) if other is not block)
                    return block
        return _aligned(size)

    def give_back(self, block: np.ndarray) -> None:
        with self.lock:
            self.blocks.append(block)
            while sum(other.nbytes for other in tuple(self.blocks)) > IDLE_LIMIT:
                self.blocks.popleft()


def _aligned(size: int) -> np.ndarray:
    """`size` bytes that start at a cache line."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    offset = -raw.ctypes.data % ALIGNMENT
    return raw[offset : offset + size]


_store = _Store()


class _Lease(np.ndarray):
    """A view of a block that lives as long as the tensor made from it, and returns the block then."""

    block: np.ndarray | None = None

    def __del__(self) -> None:
        if self.block is not None:
            _store.give_back(self.block)


def empty(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    """An uninitialised CPU tensor like `torch.empty`; a large one in recycled memory (it cannot be resized)."""
    count = torch.Size(shape).numel()
    size = count * dtype.itemsize
    if size < SMALLEST:
        return torch.empty(shape, dtype=dtype)
    block = _store.take(size)
    lease = block.view(_Lease)
    lease.block = block
    return torch.from_numpy(lease).view(dtype).view(shape)


_scratch: deque[np.ndarray] = deque()


@contextmanager
def scratch(size: int, dtype: str) -> Iterator[np.ndarray]:
    """`size` uninitialised values that no one else uses until the context ends."""
    nbytes = size * np.dtype(dtype).itemsize
    try:
        block = _scratch.pop()  # appending and popping at one end needs no lock
    except IndexError:
        block = _aligned(nbytes)
    if block.nbytes < nbytes:
        block = _aligned(nbytes)
    yield block[:nbytes].view(dtype)
    _scratch.append(block)


def release() -> int:
    """Gives all idle blocks back to the system; returns their bytes."""
    with _store.lock:
        idle = sum(block.nbytes for block in tuple(_store.blocks))
        _store.blocks.clear()
        return idle
