"""Times whole training steps of two networks beside every installed library in the same run.

python scripts/bench/train_step.py [--json FILE] [--rounds N]

MLP: 784-512-512-512-10, 32 steps of 100 samples, rate-coded input of MNIST's density. CNN: VGG-like,
64-64-P-128-128-P-256-256-P-10 with batch norms at CIFAR-10's shape, 4 steps of 16 samples, direct input. One step is
forward, cross-entropy on mean logits, backward and Adam. Ours is what `snn.accelerate(net, layers=True)` makes of the
network of SpikingJelly; "neurons" is the same with torch's own layers. Before anything is timed, both must give its
loss and gradients, and every library's neuron the spikes and gradients of ours. "products" are the bare dense products
of the MLP. Memory is what a step adds to a process.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import torch
from peers import Row, check_neurons, installed, interleaved, neurons, peak_mb, print_added_peak, write_json
from spikingjelly.activation_based import functional, neuron, surrogate
from torch import nn
from torch.nn.functional import cross_entropy

import snn


class EachStep(nn.Module):
    """A layer of torch on [T, B, ...]."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def mlp(spiking: Callable[[], nn.Module]) -> nn.Sequential:
    sizes = (784, 512, 512, 512)
    parts: list[nn.Module] = []
    for wide, narrow in pairwise(sizes):
        parts += [nn.Linear(wide, narrow), spiking()]
    return nn.Sequential(*parts, nn.Linear(512, 10))


def cnn(spiking: Callable[[], nn.Module]) -> nn.Sequential:
    parts: list[nn.Module] = []
    channels = 3
    for width in (64, 64, 128, 128, 256, 256):
        parts += [
            EachStep(nn.Conv2d(channels, width, 3, padding=1, bias=False)),
            EachStep(nn.BatchNorm2d(width)),
            spiking(),
        ]
        if channels == width:
            parts.append(EachStep(nn.MaxPool2d(2)))
        channels = width
    return nn.Sequential(*parts, nn.Flatten(2), nn.Linear(256 * 16, 10))


NETWORKS = {"mlp": mlp, "cnn": cnn}


def data(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    if name == "mlp":
        return (torch.rand(32, 100, 784) < 0.13).float(), torch.randint(10, (100,))
    return torch.randn(16, 3, 32, 32).expand(4, 16, 3, 32, 32), torch.randint(10, (16,))


def network(name: str, peer: str) -> nn.Module:
    """The network with a library's neurons; "spikeloop" and "neurons" are SpikingJelly's after `snn.accelerate`."""
    torch.manual_seed(0)
    if peer in ("spikeloop", "neurons", "spikingjelly"):
        net = NETWORKS[name](lambda: neuron.LIFNode(surrogate_function=surrogate.ATan(), step_mode="m"))
        return net if peer == "spikingjelly" else snn.accelerate(net, layers=peer == "spikeloop")[0]
    return NETWORKS[name](lambda: neurons(peer)[0])


def loss_of(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    functional.reset_net(net)
    return cross_entropy(net(x).mean(0), labels)


def step(net: nn.Module, x: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-4)

    def run() -> None:
        optimizer.zero_grad()
        loss_of(net, x, labels).backward()
        optimizer.step()

    return run


def products(net: nn.Module, x: torch.Tensor) -> Callable[[], None]:
    """Forward, weight and input products of an MLP's layers (no input product in the first)."""
    sizes = [
        (layer.weight.detach(), torch.rand(x.shape[0] * x.shape[1], layer.in_features))
        for layer in net
        if isinstance(layer, nn.Linear)
    ]
    gradients = [torch.rand(len(rows), weight.shape[0]) for weight, rows in sizes]

    def run() -> None:
        for k, ((weight, rows), gradient) in enumerate(zip(sizes, gradients, strict=True)):
            torch.mm(rows, weight.t())
            torch.mm(gradient.t(), rows)
            if k:
                torch.mm(gradient, weight)

    return run


def check(name: str) -> None:
    """Stops the program unless the accelerated networks have the loss and the gradients of SpikingJelly's in float64."""
    x, labels = data(name)
    x, labels = x[:, :4].double(), labels[:4]
    results = []
    for peer in ("spikingjelly", "neurons", "spikeloop"):
        net = network(name, peer).double()
        loss = loss_of(net, x, labels)
        results.append([loss, *torch.autograd.grad(loss, list(net.parameters()))])
    for ours in results[1:]:
        for p, q in zip(ours, results[0], strict=True):
            torch.testing.assert_close(p, q, rtol=1e-6, atol=1e-9)


def measure(name: str, rounds: int) -> list[Row]:
    check(name)
    x, labels = data(name)
    peers = ["spikeloop", "neurons", *installed()]
    work: dict[str, Callable[[], object]] = {peer: step(network(name, peer), x, labels) for peer in peers}
    if name == "mlp":
        work["products"] = products(network(name, "spikingjelly"), x)
    times = interleaved(work, rounds)
    rows: list[Row] = []
    for peer, row in times.items():
        ratio = row["median_ms"] / times["spikeloop"]["median_ms"]
        memory = None if peer == "products" else peak_mb(__file__, [name, peer])
        rows.append({"network": name, "peer": peer, **row, "times_ours": ratio, "peak_mb": memory})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--memory", nargs=2, metavar=("NETWORK", "PEER"), help="print one peer's memory and stop")
    options = parser.parse_args()
    if options.memory:
        name, peer = options.memory
        x, labels = data(name)
        net = network(name, peer)
        print_added_peak(step(net, x[:, :2].contiguous(), labels[:2]), step(net, x, labels))
        return
    check_neurons(installed())
    rows = []
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}")
    print(f"{'network':>7} {'peer':>13} {'median ms':>10} {'min ms':>9} {'time / ours':>12} {'peak MB':>9}")
    for name in options.networks:
        for row in measure(name, options.rounds):
            rows.append(row)
            memory = f"{row['peak_mb']:9.0f}" if row["peak_mb"] is not None else ""
            print(
                f"{name:>7} {row['peer']:>13} {row['median_ms']:10.1f} {row['min_ms']:9.1f} "
                f"{row['times_ours']:12.2f} {memory}",
                flush=True,
            )
    write_json(options.json, rows)


if __name__ == "__main__":
    main()
