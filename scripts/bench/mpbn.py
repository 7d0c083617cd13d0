"""Train a small CIFAR-10 network with and without MPBN: python scripts/bench/mpbn.py --json FILE

A small residual network, whose neurons get spikes of the shortcut added to normalised currents, trained as in the MPBN
paper: its surrogate, its starting weights, SGD 0.1 with momentum 0.9 in batches of 128, a cosine schedule, weight
decay on weights alone. The neurons are LIF with SpikingJelly's time constant and threshold, for which normalised currents are
weak (--neuron paper has those of the paper). Trained on the first images of CIFAR-10, T = 2 and 4, with and without
channel-wise MPBN: the same seeds, epochs and batches. Prints for every epoch the mean training loss while it ran and, after
it, the loss in evaluation on some of the same images; then the spikes that folding changes. A run that was broken off goes on
from FILE.

Before that, the time of a training step of a VGG-like network with and without, measured turn by turn on the same batch.
"""

import argparse
import json
import math
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
from snn.models import SpikingResNet, SpikingVGG

NEURONS: dict[str, dict[str, Any]] = {
    "paper": {"tau": 4 / 3, "decay_input": False, "v_threshold": 0.5, "surrogate_function": surrogate.ClippedTanh()},
    "default": {"tau": 2.0, "decay_input": True, "v_threshold": 1.0, "surrogate_function": surrogate.ClippedTanh()},
}


def network(
    kind: str, channels: tuple[int, ...], neuron: str, norm: bool, seed: int, norm_steps: int | None = None
) -> nn.Module:
    """A network for CIFAR-10 images, with equal weights for equal seeds."""
    torch.manual_seed(seed)
    choice = {"class": "LIF", **NEURONS[neuron]}
    net: nn.Module
    if kind == "vgg":
        net = SpikingVGG((3, 32, 32), 10, channels=channels, neuron=choice)
    else:
        net = SpikingResNet((3, 32, 32), 10, channels=channels, neuron=choice)
    draw_weights(net)
    if norm:
        add_norms(net, norm_steps)
    return net


