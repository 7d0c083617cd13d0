"""Where every neuron's numbers live: blocks of targets for threads, tiles of states, cells of the input ring.

Neurons of each population are cut into T contiguous ranges; range b of all populations is block b. Each thread owns the
same number of consecutive blocks. A block's states are stored in tiles: TILE neurons by rows [states, per-neuron
constants], so one fused loop walks over a single small array. The input ring holds, block after block, D time slots of
one cell per neuron and receptor. A synapse is the packed number  offset = block base + delay * cells of the block + cell.
"""

from __future__ import annotations

import mmap
from typing import NamedTuple

import numpy as np

TILE = 1040  # neurons; rows 65 cache lines apart, because stores a multiple of 4 KiB away from a load delay it
_HUGE_PAGE = 1 << 21  # bytes
_LARGE = 1 << 18  # bytes from which an array gets huge pages: scattered access misses the TLB beyond
_PRIVATE = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
ALIGN = 16  # block edges are multiples of this, so that pairs of neurons share random words


class Layout(NamedTuple):
    """Arrays handed to the kernels. P populations, T blocks."""

    bounds: np.ndarray  # [P, T + 1] first neuron of each range
    first_id: np.ndarray  # [P + 1] global id of neuron 0
    kind: np.ndarray  # [P] update kernel, -1 for spike sources
    rows: np.ndarray  # [P] rows of a tile
    states: np.ndarray  # [P] state rows
    receptors: np.ndarray  # [P] input rows
    tile_start: np.ndarray  # [P, T] first element of the range's tiles
    constant_start: np.ndarray  # [P]
    cell_start: np.ndarray  # [P, T] first cell within the block
    stride: np.ndarray  # [P, T] cells from one receptor to the next: the width rounded up to whole cache lines
    block_cells: np.ndarray  # [T] cells of one slot
    block_base: np.ndarray  # [T] first element of the block's ring
    slots: np.ndarray  # [1] D


