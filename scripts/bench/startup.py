"""Measures what a user waits for and pays in memory: import, kernel compilation, loading from the cache, training peak.

python scripts/bench/startup.py [--json FILE]

Every figure comes from a fresh process. Compilation uses an empty cache folder; loading uses the folder that the
compilation filled.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import snn

IMPORT = """
import time
import torch
start = time.perf_counter()
import snn
print(time.perf_counter() - start)
"""

KERNELS = """
import sys, time
import torch, snn
for name in sys.argv[1:]:
    arguments = {"recurrent": 4} if name == "recurrent_lif" else {}
    layer = snn.NEURONS[name](step_mode="m", backend="numba", **arguments)
    x = torch.zeros(2, 3, 4, requires_grad=True)
    start = time.perf_counter()
    layer(x).sum().backward()
    print(time.perf_counter() - start)
"""

PEAK = """
import resource
import torch, snn
T, N = 500, 16 * 4096
layer = snn.LIF(step_mode="m", backend="numba")
x, g = torch.zeros(T, N).normal_().requires_grad_(), torch.ones(T, N)
warm = x[:1].detach().requires_grad_()
torch.autograd.grad(layer(warm), warm, g[:1])
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (4 * T * N / 1024)
before = peak()
z = layer(x)
forward = peak()
gradient, = torch.autograd.grad(z, x, g)
print(forward - before, peak() - before)
"""


def run(script: str, *arguments: str, cache: str | None = None) -> list[float]:
    environment = os.environ | ({"SPIKELOOP_CACHE": cache} if cache else {})
    command = [sys.executable, "-c", script, *arguments]
    output = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    return [float(word) for word in output.split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()

    figures: dict[str, object] = {"import_s": min(run(IMPORT)[0] for _ in range(3))}
    print(f"import snn after import torch: {figures['import_s']:.3f} s")
    with tempfile.TemporaryDirectory() as cache:
        compiled = {name: run(KERNELS, name, cache=cache)[0] for name in snn.NEURONS}
        first, *_ = run(KERNELS, *snn.NEURONS, cache=cache)
        loaded = [run(KERNELS, *reversed(snn.NEURONS), cache=cache)[-1], *run(KERNELS, *snn.NEURONS, cache=cache)[1:]]
    kernels = {
        name: {"compile_s": compile_s, "load_s": load_s}
        for (name, compile_s), load_s in zip(compiled.items(), loaded, strict=True)
    }
    print(f"first kernel of a process, from the cache (imports and starts Numba): {first:.2f} s")
    print(f"{'neuron':>16} {'compile s':>10} {'from cache s':>13}   (forward and backward, float32)")
    for name, row in kernels.items():
        print(f"{name:>16} {row['compile_s']:10.2f} {row['load_s']:13.3f}")
    figures["first_kernel_s"] = first
    forward, both = run(PEAK)
    figures |= {"kernels": kernels, "peak_after_forward_in_inputs": forward, "peak_after_backward_in_inputs": both}
    print("LIF [500, 65536] float32, peak memory beside input and arriving gradient, in sizes of the input:")
    print(f"{forward:.2f} after the forward pass (the output is 1), {both:.2f} after the backward pass (1 more)")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