def draw_weights(net: nn.Module) -> None:
    """The starting weights of the paper's released code."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.normal_(layer.weight, 0.0, math.sqrt(2 / (math.prod(layer.kernel_size) * layer.out_channels)))
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0.0, 1 / layer.in_features)
            nn.init.zeros_(layer.bias)


def add_norms(net: nn.Module, steps: int | None) -> None:
    """Gives every layer of neurons an MPBN as wide as the currents that reach it."""

    def add(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        layer.membrane_norm = MPBN(inputs[0].shape[2], steps=steps)

    hooks = [layer.register_forward_pre_hook(add) for layer in net.modules() if isinstance(layer, snn.LIF)]
    with torch.no_grad():
        net.eval()(torch.zeros(steps or 1, 2, 3, 32, 32))
    net.train()
    for hook in hooks:
        hook.remove()


def repeated(x: torch.Tensor, T: int) -> torch.Tensor:
    return x.unsqueeze(0).expand(T, *x.shape)


def training_step(
    net: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor, labels: torch.Tensor, T: int
) -> float:
    optimizer.zero_grad()
    loss = functional.cross_entropy(net(repeated(x, T)).mean(0), labels)
    loss.backward()
    optimizer.step()
    return loss.item()


def make_optimizer(net: nn.Module, lr: float) -> torch.optim.Optimizer:
    weights = [p for p in net.parameters() if p.dim() > 1]
    others = [p for p in net.parameters() if p.dim() <= 1]
    return torch.optim.SGD(
        [{"params": weights, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}], lr=lr, momentum=0.9
    )


def step_times(
    channels: tuple[int, ...], T: int, batch: int, rounds: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median time of a training step in ms, turn by turn."""
    x, labels = torch.rand(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    nets = {name: network("vgg", channels, "paper", name == "mpbn", 0) for name in ("plain", "mpbn")}
    optimizers = {name: make_optimizer(net, 0.05) for name, net in nets.items()}
    times: dict[str, list[float]] = {name: [] for name in nets}
    for number in range(rounds + 1):
        for name, net in nets.items():
            start = clock()
            training_step(net, optimizers[name], x, labels, T)
            if number:
                times[name].append((clock() - start) * 1e3)
    return {name: statistics.median(values) for name, values in times.items()}


def evaluated_loss(net: nn.Module, T: int, images: torch.Tensor, labels: torch.Tensor, batch: int) -> float:
    """Mean loss in evaluation, with running statistics."""
    net.eval()
    with torch.no_grad():
        total = sum(
            functional.cross_entropy(net(repeated(x, T)).mean(0), y, reduction="sum").item()
            for x, y in zip(images.split(batch), labels.split(batch), strict=True)
        )
    net.train()
    return total / len(labels)


def train(
    norm: bool, T: int, seed: int, images: torch.Tensor, labels: torch.Tensor, options: argparse.Namespace
) -> dict[str, Any]:
    """Losses of every epoch and, with MPBN, the spikes that folding changes on a batch."""
    norm_steps = T if options.norm_steps else None
    net = network(options.network, tuple(options.channels), options.neuron, norm, seed, norm_steps)
    optimizer = make_optimizer(net, options.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.epochs)
    start = time.perf_counter()
    losses, after = [], []
    for epoch in range(options.epochs):
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(1000 * seed + epoch))
        parts = order[: len(order) // options.batch * options.batch].split(options.batch)
        found = [training_step(net, optimizer, images[rows], labels[rows], T) for rows in parts]
        schedule.step()
        losses.append(statistics.fmean(found))
        after.append(evaluated_loss(net, T, images[: options.evaluated], labels[: options.evaluated], options.batch))
    result: dict[str, Any] = {"mpbn": norm, "T": T, "seed": seed, "losses": losses, "losses_after": after}
    result["seconds"] = time.perf_counter() - start
    if norm:
        x = images[:50].double()
        _, report = fold_mpbn(net.double(), repeated(x, T).contiguous())
        result |= {"fold_differences": report.differences, "fold_checked": report.checked}
    return result


def parser() -> argparse.ArgumentParser:
    found = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    found.add_argument("--json", type=Path, help="file for the results, also of a run that is continued")
    found.add_argument("--parts", nargs="*", default=["time", "train"], choices=["time", "train"])
    found.add_argument("--steps", type=int, nargs="*", default=[2, 4])
    found.add_argument("--threads", type=int)
    training = found.add_argument_group("training")
    training.add_argument("--network", choices=["resnet", "vgg"], default="resnet")
    training.add_argument("--channels", type=int, nargs="*", default=[8, 16, 32])
    training.add_argument("--neuron", choices=sorted(NEURONS), default="default")
    training.add_argument("--norm-steps", action="store_true", help="MPBN with running statistics for every step")
    training.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    training.add_argument("--epochs", type=int, default=5)
    training.add_argument("--images", type=int, default=2560, help="first images of the training set")
    training.add_argument("--evaluated", type=int, default=640, help="first of these, for the loss after every epoch")
    training.add_argument("--batch", type=int, default=128)
    training.add_argument("--lr", type=float, default=0.1)
    timing = found.add_argument_group("time of a training step")
    timing.add_argument("--time-channels", type=int, nargs="*", default=[32, 64, 128])
    timing.add_argument("--time-batch", type=int, default=64)
    timing.add_argument("--rounds", type=int, default=5)
    timing.add_argument(
        "--cpu-time", action="store_true", help="one thread and its CPU time: for a machine in use by others"
    )
    return found


def time_all(options: argparse.Namespace, results: dict[str, Any]) -> None:
    clock = time.process_time if options.cpu_time else time.perf_counter
    results["time"] = []
    for T in options.steps:
        times = step_times(tuple(options.time_channels), T, options.time_batch, options.rounds, clock)
        ratio = times["mpbn"] / times["plain"]
        print(
            f"step time, T = {T}: plain {times['plain']:.0f} ms, MPBN {times['mpbn']:.0f} ms, ratio {ratio:.2f}",
            flush=True,
        )
        results["time"].append({"T": T, **times, "ratio": ratio})


def train_all(options: argparse.Namespace, results: dict[str, Any]) -> None:
    import spikedata

    images, labels = spikedata.load("cifar10", split="train").batch(torch.arange(options.images))
    mean, deviation = images.mean((0, 2, 3), keepdim=True), images.std((0, 2, 3), keepdim=True)
    images = (images - mean) / deviation
    known = {(found["T"], found["seed"], found["mpbn"]): found for found in results["train"]}
    for T in options.steps:
        for seed in options.seeds:
            for norm in (False, True):
                found = known.get((T, seed, norm))
                if found is None:
                    found = train(norm, T, seed, images, labels, options)
                    results["train"].append(found)
                    save(results, options.json)
                print(line(found), flush=True)


def line(found: dict[str, Any]) -> str:
    """One run as a line of text."""
    while_running, after = (" ".join(f"{loss:.4f}" for loss in found[name]) for name in ("losses", "losses_after"))
    name = "MPBN " if found["mpbn"] else "plain"
    folded = f"; folded: {found['fold_differences']}/{found['fold_checked']} spikes differ" if found["mpbn"] else ""
    return (
        f"T = {found['T']} seed {found['seed']} {name} during {while_running}, after {after}, "
        f"{found['seconds']:.0f} s{folded}"
    )


def earlier_results(options: argparse.Namespace) -> dict[str, Any]:
    """What FILE holds, or the frame of new results.

    Raises:
        ValueError: FILE is of a training with other options.
    """
    names = ["network", "channels", "neuron", "norm_steps", "epochs", "images", "evaluated", "batch", "lr"]
    training = {name: getattr(options, name) for name in names}
    fresh = {
        "machine": {"cpu": platform.processor() or platform.machine(), "threads": torch.get_num_threads()},
        "torch": torch.__version__, "options": {k: str(v) for k, v in vars(options).items()}, "training": training,
        "time": [], "train": [],
    }  # fmt: skip
    if options.json is None or not options.json.exists():
        return fresh
    found: dict[str, Any] = json.loads(options.json.read_text())
    if found.get("training") != training:
        raise ValueError(f"--json: {options.json} is of a training with {found.get('training')}, not {training}")
    return found


def main() -> None:
    options = parser().parse_args()
    if options.cpu_time:
        options.threads = 1
    if options.threads:
        torch.set_num_threads(options.threads)
    if not 1 <= options.batch <= options.images:
        parser().error(f"--batch must be between 1 and --images = {options.images}, got {options.batch}")
    try:
        results = earlier_results(options)
    except ValueError as error:
        parser().error(str(error))
    if "time" in options.parts:
        time_all(options, results)
        save(results, options.json)
    if "train" in options.parts:
        train_all(options, results)


def save(results: dict[str, Any], path: Path | None) -> None:
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(path.suffix + ".part")
    partial.write_text(json.dumps(results, indent=2))
    partial.replace(path)


if __name__ == "__main__":
    main()
