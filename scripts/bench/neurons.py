"""Times LIF neurons alone (no matrix product), forward and forward + backward, beside every library in the same run.

python scripts/bench/neurons.py [--json FILE] [--rounds N]

Peers take turns, so a change in the machine's speed meets all of them; every library's spikes and gradients are
compared with ours before anything is timed. Ours is timed with the equation of SpikingJelly's LIF; "kept" is the same
with `keep_states`. The floor is one copy of the input. Memory is what forward and backward add to a process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from peers import Row, check_neurons, installed, interleaved, neurons, peak_mb, print_added_peak, write_json

SHAPES = [(500, 16, 512), (16, 64, 4096)]


def layers() -> dict[str, torch.nn.Module]:
    """Ours, ours with kept states, and the neuron of each library."""
    kept = neurons("spikingjelly")[1]
    kept.keep_states = True
    return {
        "spikeloop": neurons("spikingjelly")[1],
        "kept": kept,
        **{name: neurons(name)[0] for name in installed()},
    }


def calls(layer: torch.nn.Module, x: torch.Tensor, g: torch.Tensor) -> dict[str, Callable[[], object]]:
    leaf = x.clone().requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            layer(x)

    def both() -> None:
        torch.autograd.grad(layer(leaf), leaf, g)

    return {"forward": forward, "forward+backward": both}


def measure(shape: tuple[int, ...], rounds: int) -> list[Row]:
    torch.manual_seed(0)
    x, g = 1.5 * torch.randn(shape), torch.randn(shape)
    work = {name: calls(layer, x, g) for name, layer in layers().items()}
    rows: list[Row] = []
    for kind in ("forward", "forward+backward"):
        times = interleaved({"copy": x.clone, **{name: kinds[kind] for name, kinds in work.items()}}, rounds)
        ours = times["spikeloop"]["median_ms"]
        rows += [
            {"shape": list(shape), "kind": kind, "peer": name, **row, "times_ours": row["median_ms"] / ours}
            for name, row in times.items()
        ]
    for row in rows:
        if row["kind"] == "forward+backward" and row["peer"] != "copy":
            row["peak_mb"] = peak_mb(__file__, [row["peer"], *map(str, shape)])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--memory", nargs=4, metavar=("PEER", "T", "B", "N"), help="print one peer's memory and stop")
    options = parser.parse_args()
    if options.memory:
        layer, (T, B, N) = layers()[options.memory[0]], map(int, options.memory[1:])
        x, g = torch.randn(T, B, N), torch.ones(T, B, N)
        print_added_peak(calls(layer, x[:2], g[:2])["forward+backward"], calls(layer, x, g)["forward+backward"])
        return
    check_neurons(installed())
    rows = []
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'shape':>16} {'kind':>17} {'peer':>13} {'median ms':>10} {'min ms':>8} {'time / ours':>12} {'peak MB':>8}")
    for shape in SHAPES:
        for row in measure(shape, options.rounds):
            rows.append(row)
            memory = f"{row['peak_mb']:8.0f}" if row.get("peak_mb") is not None else ""
            print(
                f"{'x'.join(map(str, row['shape'])):>16} {row['kind']:>17} {row['peer']:>13} {row['median_ms']:10.2f} "
                f"{row['min_ms']:8.2f} {row['times_ours']:12.2f} {memory}",
                flush=True,
            )
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
