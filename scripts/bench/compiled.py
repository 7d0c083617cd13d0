"""Times compiled event networks at batch one beside SpikingJelly in single-step mode and our own torch path.

python scripts/bench/compiled.py [--json FILE] [--repeats N] [--steps T] [--activity SHARE]

Three networks: fully connected 784-512-10 and 700-256-256-20, and two convolutions on 28 x 28 pixels; LIF neurons with
tau 2, hard reset. Input entries are 1 with the given probability; weights are scaled so that each layer of neurons fires
at that share too. Peers take turns, each with an untimed call before the timed one; spikes of all layers are compared
before anything is timed. "events" is one call over all steps, "stream" one call for each step, "torch" our own neurons
over all steps at once, "spikingjelly" its single-step layers in a Python loop over steps.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import functional, layer, neuron
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import neuromorphic
import snn
from neuromorphic.compiler.check import torch_spikes


def fully_connected(sizes: list[int], own: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for number, (a, b) in enumerate(pairwise(sizes)):
        layers.append(nn.Linear(a, b, bias=False) if own else layer.Linear(a, b, bias=False))
        if number < len(sizes) - 2:
            layers.append(snn.LIF(step_mode="m") if own else neuron.LIFNode())
    return nn.Sequential(*layers)


class Convolutions(nn.Module):
    """Two blocks of convolution, average pooling and neurons, then a linear readout."""

    def __init__(self, own: bool) -> None:
        super().__init__()
        wrap: Callable[[nn.Module], nn.Module] = (
            (lambda module: layer.SeqToANNContainer(module)) if own else (lambda module: module)
        )
        make = (lambda: snn.LIF(step_mode="m")) if own else neuron.LIFNode
        self.blocks = nn.Sequential(
            wrap(nn.Conv2d(1, 16, 3, padding=1, bias=False)), wrap(nn.AvgPool2d(2)), make(),
            wrap(nn.Conv2d(16, 32, 3, padding=1, bias=False)), wrap(nn.AvgPool2d(2)), make(),
            wrap(nn.Flatten()), nn.Linear(32 * 7 * 7, 10, bias=False),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = self.blocks(x)
        return y


NETWORKS: dict[str, tuple[Callable[[bool], nn.Module], tuple[int, ...]]] = {
    "784-512-10": (lambda own: fully_connected([784, 512, 10], own), (784,)),
    "700-256-256-20": (lambda own: fully_connected([700, 256, 256, 20], own), (700,)),
    "conv 16-32": (Convolutions, (1, 28, 28)),
}


def pair(name: str, activity: float, x: torch.Tensor) -> tuple[nn.Module, nn.Module]:
    """Our network and SpikingJelly's with the same weights, whose layers fire at the given share on x."""
    make, _ = NETWORKS[name]
    own, theirs = make(True).eval(), make(False).eval()
    weighted = [module for module in own.modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    with torch.no_grad():
        for module in weighted:
            module.weight.copy_(torch.randn(module.weight.shape) / module.weight[0].numel() ** 0.5)
        for number, neurons in enumerate([name for name, module in own.named_modules() if isinstance(module, snn.LIF)]):
            low, high = 0.0, 200.0  # a larger weight makes more spikes
            start = weighted[number].weight.clone()
            for _ in range(18):
                middle = (low + high) / 2
                weighted[number].weight.copy_(start * middle)
                rate = torch_spikes(own, x)[0][neurons].mean()
                low, high = (middle, high) if rate < activity else (low, middle)
    values = [module.weight for module in weighted]
    for module in theirs.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.weight = nn.Parameter(values.pop(0).detach().clone())
    return own, theirs


def calls(
    own: nn.Module, theirs: nn.Module, event: neuromorphic.EventNetwork, x: torch.Tensor
) -> dict[str, Callable[[], Any]]:
    stream = event.stream()
    arrays = [x[t].numpy() for t in range(len(x))]

    def spikingjelly() -> torch.Tensor:
        functional.reset_net(theirs)
        with torch.no_grad():
            return torch.stack([theirs(step) for step in x])

    def own_torch() -> torch.Tensor:
        with torch.no_grad():
            y: torch.Tensor = own(x)
        return y

    def streamed() -> None:
        stream.reset()
        for step in arrays:
            stream.window(step)

    return {"events": lambda: event.run(x), "stream": streamed, "torch": own_torch, "spikingjelly": spikingjelly}


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(options.seed)
    x = (torch.rand(options.steps, 1, *NETWORKS[name][1]) < options.activity).float()
    own, theirs = pair(name, options.activity, x)
    event = neuromorphic.compile(own, x, "float32")
    report = event.check(own, x)
    peer = torch_spikes(theirs, x)[0]
    found = event.spikes(x)[1]
    for a, b in zip(found.values(), peer.values(), strict=True):
        differ = float((a != b.reshape(a.shape)).sum()) / max(1.0, float(b.sum()))
        if differ > 1e-3:
            raise SystemExit(f"{name}: {100 * differ:.3f} % of spikes differ from SpikingJelly's; nothing is timed")
    if report.spike_agreement < 0.999:
        raise SystemExit(f"{name}: {report.first_difference()}; nothing is timed")
    peers = calls(own, theirs, event, x)
    times: dict[str, list[float]] = {key: [] for key in peers}
    for call in peers.values():
        call()
    for _ in range(options.repeats):
        for key, call in peers.items():
            call()  # brings its weights back into the cache and lets the threads of the peer before come to rest
            start = time.perf_counter()
            call()
            times[key].append((time.perf_counter() - start) * 1e6 / options.steps)
    median = {key: statistics.median(values) for key, values in times.items()}
    rates = {key: float(value.mean()) for key, value in found.items()}
    row = {
        "network": name,
        "activity": options.activity,
        "rates": rates,
        "equal_spikes": report.spike_agreement,
        "us_per_step": median,
        "min_us_per_step": {key: min(values) for key, values in times.items()},
        "times_spikingjelly": median["spikingjelly"] / median["events"],
        "times_torch": median["torch"] / median["events"],
        "times_spikingjelly_stream": median["spikingjelly"] / median["stream"],
    }
    print(
        f"{name:16s} {median['events']:9.2f} {median['stream']:9.2f} {median['torch']:9.2f} {median['spikingjelly']:13.2f} "
        f"{row['times_spikingjelly']:15.1f} {row['times_torch']:11.1f} {row['times_spikingjelly_stream']:12.1f}",
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--activity", type=float, default=0.05, help="share of ones, in the input and in each layer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="threads of torch; default: all")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, us per step, batch 1, activity {options.activity}"
    )
    print(
        f"{'network':16s} {'events':>9s} {'stream':>9s} {'torch':>9s} {'spikingjelly':>13s} {'sj / events':>15s} "
        f"{'torch / ev.':>11s} {'sj / stream':>12s}"
    )
    rows = [measure(name, options) for name in NETWORKS]
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "cpu": platform.processor(),
            "rows": rows,
        }
        options.json.write_text(json.dumps(content, indent=1))


if __name__ == "__main__":
    main()
