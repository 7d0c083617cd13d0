"""Exact conversion of quantised convolutional and recurrent networks on MNIST: python scripts/bench/morph.py --json FILE

Trains a small network on part of MNIST, rounds it to dyadic numbers, converts it (recurrent ones with recipe rnn-morph in
each wiring), runs every step, and compares every spike count and the read-out with those of the quantised network.

Tasks: "rows" (28 elements of 28 pixels), "pixels" (784 elements of one pixel), "crnn" (784 pixels through two quantised
convolutions into 47 elements).
"""

import argparse
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "datasets"))

import snn
import spikedata
from snn.conversion.activations import QuantAct
from snn.conversion.dyadic_rounding import make_dyadic
from snn.conversion.quantised_recurrent import QuantGRU, QuantLSTM, QuantRNN
from snn.conversion.recurrent import WIRINGS, SequenceRun
from snn.conversion.verification import exactness, quantised_form, verify_exact


class Sequences(nn.Module):
    """Classifies an image [B, 1, 28, 28] read as a sequence."""

    def __init__(self, task: str, cell: str, hidden: int, levels: int) -> None:
        super().__init__()
        self.task = task
        if task == "crnn":
            self.front = nn.Sequential(
                nn.Conv1d(1, 16, 8, stride=4), QuantAct(levels), nn.Conv1d(16, 32, 8, stride=4), QuantAct(levels)
            )
        inputs = {"rows": 28, "pixels": 1, "crnn": 32}[task]
        if cell == "rnn":
            self.cell: nn.Module = QuantRNN(inputs, hidden, levels, learn_step=False)
        else:
            self.cell = {"gru": QuantGRU, "lstm": QuantLSTM}[cell](inputs, hidden, resolution=levels)
        self.readout = nn.Linear(hidden, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.task == "crnn":
            sequence = self.front(x.flatten(2)).transpose(1, 2)
        elif self.task == "rows":
            sequence = x.flatten(1, 2)
        else:
            sequence = x.flatten(1).unsqueeze(2)
        return self.readout(self.cell(sequence)[:, -1])


def convolutional() -> nn.Module:
    """A ReLU network with batch normalisation, average and maximum pooling."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * 49, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def images(split: str, count: int, first: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Images as multiples of 1/256 [N, 1, 28, 28], and labels."""
    pixels, labels = spikedata.load("mnist", split=split).batch(torch.arange(first, first + count))
    return (pixels.float() * 255).round() / 256, labels


def train(net: nn.Module, options: argparse.Namespace) -> list[float]:
    """Backpropagation through time with Adam and a clipped gradient; returns the mean loss of every epoch."""
    x, y = images("train", options.train)
    generator = torch.Generator().manual_seed(options.seed)
    optimiser = torch.optim.Adam(net.parameters(), options.rate)
    batches = -(-len(x) // options.batch) * options.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, options.rate, total_steps=batches)
    losses = []
    for epoch in range(options.epochs):
        total = 0.0
        for rows in torch.randperm(len(x), generator=generator).split(options.batch):
            optimiser.zero_grad()
            loss = F.cross_entropy(net(x[rows]), y[rows])
            loss.backward()
            nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            total += loss.item() * len(rows)
        losses.append(total / len(x))
        print(f"epoch {epoch + 1}: loss {losses[-1]:.4f}", flush=True)
    return losses


@torch.no_grad()
def accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    hits = sum(
        int((net(part).argmax(1) == label).sum()) for part, label in zip(x.split(250), y.split(250), strict=True)
    )
    return hits / len(x)


def last_run(network: Any) -> SequenceRun:
    (run,) = (layer.last_run for layer in network.timed() if hasattr(layer, "last_run"))
    assert isinstance(run, SequenceRun)
    return run


def compare(net: nn.Module, x: torch.Tensor, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Each wiring on the same images: errors, steps and events."""
    found = []
    for wiring in options.wirings:
        network = snn.convert(net, "rnn-morph", T=256, wiring=wiring).snn
        entry: dict[str, Any] = {"wiring": wiring, "guarantee": str(exactness(network)), "images": len(x)}
        start = time.perf_counter()
        errors, wrong, steps, spikes, events, settled = 0.0, 0, 0, 0, 0, True
        for part in x.split(options.batch):
            check = verify_exact(net, network, part)
            run = last_run(network)
            errors, wrong = max(errors, check.max_error), wrong + check.wrong_counts
            steps, settled = max(steps, *run.steps), settled and check.settled
            spikes, events = spikes + run.spikes, events + run.recurrent
        entry |= {"max_error": errors, "wrong_counts": wrong, "settled": settled, "inner_steps": steps}
        entry |= {"spikes_per_image": spikes / len(x), "recurrent_events_per_image": events / len(x)}
        entry["seconds"] = time.perf_counter() - start
        found.append(entry)
        print(json.dumps(entry), flush=True)
    return found


def compare_recurrent(net: nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """RNN-Morph of the trained and rounded network in each wiring."""
    make_dyadic(net, options.bits)
    x, y = images("test", options.test, options.first)
    result: dict[str, Any] = {"quantised_accuracy": accuracy(net, x, y)}
    print(f"accuracy of the quantised network {result['quantised_accuracy']:.4f}", flush=True)
    single = snn.convert(net, "rnn-morph", T=256).snn
    agree = torch.cat([single(part).argmax(1) == net(part).argmax(1) for part in x.split(250)])
    result["same_predictions_float32"] = agree.double().mean().item()
    if options.cell == "rnn":
        result["accuracy_by_inner_steps"] = cut_short(net, x, y, options)
        print("accuracy by inner steps", result["accuracy_by_inner_steps"], flush=True)
    return result | {"wirings": compare(net.double(), x.double(), options)}


def compare_cnn(net: nn.Module, options: argparse.Namespace) -> dict[str, Any]:
    """CNN-Morph of the trained network: accuracies, errors, steps and spikes on the test images."""
    x, y = images("test", options.test, options.first)
    calibration = images("train", 1000)[0]
    result: dict[str, Any] = {"ann_accuracy": accuracy(net, x, y)}
    single = snn.convert(net, "cnn-morph", calibration, T=256, levels=options.levels).snn
    form = quantised_form(single)
    agree = torch.cat([single(part).argmax(1) == form(part).argmax(1) for part in x.split(250)])
    result["same_predictions_float32"] = agree.double().mean().item()
    network = snn.convert(
        net.double(), "cnn-morph", calibration.double(), T=256, levels=options.levels, dyadic_bits=options.bits
    ).snn
    form = quantised_form(network)
    result |= {"quantised_accuracy": accuracy(form, x.double(), y), "guarantee": str(exactness(network))}
    start, error, wrong, last, settled, spikes = time.perf_counter(), 0.0, 0, 0, True, 0
    for part in x.double().split(options.batch):
        check = verify_exact(form, network, part)
        error, wrong, last = max(error, check.max_error), wrong + check.wrong_counts, max(last, check.last_event)
        settled = settled and check.settled
        spikes += check.spikes
    result |= {"max_error": error, "wrong_counts": wrong, "last_event": last, "settled": settled}
    result |= {"spikes_per_image": spikes / len(x), "seconds": time.perf_counter() - start}
    steps = torch.stack([network(part, 40, return_all_steps=True).argmax(2) == label for part, label in
                         zip(x.double()[:1000].split(250), y[:1000].split(250), strict=True)])  # fmt: skip
    result["accuracy_by_step_first_1000"] = steps.double().mean((0, 2)).tolist()
    print(json.dumps(result), flush=True)
    return result


def cut_short(net: nn.Module, x: torch.Tensor, y: torch.Tensor, options: argparse.Namespace) -> dict[int, float]:
    """Accuracy with too few inner steps per element, wiring "count"."""
    network = snn.convert(net, "rnn-morph", T=256).snn
    (layer,) = (layer for layer in network.timed() if hasattr(layer, "most_steps"))
    table = {}
    for steps in options.cut:
        layer.most_steps = steps
        table[steps] = accuracy(network, x, y)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("rows", "pixels", "crnn", "cnn"), default="rows")
    parser.add_argument("--cell", choices=("rnn", "gru", "lstm"), default="rnn")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--levels", type=int, default=16)
    parser.add_argument("--train", type=int, default=6000, help="images to train on")
    parser.add_argument("--test", type=int, default=1000, help="images of the test set to compare")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them, to compare in parts")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--bits", type=int, default=12, help="binary places of the rounded weights")
    parser.add_argument("--wirings", nargs="*", choices=WIRINGS, default=list(WIRINGS))
    parser.add_argument("--cut", type=int, nargs="*", default=[1, 2, 4, 8, 12, 16], help="inner steps to cut at")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    recurrent = options.task != "cnn"
    net = Sequences(options.task, options.cell, options.hidden, options.levels) if recurrent else convolutional()
    start = time.perf_counter()
    losses = train(net, options)
    result: dict[str, Any] = {
        "settings": {name: value for name, value in vars(options).items() if name != "json"},
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "train_seconds": time.perf_counter() - start,
        "losses": losses,
    }
    net.eval().requires_grad_(False)
    result |= compare_recurrent(net, options) if recurrent else compare_cnn(net, options)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf8")


if __name__ == "__main__":
    main()
