"""Compiles generated GPU kernels for a device that need not be there; run by test_gpu_compiles in a process of its own.

A stand-in for the device's driver names the target, so Triton's own launch path binds the arguments that `run_kernel`
hands over, specialises and compiles down to the binary, and stops before the launch. Prints a line of JSON per kernel.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from members import NEURONS, Member
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

import snn
from snn.kernels import gpu
from snn.kernels.call import NeuronCall
from snn.kernels.operator import run_kernel

CAPABILITY = 90
HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


class _Driver:
    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", CAPABILITY, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0


def _compile(kernel: Any, grid: Any, arguments: list[Any]) -> None:
    for block, warps in ((128, 4), (1024, 4)):
        options = {"BLOCK": block, "num_warps": warps, "enable_fp_fusion": False}
        compiled = kernel.function.fn.warmup(*arguments, grid=(1,), **options)
        ptx = compiled.asm["ptx"]
        words = ["fma.", ".approx", "div.full", "ld.global.nc", "bar.sync", "cvt.rn.bf16", ".local"]
        counts = {word: len(re.findall(re.escape(word), ptx)) for word in words}
        report = {"name": kernel.source.name, "binary": len(compiled.asm["cubin"]), **counts}
        print(json.dumps(report), flush=True)


def _calls() -> Iterator[tuple[snn.Neuron, torch.Tensor, tuple[str, ...]]]:
    """Every neuron, and each form of argument at least once."""
    for member in NEURONS:
        yield member.build(), member.currents(3, 4, 8), ()
    lif = Member("lif")
    per_channel = {"tau": torch.full((3, 1), 2.0), "v_threshold": torch.ones(5), "learnable": ("tau", "v_threshold")}
    yield lif.build(), lif.currents(3, 4, 16, dtype=HALF), ("v",)
    yield lif.build(**per_channel), lif.currents(3, 2, 3, 5), ("v",)
    yield lif.build(**per_channel).double(), lif.currents(3, 2, 3, 5, dtype=DOUBLE), ()
    yield lif.build(), lif.currents(4, 8).expand(3, 4, 8), ()  # static
    yield Member("alif").build(), lif.currents(1, 1, 1), ()  # sizes of one are constants to Triton
    yield Member("alif").build(), lif.currents(3, 4, 16, dtype=HALF), ("a",)


def main() -> None:
    warnings.simplefilter("ignore")
    driver.set_active(_Driver())
    gpu.obstacle_on = lambda device: None
    gpu._Kernel.run = _compile  # type: ignore[method-assign]
    gpu._Kernel._lanes = lambda self, neurons, device: 1024  # type: ignore[method-assign]
    for layer, x, recorded in _calls():
        x = x.detach().requires_grad_()
        params = layer.call_params()
        start = {name: torch.zeros(x.shape[1:], requires_grad=True) for name in list(layer.model.state)[:1]}
        states = layer.model.start(params) | start
        call = NeuronCall(layer.model, x, states, params, layer.surrogate_function, recorded)
        result = run_kernel("triton", call)
        tensors = [result.output.float(), *result.states.values(), *result.sequences.values()]
        sum(tensor.sum() for tensor in tensors).backward()


main()
