#!/usr/bin/env python
"""Measures of the energy package: cost of counting, a VGG-16 on all chips, Bit Budget sweeps, the four-way comparison.

python scripts/bench/energy.py overhead --json FILE
python scripts/bench/energy.py vgg --json FILE
python scripts/bench/energy.py sweep --runs FOLDER --budget 16 --picture FILE --json FILE
python scripts/bench/energy.py compare --runs FOLDER --json FILE
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuromorphic.energy import Counts, count, estimate
from neuromorphic.energy.designs import Design, sweep, table, to_dict, train_designs
from neuromorphic.energy.designs import picture as draw
from snn.errors import UnsupportedError


def seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median wall time."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def forward(network: nn.Module, x: torch.Tensor) -> Callable[[], Any]:
    def run() -> Any:
        with torch.no_grad():
            return network(x)

    return run


def vgg16() -> tuple[nn.Module, torch.Tensor]:
    """A spiking VGG-16 (13 convolutions, 3 fully connected layers) and 100 CIFAR-sized images at T = 4."""
    import snn
    from snn.models import Stack

    torch.manual_seed(0)
    layers: dict[str, nn.Module] = {}
    channels, number = 3, 0
    for width, convolutions in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for place in range(convolutions):
            number += 1
            layers[f"conv{number}"] = nn.Conv2d(channels, width, 3, padding=1, bias=False)
            layers[f"norm{number}"] = nn.BatchNorm2d(width, momentum=1.0)
            if place == convolutions - 1:
                layers[f"pool{number}"] = nn.AvgPool2d(2)
            layers[f"neuron{number}"] = snn.LIF(tau=2.0, v_threshold=0.5, step_mode="m")
            channels = width
    layers["flatten"] = nn.Flatten()
    for number in (1, 2):
        layers[f"linear{number}"] = nn.Linear(512, 512)
        layers[f"neuron_linear{number}"] = snn.LIF(tau=2.0, v_threshold=0.1, step_mode="m")
    layers["readout"] = nn.Linear(512, 10)
    x = torch.rand(100, 3, 32, 32)
    network, x = Stack(layers), x.expand(4, *x.shape)
    with torch.no_grad():
        network(x[:, :8])  # statistics of the normalisation, so that deep layers spike
    return network.eval(), x


def overhead(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time of a counted pass over that of a plain one."""
    from snn.models import SpikingConvNet, SpikingMLP

    torch.manual_seed(0)
    image = torch.rand(500, 1, 28, 28)
    cases: dict[str, tuple[nn.Module, torch.Tensor]] = {
        "MLP 784-800-10": (SpikingMLP((1, 28, 28), 10, hidden=(800,)), image.expand(4, *image.shape)),
        "ConvNet 16-32-128": (SpikingConvNet((1, 28, 28), 10), image.expand(4, *image.shape)),
        "VGG-16": vgg16(),
    }
    rows = {}
    for name, (network, x) in cases.items():
        network.eval()
        plain, counted = forward(network, x), lambda network=network, x=x: count(network, x)
        plain(), counted()  # compiles kernels
        repeats = 3 if name.startswith("VGG") else 11
        a, b = seconds(plain, repeats), seconds(counted, repeats)
        rows[name] = {"forward_s": a, "counted_s": b, "ratio": b / a}
        print(f"{name:<20} forward {a:.4f} s, counted {b:.4f} s, ratio {b / a:.2f}", flush=True)
    return rows


