"""Times LIF neurons alone (no matrix product), forward and forward + backward, beside SpikingJelly in the same run.

python scripts/bench/neurons.py [--json FILE] [--repeats N]

Peers take turns, so a change in the machine's speed meets all of them; spikes and gradients are compared before
anything is timed. The floor is one copy of the input.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from spikingjelly.activation_based import functional, neuron, surrogate

import snn

SHAPES = [(500, 16, 512), (16, 64, 4096)]


def peers() -> dict[str, torch.nn.Module]:
    """The same neuron from each library: tau 2, decayed input, hard reset to 0, ATan surrogate."""
    return {
        "spikeloop": snn.LIF(surrogate_function=surrogate.ATan(), step_mode="m", backend="numba"),
        "spikingjelly": neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m"),
    }


def calls(
    layer: torch.nn.Module, x: torch.Tensor, g: torch.Tensor
) -> dict[str, Callable[[], tuple[torch.Tensor, ...]]]:
    leaf = x.clone().requires_grad_()

    def forward() -> tuple[torch.Tensor, ...]:
        functional.reset_net(layer)
        with torch.no_grad():
            return (layer(x),)

    def both() -> tuple[torch.Tensor, ...]:
        functional.reset_net(layer)
        z = layer(leaf)
        return z.detach(), *torch.autograd.grad(z, leaf, g)

    return {"forward": forward, "forward+backward": both}


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def measure(shape: tuple[int, ...], repeats: int) -> list[dict[str, object]]:
    torch.manual_seed(0)
    x, g = 1.5 * torch.randn(shape), torch.randn(shape)
    work = {name: calls(layer, x, g) for name, layer in peers().items()}
    ours, theirs = work["spikeloop"]["forward+backward"](), work["spikingjelly"]["forward+backward"]()
    if not torch.equal(ours[0], theirs[0]):
        sys.exit(f"spikes differ on {shape}: nothing is timed")
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-5, atol=1e-7)

    rows = []
    for kind in ("forward", "forward+backward"):
        times: dict[str, list[float]] = {"copy": []} | {name: [] for name in work}
        for _ in range(repeats):
            times["copy"].append(seconds(x.clone))
            for name, kinds in work.items():
                times[name].append(seconds(kinds[kind]))
        median = {name: statistics.median(values) for name, values in times.items()}
        rows += [
            {
                "shape": list(shape),
                "kind": kind,
                "peer": name,
                "median_ms": 1e3 * value,
                "min_ms": 1e3 * min(times[name]),
                "times_spikeloop": value / median["spikeloop"],
            }
            for name, value in median.items()
        ]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args()
    rows = [row for shape in SHAPES for row in measure(shape, options.repeats)]
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'shape':>16} {'kind':>17} {'peer':>13} {'median ms':>10} {'min ms':>8} {'time / ours':>12}")
    for row in rows:
        shape = "x".join(map(str, row["shape"]))  # type: ignore[arg-type]
        print(
            f"{shape:>16} {row['kind']:>17} {row['peer']:>13} {row['median_ms']:10.2f} {row['min_ms']:8.2f} "
            f"{row['times_spikeloop']:12.2f}"
        )
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