def split(n: int, blocks: int) -> np.ndarray:
    """Edges [blocks + 1] of nearly equal ranges whose inner edges are multiples of ALIGN.

    >>> split(100, 2).tolist()
    [0, 48, 100]
    """
    edges = (np.arange(blocks + 1) * n // blocks) // ALIGN * ALIGN
    edges[-1] = n
    return edges.astype(np.int64)


def make_layout(
    sizes: list[int],
    kinds: list[int],
    states: list[int],
    receptors: list[int],
    vectors: list[int],
    constants: list[int],
    blocks: int,
) -> Layout:
    """Layout without a ring: ``with_slots`` completes it once the longest delay is known."""
    count = len(sizes)
    bounds = np.stack([split(n, blocks) for n in sizes])
    widths = np.diff(bounds, axis=1)  # [P, T]
    rows = np.array(states) + np.array(vectors)
    tiles = -(-widths // TILE)
    extent = tiles * TILE * rows[:, None]
    tile_start = np.concatenate([[0], np.cumsum(extent.T.reshape(-1))[:-1]]).reshape(blocks, count).T
    stride = -(-widths // ALIGN) * ALIGN
    cells = stride * np.array(receptors)[:, None]
    cell_start = np.cumsum(cells, axis=0) - cells
    return Layout(
        bounds=bounds,
        first_id=np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        kind=np.array(kinds, dtype=np.int64),
        rows=rows.astype(np.int64),
        states=np.array(states, dtype=np.int64),
        receptors=np.array(receptors, dtype=np.int64),
        tile_start=np.ascontiguousarray(tile_start).astype(np.int64),
        constant_start=np.concatenate([[0], np.cumsum(constants)])[:-1].astype(np.int64),
        cell_start=cell_start.astype(np.int64),
        stride=stride.astype(np.int64),
        block_cells=cells.sum(axis=0).astype(np.int64),
        block_base=np.zeros(blocks, dtype=np.int64),
        slots=np.zeros(1, dtype=np.int64),
    )


def with_slots(layout: Layout, max_delay: int) -> Layout:
    """The layout with a ring for delays of at most ``max_delay`` steps."""
    slots = max_delay + 1
    sizes = layout.block_cells * slots
    if sizes.sum() >= 2**32:
        raise ValueError(
            f"Network: delays of {max_delay} steps times {layout.block_cells.sum()} input cells exceed 2^32; shorten the delays"
        )
    return layout._replace(
        block_base=(np.cumsum(sizes) - sizes).astype(np.int64), slots=np.array([slots], dtype=np.int64)
    )


def aligned_zeros(n: int, dtype: type) -> np.ndarray:
    """[n] zeros that start on a cache line, so that no vector access is split over two; on huge pages when large."""
    size = n * np.dtype(dtype).itemsize
    if size < _LARGE:
        edge, block = 64, np.zeros(size + 64, dtype=np.uint8)
    else:
        edge = _HUGE_PAGE
        memory = mmap.mmap(-1, size + edge, **_PRIVATE)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)
        block = np.frombuffer(memory, dtype=np.uint8)
    skip = (-block.ctypes.data) % edge
    return block[skip : skip + size].view(dtype)


def state_elements(layout: Layout) -> int:
    """Elements of the state array."""
    tiles = -(-np.diff(layout.bounds, axis=1) // TILE)
    return int((tiles * TILE * layout.rows[:, None]).sum())


def row_positions(layout: Layout, population: int) -> np.ndarray:
    """[n] element of row 0 of each neuron; row k lies k * TILE further."""
    edges = layout.bounds[population]
    parts = []
    for b in range(len(edges) - 1):
        local = np.arange(edges[b + 1] - edges[b])
        tile = local // TILE
        parts.append(layout.tile_start[population, b] + tile * TILE * layout.rows[population] + local % TILE)
    return np.concatenate(parts).astype(np.int64)


def global_cells(layout: Layout, population: int) -> np.ndarray:
    """[receptors, n] cell of each neuron counted over all blocks (slots and block bases left out)."""
    edges = layout.bounds[population]
    before = np.cumsum(layout.block_cells) - layout.block_cells
    cells = np.empty((int(layout.receptors[population]), int(edges[-1])), dtype=np.int64)
    for b in range(len(edges) - 1):
        width = edges[b + 1] - edges[b]
        first = before[b] + layout.cell_start[population, b]
        for r in range(cells.shape[0]):
            cells[r, edges[b] : edges[b + 1]] = first + r * layout.stride[population, b] + np.arange(width)
    return cells


def ring_view(layout: Layout, ring: np.ndarray, population: int) -> np.ndarray:
    """Copy [D, receptors, n] of the ring cells of a population, slot by slot."""
    slots = int(layout.slots[0])
    edges = layout.bounds[population]
    receptors = int(layout.receptors[population])
    out = np.empty((slots, receptors, int(edges[-1])), dtype=ring.dtype)
    for positions, low, high in _ring_positions(layout, population):
        out[:, :, low:high] = ring[positions]
    return out


def write_ring(layout: Layout, ring: np.ndarray, population: int, values: np.ndarray) -> None:
    """Inverse of ``ring_view``."""
    for positions, low, high in _ring_positions(layout, population):
        ring[positions] = values[:, :, low:high]


def _ring_positions(layout: Layout, population: int) -> list[tuple[np.ndarray, int, int]]:
    edges, slots = layout.bounds[population], int(layout.slots[0])
    parts = []
    for b in range(len(edges) - 1):
        width = edges[b + 1] - edges[b]
        cell = (
            layout.cell_start[population, b]
            + np.arange(layout.receptors[population])[:, None] * layout.stride[population, b]
        )
        slot = layout.block_base[b] + np.arange(slots)[:, None, None] * layout.block_cells[b]
        parts.append((slot + cell[None] + np.arange(width), int(edges[b]), int(edges[b + 1])))
    return parts
