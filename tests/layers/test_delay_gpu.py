"""The Triton kernels of delays equal the reference; without a CUDA device in Triton's interpreter."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import snn.layers
from snn.kernels.gpu import triton_is_installed
from snn.layers.delay_reference import delayed_linear_reference

pytestmark = pytest.mark.skipif(
    not triton_is_installed(), reason="Triton is not installed; on Linux: pip install triton"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def kernels() -> Iterator[Any]:
    """The module, loaded anew so that Triton reads the variable."""
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            patch.setenv("TRITON_INTERPRET", "1")
        path = Path(snn.layers.__file__).parent / "delay_gpu.py"
        spec = importlib.util.spec_from_file_location("delay_gpu_under_test", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", [(9, 3, 4, 3, 5), (70, 5, 2, 2, 6), (4, 1, 3, 2, 9)], ids=str)
def test_values_and_gradients(kernels: Any, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    T, B, inputs, outputs, max_delay = sizes
    x = torch.randn(T, B, inputs, dtype=dtype, device=DEVICE)
    weight = torch.randn(outputs, inputs, dtype=dtype, device=DEVICE)
    delay = torch.rand(outputs, inputs, dtype=dtype, device=DEVICE) * max_delay
    delay[0, 0], delay[-1, -1] = 0.0, max_delay
    leaves = [value.requires_grad_() for value in (x, weight, delay)]
    expected = delayed_linear_reference(*leaves, max_delay, None)
    y = kernels.TwoTapOnGPU.apply(*leaves, max_delay)
    cotangent = torch.randn_like(y)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-10
    inside = (delay > 0) & (delay < max_delay)  # at whole delays the reference's far tap may lie outside its kernel
    torch.testing.assert_close(y, expected, rtol=tolerance, atol=tolerance)
    ours = torch.autograd.grad((y * cotangent).sum(), leaves)
    theirs = torch.autograd.grad((expected * cotangent).sum(), leaves)
    for k, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        if k == 2:
            one, other = one[inside], other[inside]
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)
