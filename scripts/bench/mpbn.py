"""Train a small CIFAR-10 network with and without MPBN: python scripts/bench/mpbn.py --json FILE

A VGG-like network of LIF neurons on the first images of the training set, T = 2 and 4, the same seeds, epochs, batches and
optimiser with and without channel-wise MPBN. Prints the training loss of every epoch, the spikes per neuron and step
at the start, and the time of a training step of both, measured turn by turn on the same batch before the training.
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
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets"))

import snn
from snn import surrogate
from snn.layers import MPBN, fold_mpbn
from snn.models import SpikingVGG


def network(channels: tuple[int, ...], with_norm: bool, seed: int) -> nn.Module:
    """A SpikingVGG whose neurons are those of the MPBN paper, with equal weights for equal seeds."""
    torch.manual_seed(seed)

    def neuron() -> nn.Module:
        return snn.LIF(
            tau=4 / 3, decay_input=False, v_threshold=0.5, surrogate_function=surrogate.ClippedTanh(), step_mode="m"
        )

    net = SpikingVGG((3, 32, 32), 10, channels=channels, neuron=neuron)
    if with_norm:
        sizes = [layer.num_features for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
        for lif, size in zip((m for m in list(net.modules()) if isinstance(m, snn.LIF)), sizes, strict=True):
            lif.membrane_norm = MPBN(size)
    return net


def training_step(
    net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, labels: torch.Tensor, T: int
) -> float:
    optimizer.zero_grad()
    loss = functional.cross_entropy(net(x.unsqueeze(0).expand(T, *x.shape)).mean(0), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def make_optimizer(net: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)


def step_times(
    channels: tuple[int, ...], T: int, batch: int, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median time of a training step in ms, turn by turn."""
    x, labels = torch.rand(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    nets = {name: network(channels, name == "mpbn", 0) for name in ("plain", "mpbn")}
    optimizers = {name: make_optimizer(net) for name, net in nets.items()}
    times: dict[str, list[float]] = {name: [] for name in nets}
    for number in range(rounds + 1):
        for name, net in nets.items():
            start = clock()
            training_step(net, optimizers[name], x, labels, T)
            if number:
                times[name].append((clock() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def train(
    with_norm: bool, T: int, seed: int, images: torch.Tensor, labels: torch.Tensor, options: Any
) -> dict[str, Any]:
    """Training losses per epoch and, with MPBN, the spikes that folding changes on a batch."""
    net = network(tuple(options.channels), with_norm, seed)
    optimizer = make_optimizer(net)
    losses = []
    for epoch in range(options.epochs):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        parts = order[: len(order) // options.batch * options.batch].split(options.batch)
        found = [training_step(net, optimizer, images[rows], labels[rows], T) for rows in parts]
        losses.append(statistics.fmean(found))
    result: dict[str, Any] = {"mpbn": with_norm, "T": T, "seed": seed, "losses": losses}
    if with_norm:
        x = images[:50].double()
        _, report = fold_mpbn(net.double(), x.unsqueeze(0).expand(T, *x.shape).contiguous())
        result |= {"fold_differences": report.differences, "fold_checked": report.checked}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="file for the results, also of a run that is continued")
    parser.add_argument("--steps", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images", type=int, default=1000, help="first images of the training set")
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--channels", type=int, nargs="*", default=[16, 32])
    parser.add_argument("--parts", nargs="*", default=["time", "train"], choices=["time", "train"])
    parser.add_argument("--time-channels", type=int, nargs="*", default=[32, 64, 128])
    parser.add_argument("--time-batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--cpu-time", action="store_true", help="one thread and its CPU time: for a machine in use by others"
    )
    options = parser.parse_args()
    clock = time.process_time if options.cpu_time else time.perf_counter
    if options.cpu_time:
        options.threads = 1
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict[str, Any] = {
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "torch": torch.__version__, "options": {k: str(v) for k, v in vars(options).items()}, "time": [], "train": [],
    }  # fmt: skip
    if "time" in options.parts:
        for T in options.steps:
            times = step_times(tuple(options.time_channels), T, options.time_batch, options.rounds, clock)
            ratio = times["mpbn"] / times["plain"]
            print(
                f"step time, T = {T}: plain {times['plain']:.0f} ms, MPBN {times['mpbn']:.0f} ms, ratio {ratio:.2f}",
                flush=True,
            )
            results["time"].append({"T": T, **times, "ratio": ratio})
    if "train" in options.parts:
        import spikedata

        images, labels = spikedata.load("cifar10", split="train").batch(torch.arange(options.images))
        mean, deviation = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
        images = (images - mean) / deviation
        for T in options.steps:
            for seed in options.seeds:
                for with_norm in (False, True):
                    found = train(with_norm, T, seed, images, labels, options)
                    results["train"].append(found)
                    losses = " ".join(f"{loss:.4f}" for loss in found["losses"])
                    folded = (
                        f"  folded: {found['fold_differences']}/{found['fold_checked']} spikes differ"
                        if with_norm
                        else ""
                    )
                    print(f"T = {T} seed {seed} {'MPBN ' if with_norm else 'plain'}  {losses}{folded}", flush=True)
                    save(results, options.json)
    save(results, options.json)


def save(results: dict[str, Any], path: Path | None) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".part")
    partial.write_text(json.dumps(results, indent=2))
    partial.replace(path)


if __name__ == "__main__":
    main()
