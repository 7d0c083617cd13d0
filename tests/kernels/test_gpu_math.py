"""The functions that generated GPU kernels call: exact or nearly so, and the same bits as on the CPU."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from snn.kernels import cpu_math, gpu
from snn.kernels.source_cache import load_source

pytestmark = pytest.mark.skipif(
    not gpu.triton_is_installed(), reason="Triton is not installed; on Linux: pip install triton"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"float32": torch.float32, "float64": torch.float64}
KERNEL = """
import triton
import triton.language as tl
from snn.kernels.gpu_math import {function}

@triton.jit
def kernel(x, y, count, BLOCK: tl.constexpr):
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + n, {function}(tl.load(x + n, mask=n < count, other=1.0)), mask=n < count)
"""


@pytest.fixture(scope="module", autouse=True)
def _interpreter() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        yield


@pytest.fixture(autouse=True)
def _numpy_warns_of_nothing() -> Iterator[None]:
    with np.errstate(all="ignore"):
        yield


def evaluated(function: str, x: np.ndarray) -> np.ndarray:
    kernel = load_source(f"test_{function}", KERNEL.format(function=function)).kernel
    given = torch.from_numpy(x).to(DEVICE)
    result = torch.empty_like(given)
    kernel[(-(-len(x) // 4096),)](given, result, len(x), BLOCK=4096, **{"enable_fp_fusion": False})
    return result.cpu().numpy()


def units_in_the_last_place(ours: np.ndarray, exact: np.ndarray) -> float:
    wanted = exact.astype(ours.dtype)
    return float((np.abs(ours.astype(np.longdouble) - exact) / np.spacing(np.abs(wanted))).max())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("name", "low", "high"), [("exp", -80.0, 80.0), ("exp", -0.5, 0.5), ("tanh", -12.0, 12.0), ("tanh", -0.05, 0.05)]
)
def test_exp_and_tanh_are_accurate_and_equal_to_the_cpus(name: str, low: float, high: float, dtype: str) -> None:
    x = np.linspace(low, high, 20_001).astype(dtype)
    ours = evaluated(f"{name}_{dtype}", x)
    on_cpu = getattr(cpu_math, f"{name}_{dtype}").py_func
    assert np.array_equal(ours[::100], np.array([on_cpu(value) for value in x[::100]]))
    moderate = x != 0
    exact = getattr(np, name)(x.astype(np.longdouble))
    assert units_in_the_last_place(ours[moderate], exact[moderate]) <= (1.0 if name == "exp" else 20.0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_log_is_accurate_from_denormal_to_huge_numbers(dtype: str) -> None:
    info = np.finfo(dtype)
    x = np.concatenate([
        np.geomspace(info.tiny, info.max, 10_000, dtype=dtype),
        np.linspace(0.5, 2.0, 10_000).astype(dtype),
        np.array([info.smallest_subnormal, info.tiny / 8], dtype),
    ])  # fmt: skip
    x = x[x != 1.0]
    ours = evaluated(f"log_{dtype}", x)
    assert units_in_the_last_place(ours, np.log(x.astype(np.longdouble))) <= 2.0
    special = evaluated(f"log_{dtype}", np.array([1.0, 0.0, np.inf, -1.0, np.nan], dtype))
    assert np.array_equal(special, np.array([0.0, -np.inf, np.inf, np.nan, np.nan], dtype), equal_nan=True)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rint_rounds_halves_to_even(dtype: str) -> None:
    x = np.concatenate([np.arange(-8.0, 8.0, 0.25), [1e6 + 0.5, 3e15, -2.5, np.inf, np.nan]]).astype(dtype)
    assert np.array_equal(evaluated(f"rint_{dtype}", x), np.rint(x), equal_nan=True)


@pytest.mark.parametrize("function", ["exp", "tanh"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_stays_nan_and_the_ends_of_the_range_hold(function: str, dtype: str) -> None:
    low, high, nan = evaluated(f"{function}_{dtype}", np.array([-1e30, 1e30, np.nan], dtype))
    assert np.isnan(nan)
    assert (low, high) == (-1.0, 1.0) if function == "tanh" else 0 < low < 1e-37 and np.isfinite(high)
