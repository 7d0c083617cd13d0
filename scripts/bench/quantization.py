"""Measures what quantisation costs on MNIST: float training, then integers without and with quantisation-aware training.

python scripts/bench/quantization.py [--encoding direct|rate] [--steps 4] [--epochs 4] [--qat-epochs 2] [--qat-formats ...]
    [--hidden 800 400] [--checkpoint FILE] [--json FILE]

Accuracy is on all 10,000 test images. Formats are data sheets (loihi, ...) or W/S: plain fixed point with W-bit weights and
S-bit states. Before an accuracy is reported, the compiled loops and torch must give the same integers on 500 images.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import spikedata
from neuromorphic.targets.formats import IntegerFormat, format_of
from neuromorphic.targets.quantization import QuantizationOptions, quantization_aware, quantize
from snn.models import SpikingMLP
from spikedata import encode

BATCH = 200
OPTIONS = {
    "per channel, mse": QuantizationOptions(),
    "per channel, max": QuantizationOptions(method="max"),
    "per layer, mse": QuantizationOptions(per_channel=False),
    "per layer, percentile 99.9": QuantizationOptions(per_channel=False, method="percentile"),
    "per layer, max": QuantizationOptions(per_channel=False, method="max"),
}


def main() -> None:
    given = _arguments()
    torch.manual_seed(given.seed)
    train, test = (_all(spikedata.load("mnist", split=split)) for split in ("train", "test"))
    coded = _encoder(given.encoding, given.steps)
    net = SpikingMLP((1, 28, 28), 10, hidden=given.hidden, batch_norm=True, dropout=0.2, neuron=_neuron())
    start = time.perf_counter()
    if given.checkpoint is not None and given.checkpoint.exists():
        net.load_state_dict(torch.load(given.checkpoint))
    else:
        _train(net, train, coded, given.epochs, 2e-3, given.seed)
        if given.checkpoint is not None:
            torch.save(net.state_dict(), given.checkpoint)
    seconds = time.perf_counter() - start
    net.eval()
    exact = _accuracy(lambda x: net(x), test, coded)
    print(f"float: {exact:.2f} % after {given.epochs} epochs ({seconds:.0f} s)", flush=True)
    calibration = coded(train[0][:500], 10_000)
    rows: list[dict[str, Any]] = []
    for name in given.formats:
        form = _format(name)
        for label, options in OPTIONS.items():
            integer, report = quantize(net, form, calibration, options)
            if not torch.equal(integer.run(calibration), integer.eval()(calibration)):
                raise SystemExit(f"{name}: compiled loops and torch differ")
            score = _accuracy(integer.run, test, coded)
            rows.append({"format": name, "scales": label, "accuracy": score, "loss": exact - score})
            print(f"{name:10} {label:28} {score:.2f} %  ({score - exact:+.2f})", flush=True)
            if label == "per channel, mse":
                print(report, flush=True)
    for name in given.qat_formats:
        start = time.perf_counter()
        trained = quantization_aware(net, _format(name), calibration)
        _train(trained, train, coded, given.qat_epochs, given.qat_rate, given.seed + 1)
        seconds = time.perf_counter() - start
        if not torch.equal(trained.run(calibration), trained.eval()(calibration)):
            raise SystemExit(f"{name}: compiled loops and torch differ")
        score = _accuracy(trained.run, test, coded)
        rows.append({"format": name, "scales": "trained", "accuracy": score, "loss": exact - score, "seconds": seconds})
        print(f"{name:10} {'quantisation-aware':28} {score:.2f} %  ({score - exact:+.2f})  {seconds:.0f} s", flush=True)
    if given.json is not None:
        settings = {key: value for key, value in vars(given).items() if not isinstance(value, Path)}
        given.json.write_text(json.dumps({**settings, "float": exact, "rows": rows}, indent=2) + "\n", encoding="utf8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoding", choices=("direct", "rate"), default="direct")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--qat-epochs", type=int, default=2)
    parser.add_argument("--qat-rate", type=float, default=2e-4)
    parser.add_argument("--formats", nargs="*", default=["8/16", "4/16"])
    parser.add_argument("--qat-formats", nargs="*", default=["8/16", "4/16"])
    parser.add_argument("--hidden", type=int, nargs="+", default=[800, 400])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def _format(name: str) -> IntegerFormat:
    weight, _, state = name.partition("/")
    if not state:
        return format_of(name)
    return IntegerFormat(weight_bits=int(weight), state_bits=int(state), name=f"{weight}/{state} bits")


def _neuron() -> dict[str, Any]:
    return {"class": "LIF", "tau": 2.0, "detach_reset": True}


def _all(images: Any) -> tuple[torch.Tensor, torch.Tensor]:
    inputs, labels = images.batch(torch.arange(len(images.labels)))
    return inputs, labels


def _encoder(name: str, steps: int) -> Callable[[torch.Tensor, int], torch.Tensor]:
    if name == "rate":
        return lambda images, number: encode.rate(images, steps, seed=number)
    return lambda images, number: encode.direct(images, steps)


def _train(
    net: nn.Module, data: tuple[torch.Tensor, torch.Tensor], coded: Any, epochs: int, rate: float, seed: int
) -> None:
    """AdamW, cosine from `rate` to 0, cross-entropy of the mean output."""
    images, labels = data
    draw = torch.Generator().manual_seed(seed)
    parameters = [parameter for parameter in net.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    count, step = epochs * (len(labels) // BATCH), 0
    net.train()
    for epoch in range(epochs):
        order, start = torch.randperm(len(labels), generator=draw), time.perf_counter()
        for rows in order.split(BATCH)[: len(labels) // BATCH]:
            for group in optimizer.param_groups:
                group["lr"] = rate * (1 + math.cos(math.pi * step / count)) / 2
            loss = F.cross_entropy(net(coded(images[rows], step)).mean(0), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        print(f"  epoch {epoch + 1}: loss {loss.item():.4f}, {time.perf_counter() - start:.0f} s", flush=True)


@torch.no_grad()
def _accuracy(
    call: Callable[[torch.Tensor], torch.Tensor], data: tuple[torch.Tensor, torch.Tensor], coded: Any
) -> float:
    images, labels = data
    right = 0
    for number, rows in enumerate(torch.arange(len(labels)).split(500)):
        right += int((call(coded(images[rows], 20_000 + number)).mean(0).argmax(1) == labels[rows]).sum())
    return 100 * right / len(labels)


if __name__ == "__main__":
    main()
