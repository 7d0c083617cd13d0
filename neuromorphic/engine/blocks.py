"""How many blocks of targets each thread works on, one after the other.

Spikes scatter over the input ring of a block. While the part in use stays in the last-level cache, additions cost little
more than in a small ring, because many are under way at once; beyond it each waits for memory. More blocks than that cost
more than they save: every segment of a row has its own misses and its own pointer.
"""

from __future__ import annotations

import numpy as np

from neuromorphic.engine.distributions import LogNormal, Normal, Uniform
from neuromorphic.engine.network import Projection

BLOCK_BYTES = (
    6 << 20
)  # of the ring that spikes of one moment reach: stays in a cache of 16 to 32 MB beside passing rows
MIN_SEGMENT = 128  # mean synapses of one source in one block
MIN_CHUNK = 5  # steps of a chunk; fewer bring too few spikes to use a block while it is near
_SPREAD = 3.0  # standard deviations taken as the range of a normal delay


def delay_range(quantity: object, h: float) -> tuple[float, float]:
    """(shortest, longest) delay in steps of a projection's delay in ms, not below one step; normals up to 3 std."""
    match quantity:
        case Normal(mean, std, lowest, highest, _):
            low, high = max(mean - _SPREAD * std, lowest), min(mean + _SPREAD * std, highest)
        case LogNormal(mu, sigma):
            low, high = np.exp(mu - _SPREAD * sigma), np.exp(mu + _SPREAD * sigma)
        case Uniform(low, high):
            pass
        case _:
            values = np.asarray(quantity, dtype=np.float64)
            low, high = (values.min(), values.max()) if values.size else (h, h)
    return max(1.0, low / h), max(1.0, high / h)


def blocks_per_thread(
    projections: list[Projection], cells: int, threads: int, mean_row: float, h: float, itemsize: int
) -> int:
    """Blocks of each thread.

    Args:
        cells: input cells of one slot of the ring, all neurons together.
        mean_row: mean synapses of one source.
        itemsize: bytes of a cell.
    """
    if not projections:
        return 1
    ranges = [delay_range(p.delay_ms, h) for p in projections]
    shortest, longest = min(low for low, _ in ranges), max(high for _, high in ranges)
    if shortest < MIN_CHUNK:
        return 1
    reached = cells * itemsize * (longest - shortest + 1.0) / threads
    return max(1, min(round(reached / BLOCK_BYTES), int(mean_row / (threads * MIN_SEGMENT))))
