"""Time the spike-sparse layers against torch's dense layers: python scripts/bench/sparse.py --json FILE

Forward and weight gradient (no input gradient), same data and weights, turn by turn in one run. The outputs and weight
gradients are compared before anything is timed. "dense" is torch.nn.Linear or torch.nn.Conv2d, "product" the two bare
matrix products without autograd, "sparse" the layer with its measured threshold switched off, so that the numbers show
where the threshold belongs.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from snn.layers import SpikeConv2d, SpikeLinear, conv2d_max_density, linear_max_density

DENSITIES = (0.01, 0.02, 0.05, 0.1, 0.2)
CONV_SHAPES = {  # batch, in channels, out channels, height = width; 3 x 3 taps, padding 1
    "MNIST first": (128, 1, 32, 28),
    "MNIST second": (128, 32, 64, 14),
    "CIFAR first": (64, 3, 64, 32),
    "CIFAR 64": (64, 64, 64, 32),
    "CIFAR 128": (64, 128, 128, 16),
    "CIFAR 256": (64, 256, 256, 8),
}


def step(
    layer: torch.nn.Module, x: torch.Tensor, grad: torch.Tensor
) -> Callable[[], tuple[torch.Tensor, torch.Tensor]]:
    """Forward and weight gradient of the layer."""

    def run() -> tuple[torch.Tensor, torch.Tensor]:
        layer.weight.grad = None
        y = layer(x)
        y.backward(grad)
        return y.detach(), layer.weight.grad

    return run


def products(layer: torch.nn.Module, x: torch.Tensor, grad: torch.Tensor) -> Callable[[], None]:
    """The two dense matrix products alone."""
    weight = layer.weight.detach().t()

    def run() -> None:
        torch.mm(x, weight)
        torch.mm(grad.t(), x)

    return run


def largest_error(sparse: tuple[torch.Tensor, ...], dense: tuple[torch.Tensor, ...]) -> float:
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(sparse, dense, strict=True))


def interleaved(
    peers: dict[str, Callable[[], Any]], seconds: float, clock: Callable[[], float]
) -> dict[str, dict[str, float]]:
    """Median and minimum time in ms of each peer; they take turns for the given time, at least five rounds."""
    times: dict[str, list[float]] = {name: [] for name in peers}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[next(iter(peers))]) < 5:
        for name, run in peers.items():
            start = clock()
            run()
            times[name].append((clock() - start) * 1e3)
    return {name: {"median_ms": statistics.median(t), "min_ms": min(t), "rounds": len(t)} for name, t in times.items()}


def measure(
    name: str,
    dense: torch.nn.Module,
    sparse: torch.nn.Module,
    x: torch.Tensor,
    seconds: float,
    rows: int,
    limit: float,
    clock: Callable[[], float],
) -> dict[str, Any]:
    sparse.load_state_dict(dense.state_dict())
    grad = torch.randn_like(dense(x))
    peers: dict[str, Callable[[], Any]] = {"dense": step(dense, x, grad), "sparse": step(sparse, x, grad)}
    error = largest_error(peers["sparse"](), peers["dense"]())
    if error > 1e-5:
        raise SystemExit(f"{name}: sparse and dense layer differ by {error:.1e} (relative), more than 1e-5")
    if x.dim() == 2:
        peers["product"] = products(dense, x, grad)
    times = interleaved(peers, seconds, clock)
    density = float((x != 0).float().mean())
    median_ratio = times["dense"]["median_ms"] / times["sparse"]["median_ms"]
    min_ratio = times["dense"]["min_ms"] / times["sparse"]["min_ms"]
    product = f"{times['product']['median_ms']:9.1f}" if "product" in times else " " * 9
    print(
        f"{name:22s} {density:8.3f} {times['dense']['median_ms']:9.1f} {product} {times['sparse']['median_ms']:9.1f} "
        f"{median_ratio:7.2f} {min_ratio:7.2f}   {'sparse' if density <= limit else 'dense'}",
        flush=True,
    )
    return {
        "name": name,
        "density": density,
        "rows": rows,
        "default_max_density": limit,
        "error": error,
        "times": times,
        "ratio_median": median_ratio,
        "ratio_min": min_ratio,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument(
        "--sizes", type=int, nargs="*", default=[512, 1024, 4096], help="inputs and outputs of the linear layer"
    )
    parser.add_argument("--rows", type=int, nargs="*", default=[8000], help="rows of the linear layer's input")
    parser.add_argument("--densities", type=float, nargs="*", default=list(DENSITIES))
    parser.add_argument(
        "--conv", nargs="*", default=list(CONV_SHAPES), choices=list(CONV_SHAPES), help="convolutions to time"
    )
    parser.add_argument("--threads", type=int, help="threads of torch and Numba; default: all")
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread and its CPU time: for a machine in use by others"
    )
    parser.add_argument("--seconds", type=float, default=3.0, help="time for each line of the table")
    arguments = parser.parse_args()
    if arguments.cpu_time:
        arguments.threads = 1
    clock = time.thread_time if arguments.cpu_time else time.perf_counter
    if arguments.threads:
        import numba

        torch.set_num_threads(arguments.threads)
        numba.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    results = []
    print("forward + weight gradient, ms (median); ratio dense / sparse of the medians and of the minima; default path")
    print(f"{'shape':22s} {'density':>8s} {'dense':>9s} {'product':>9s} {'sparse':>9s} {'median':>7s} {'minimum':>7s}")
    for n in arguments.sizes:
        for rows in arguments.rows:
            dense, sparse = torch.nn.Linear(n, n, bias=False), SpikeLinear(n, n, bias=False, max_density=1.0)
            for density in arguments.densities:
                x = (torch.rand(rows, n) < density).float()
                limit = linear_max_density(rows, n, n)
                results.append(measure(f"linear {rows} x {n}", dense, sparse, x, arguments.seconds, rows, limit, clock))
    for name in arguments.conv:
        batch, channels, out_channels, size = CONV_SHAPES[name]
        dense = torch.nn.Conv2d(channels, out_channels, 3, padding=1)
        sparse = SpikeConv2d(channels, out_channels, 3, padding=1, max_density=1.0)
        for density in arguments.densities:
            x = (torch.rand(batch, channels, size, size) < density).float()
            rows = batch * size * size
            limit = conv2d_max_density(rows, channels * 9, out_channels)
            results.append(measure(f"conv {name}", dense, sparse, x, arguments.seconds, rows, limit, clock))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        machine = {
            "cpu": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "clock": clock.__name__,
        }
        text = json.dumps({"machine": machine, "torch": torch.__version__, "results": results}, indent=2)
        partial = arguments.json.with_suffix(arguments.json.suffix + ".part")
        partial.write_text(text)
        partial.replace(arguments.json)


if __name__ == "__main__":
    main()
