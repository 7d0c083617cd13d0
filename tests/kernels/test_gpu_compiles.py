"""The generated GPU kernels compile to binaries of a real device, with the arithmetic that equal spikes need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from members import NEURONS

from snn.kernels import gpu

pytestmark = pytest.mark.skipif(
    not gpu.triton_is_installed(), reason="Triton is not installed; on Linux: pip install triton"
)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def compiled() -> list[dict[str, Any]]:
    """What the compilation of every kernel gave; in another process, since this one may have Triton interpret."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join([str(HERE.parents[1]), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, str(HERE / "compile_gpu_kernels.py")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_becomes_a_binary(compiled: list[dict[str, Any]]) -> None:
    assert len(compiled) == 2 * 2 * (len(NEURONS) + 6)  # block sizes, forward and backward, calls
    assert all(kernel["binary"] > 1000 for kernel in compiled)


def test_nothing_is_fused_or_approximate(compiled: list[dict[str, Any]]) -> None:
    for kernel in compiled:
        assert kernel["fma."] == kernel[".approx"] == kernel["div.full"] == 0, kernel


def test_no_value_that_a_kernel_writes_is_read_through_the_read_only_cache(compiled: list[dict[str, Any]]) -> None:
    assert all(kernel["ld.global.nc"] == 0 for kernel in compiled)


def test_a_barrier_stands_between_keeping_values_and_reading_them(compiled: list[dict[str, Any]]) -> None:
    for kernel in compiled:
        if "backward" in kernel["name"] and "leaky_integrator" not in kernel["name"]:  # that one keeps nothing
            assert kernel["bar.sync"] > 0, kernel


def test_no_kernel_asks_for_local_memory(compiled: list[dict[str, Any]]) -> None:
    assert all(kernel[".local"] == 0 for kernel in compiled)


def test_half_precision_is_rounded_to_nearest(compiled: list[dict[str, Any]]) -> None:
    assert sum(kernel["cvt.rn.bf16"] > 0 for kernel in compiled) == 2 * 2 * 2  # as above, two calls
