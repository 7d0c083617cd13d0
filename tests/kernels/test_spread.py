"""Values per channel are written along the neurons of a block as the layout says."""

from __future__ import annotations

import numpy as np
import pytest

from snn.kernels.cpu_math import spread


@pytest.mark.parametrize("inner", [1, 3, 8, 100])
@pytest.mark.parametrize("size", [1, 4, 7])
@pytest.mark.parametrize("low", [0, 1, 23, 64])
@pytest.mark.parametrize("count", [1, 2, 50])
def test_spread(inner: int, size: int, low: int, count: int) -> None:
    values = np.arange(1.0, size + 1)
    work = np.full(60, np.nan)
    spread(work, 5, values, inner, low, count)
    expected = [values[((low + j) // inner) % size] for j in range(count)]
    assert work[5 : 5 + count].tolist() == expected
    assert np.isnan(work[:5]).all()
    assert np.isnan(work[5 + count :]).all()