def vgg(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time to count and price 100 images at T = 4 on every chip and model."""
    from neuromorphic.energy.estimating import MODELS
    from neuromorphic.targets import map as place
    from neuromorphic.targets import names

    network, x = vgg16()
    start = time.perf_counter()
    counts = count(network, x)
    counted = time.perf_counter() - start
    totals: dict[str, Any] = {}
    for model in (*MODELS, *(f"chip:{name}" for name in names())):
        try:
            found = estimate(counts, model)
            totals[model] = {"typical": found.total.typical, "unit": found.unit}
        except UnsupportedError as error:
            totals[model] = {"refused": str(error)}
    whole = time.perf_counter() - start
    fits, broken = [], []
    for name in names():
        try:
            place(counts, name)
            fits.append(name)
        except UnsupportedError:
            broken.append(name)
    placed = time.perf_counter() - start - whole
    synops = sum(layer.total("synops") for layer in counts.connections) / counts.samples
    print(
        f"{len(counts.layers)} layers, {counts.parameter_count:,} parameters, {synops:,.0f} synaptic operations an image"
    )
    print(f"counted in {counted:.1f} s, priced on {len(totals)} models and chips in {whole - counted:.2f} s more")
    print(f"placed in {placed:.1f} s more: fits {', '.join(fits)}; does not fit {', '.join(broken)}")
    for name, found in totals.items():
        print(f"  {name:<22} {found.get('refused') or format(found['typical'], ',.4g') + ' ' + found['unit']}")
    return {"count_s": counted, "all_s": whole, "place_s": placed, "layers": len(counts.layers), "totals": totals}


def recipe(arguments: argparse.Namespace) -> Any:
    from snn.training.recipe import DataOptions, EncodingOptions, Recipe, ScheduleOptions

    is_mnist = arguments.data == "mnist"
    return Recipe(
        data=DataOptions(name=arguments.data, batch_size=100 if is_mnist else 48),
        encoding=EncodingOptions(steps=1),
        network={"class": "QuantisedNet", "hidden": [128, 128]},
        optimizer={"class": "AdamW", "lr": 3e-3, "weight_decay": 0.01},
        schedule=ScheduleOptions(warmup_epochs=1),
        epochs=arguments.epochs,
        accelerator="cpu",
        threads=1,
    )


def seeds(arguments: argparse.Namespace) -> tuple[int, ...]:
    return tuple(range(arguments.seeds))


def sweep_budget(arguments: argparse.Namespace) -> dict[str, Any]:
    """Accuracy of every split of one Bit Budget."""
    say = print if arguments.verbose else lambda _: None
    widths = tuple(int(text) for text in arguments.weight_bits.split(","))
    found = sweep(recipe(arguments), arguments.budget, arguments.runs, widths, seeds(arguments), report=say)
    print(table(found))
    if arguments.picture:
        draw(found, f"{arguments.data}, Bit Budget {arguments.budget}, {arguments.seeds} seeds", arguments.picture)
    return {"outcomes": to_dict(found)}


COMPARED = (
    Design("ANN fp32", 32, None, 1),
    Design("ANN int8", 8, 8, 1),
    Design("QNN, budget of the SNN", 4, 4, 1),
    Design("SNN", 4, 1, 4),
)


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same task as float and int8 ANN, as QNN and SNN of one Bit Budget, side by side."""
    from neuromorphic.energy.runs import from_run

    chips = ("chip:loihi", "chip:spinnaker2", "chip:truenorth", "chip:odin")
    models = ("45nm", "lemaire", *chips)
    say = print if arguments.verbose else lambda _: None
    found = train_designs(recipe(arguments), COMPARED, arguments.runs, seeds(arguments), models=models, report=say)
    print(table(found))
    case = from_run(Path(arguments.runs) / f"w4-s1-T4-seed{arguments.seeds - 1}", 360)
    counts: Counts = count(case.network, case.x)
    twin = estimate(counts, "snn-or-qnn")
    print("\nSNN against the QNN with as much information, arXiv 2409.08290:")
    for name, value in twin.metrics.items():
        print(f"  {name}: {value:,.4g}")
    return {"outcomes": to_dict(found), "snn_or_qnn": twin.metrics, "steps": replace(counts, layers=()).steps}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("overhead", "vgg", "sweep", "compare"))
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--runs", metavar="FOLDER", default="runs/designs", help="finished runs here are not repeated")
    parser.add_argument("--data", default="digits")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=16)
    parser.add_argument("--weight-bits", default="1,2,4,8", help="with sweep: widths to try (default: 1,2,4,8)")
    parser.add_argument("--picture", metavar="FILE")
    parser.add_argument("--verbose", action="store_true")
    arguments = parser.parse_args()
    measures = {"overhead": overhead, "vgg": vgg, "sweep": sweep_budget, "compare": compare}
    result = measures[arguments.what](arguments)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps({"arguments": vars(arguments), **result}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
