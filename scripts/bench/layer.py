"""Times a spiking layer, Linear + LIF, over 500 steps of 16 samples beside every installed library in the same run.

python scripts/bench/layer.py [--json FILE] [--sizes 512 4096] [--density 0.05] [--rounds N]

One forward and one backward pass to weight and bias ("weights") or to the input as well ("whole"), on spikes of the
given density and with the same weights. Ours is SpikeLinear + LIF; "dense + ours" is torch's Linear with our LIF;
"products" are the dense matrix products alone, two or three of them. Every library's neuron must give the spikes and
gradients of ours before anything is timed. Memory is what one pass to the weights adds to a process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from peers import Row, check_neurons, installed, interleaved, neurons, peak_mb, print_added_peak, write_json
from torch import nn

from snn.layers import SpikeLinear

T, B = 500, 16
LARGE = 2048  # neurons from which one round of the passes to the weights has to do: each takes seconds


def layer(name: str, n: int) -> nn.Sequential:
    """Linear + LIF of a library, of ours, or torch's Linear with our LIF."""
    torch.manual_seed(0)
    linear = SpikeLinear(n, n) if name == "spikeloop" else nn.Linear(n, n)
    spiking = neurons("spikingjelly")[1] if name in ("spikeloop", "dense + ours") else neurons(name)[0]
    nn.init.normal_(linear.weight, std=(0.05 * n) ** -0.5)
    return nn.Sequential(linear, spiking)


def training_pass(net: nn.Module, x: torch.Tensor, g: torch.Tensor) -> Callable[[], None]:
    def run() -> None:
        net.zero_grad()
        x.grad = None
        net(x).backward(g)

    return run


def products(net: nn.Sequential, x: torch.Tensor, g: torch.Tensor, whole: bool) -> Callable[[], None]:
    weight, rows, gradient = net[0].weight.detach(), x.detach().flatten(0, 1), g.flatten(0, 1)

    def run() -> None:
        torch.mm(rows, weight.t())
        torch.mm(gradient.t(), rows)
        if whole:
            torch.mm(gradient, weight)

    return run


def spikes(n: int, density: float, steps: int = T) -> torch.Tensor:
    torch.manual_seed(1)
    return (torch.rand(steps, B, n) < density).float()


def measure(n: int, density: float, rounds: int, with_memory: bool) -> list[Row]:
    names = ["spikeloop", "dense + ours", *installed()]
    x, g = spikes(n, density), torch.randn(T, B, n)
    nets = {name: layer(name, n) for name in names}
    rows: list[Row] = []
    for kind in ("weights", "whole") if n < LARGE else ("weights",):
        leaf = x.clone().requires_grad_(kind == "whole")
        work: dict[str, Callable[[], object]] = {name: training_pass(net, leaf, g) for name, net in nets.items()}
        work["products"] = products(nets["spikeloop"], x, g, kind == "whole")
        times = interleaved(work, rounds if n < LARGE else 1)
        rows += [
            {
                "n": n,
                "kind": kind,
                "peer": name,
                **row,
                "times_ours": row["median_ms"] / times["spikeloop"]["median_ms"],
            }
            for name, row in times.items()
        ]
    if with_memory:
        for row in rows:
            if row["kind"] == "weights" and row["peer"] != "products":
                row["peak_mb"] = peak_mb(__file__, [row["peer"], str(n), str(density)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 4096])
    parser.add_argument("--density", type=float, default=0.05, help="share of ones in the input")
    parser.add_argument("--rounds", type=int, default=7, help=f"one from {LARGE} neurons on")
    parser.add_argument("--memory", nargs=3, metavar=("PEER", "N", "DENSITY"), help="print one peer's memory and stop")
    options = parser.parse_args()
    if options.memory:
        name, n, density = options.memory[0], int(options.memory[1]), float(options.memory[2])
        net, x, g = layer(name, n), spikes(n, density), torch.randn(T, B, n)
        warm_up = training_pass(net, spikes(n, density, steps=20), g[:20].clone())
        print_added_peak(warm_up, training_pass(net, x, g))
        return
    check_neurons(installed())
    rows = []
    print(f"T = {T}, B = {B}, density {options.density}, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'n':>5} {'pass':>8} {'peer':>13} {'median ms':>10} {'min ms':>9} {'time / ours':>12} {'peak MB':>9}")
    for n in options.sizes:
        for row in measure(n, options.density, options.rounds, with_memory=True):
            rows.append(row)
            memory = f"{row['peak_mb']:9.0f}" if row.get("peak_mb") is not None else ""
            print(
                f"{n:>5} {row['kind']:>8} {row['peer']:>13} {row['median_ms']:10.1f} {row['min_ms']:9.1f} "
                f"{row['times_ours']:12.2f} {memory}",
                flush=True,
            )
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
