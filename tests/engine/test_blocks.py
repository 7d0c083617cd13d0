"""How many blocks of targets a thread gets, and where large arrays start."""

from __future__ import annotations

import numpy as np
import pytest

from neuromorphic import Network
from neuromorphic.engine import FixedInDegree, LogNormal, Normal, Uniform
from neuromorphic.engine.blocks import BLOCK_BYTES, MIN_SEGMENT, blocks_per_thread, delay_range
from neuromorphic.engine.layout import aligned_zeros


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        (1.5, (15.0, 15.0)),
        (np.array([0.5, 2.0, 1.0]), (5.0, 20.0)),
        (Uniform(1.0, 2.0), (10.0, 20.0)),
        (Normal(1.5, 0.1), (12.0, 18.0)),
        (Normal(1.5, 0.75), (1.0, 37.5)),
        (Normal(1.5, 0.1, low=1.4, high=1.7), (14.0, 17.0)),
        (LogNormal(0.0, 0.0), (10.0, 10.0)),
    ],
)
def test_delay_range(quantity, expected):
    assert delay_range(quantity, 0.1) == pytest.approx(expected)


def projections(delay_ms):
    net = Network(seed=1)
    cells = net.population("iaf_psc_delta", 10)
    net.connect(cells, cells, FixedInDegree(2), 1.0, delay_ms)
    return net.projections


def test_blocks_follow_the_ring_and_the_rows():
    cells = 10 * BLOCK_BYTES // 44  # ten blocks of 11 slots of float32
    wide = projections(Uniform(1.0, 2.0))
    assert blocks_per_thread(wide, cells, 1, 100.0 * MIN_SEGMENT, 0.1, 4) == 10
    assert blocks_per_thread(wide, cells, 2, 100.0 * MIN_SEGMENT, 0.1, 4) == 5
    assert blocks_per_thread(wide, cells, 1, 5.0 * MIN_SEGMENT, 0.1, 4) == 5
    assert blocks_per_thread(wide, cells, 1, 0.0, 0.1, 4) == 1
    assert blocks_per_thread(projections(1.5), cells, 1, 100.0 * MIN_SEGMENT, 0.1, 4) == 1  # only one slot at a time
    assert (
        blocks_per_thread(projections(Uniform(0.1, 2.0)), cells, 1, 100.0 * MIN_SEGMENT, 0.1, 4) == 1
    )  # chunks of one step
    assert blocks_per_thread([], cells, 1, 0.0, 0.1, 4) == 1


@pytest.mark.parametrize("n", [1, 1000, 1 << 20])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint32])
def test_aligned_zeros(n, dtype):
    array = aligned_zeros(n, dtype)
    assert array.shape == (n,)
    assert array.dtype == dtype
    assert not array.any()
    assert array.ctypes.data % (1 << 21 if array.nbytes >= 1 << 18 else 64) == 0
    array[:] = 1
    assert array.sum() == n
