"""Conversion of a small vision transformer, beside SpikingJelly: python scripts/bench/conversion_transformer.py --json FILE

Trains a transformer on part of MNIST (16 patches of 7 x 7 pixels), converts it by temporal differences (`td`; with levels
every operator sends whole numbers) and with SpikingJelly's TransformerTDEquivalentRecipe and STATransformerRecipe, and compares
read-outs after 1, 2, 4, ... steps on the same test images: largest difference of the logits from the source network's, and
accuracy.
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from spikingjelly.activation_based import ann2snn, functional
from torch import nn
from torch.nn import functional as F

import snn
import spikedata
from snn.conversion.report_text import markdown
from snn.training.atomic_write import write_text

Run = Callable[[torch.Tensor], torch.Tensor]
"""Read-outs [T, B, classes] for images [B, ...]."""


class Block(nn.Module):
    """Attention and a feed-forward part, each behind a layer normalisation and with a residual sum."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, heads, batch_first=True)
        self.up, self.gelu, self.down = nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm1(x)
        attended, _ = self.attention(y, y, y, need_weights=False)
        x = x + attended
        return x + self.down(self.gelu(self.up(self.norm2(x))))


class VisionTransformer(nn.Module):
    """Classifies an image [B, 1, 28, 28] from its 16 patches."""

    def __init__(self, width: int, blocks: int, heads: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 7, stride=7)
        self.place = nn.Parameter(0.1 * torch.randn(1, 16, width))
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(blocks)))
        self.norm, self.readout = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        return self.readout(self.norm(self.blocks(x)).mean(1))


def images(split: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    data = spikedata.load("mnist", split=split)
    return data.batch(torch.linspace(0, len(data.labels) - 1, count).round().long())


def train(net: nn.Module, options: argparse.Namespace) -> None:
    x, y = images("train", options.train)
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    count = -(-len(x) // 100) * options.epochs
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=count)
    generator = torch.Generator().manual_seed(options.seed)
    for _ in range(options.epochs):
        for rows in torch.randperm(len(x), generator=generator).split(100):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
            schedule.step()


def ours(net: nn.Module, calibration: torch.Tensor, T: int, levels: int) -> Run:
    converted = snn.convert(net, "td", calibration, T=T, levels=levels).snn
    return lambda x: converted(x, return_all_steps=True)


def spikingjelly(net: nn.Module, recipe: Any, T: int) -> Run:
    converted = ann2snn.Converter(recipe).convert(copy.deepcopy(net)).eval()

    def run(x: torch.Tensor) -> torch.Tensor:
        functional.reset_net(converted)
        functional.set_step_mode(converted, "s")
        return torch.stack([converted(x if step == 0 else torch.zeros_like(x)) for step in range(T)]).cumsum(0)

    return run


def rows(net: nn.Module, calibration: tuple[torch.Tensor, torch.Tensor], T: int) -> dict[str, Callable[[], Run]]:
    batches = list(zip(calibration[0].split(50), calibration[1].split(50), strict=True))
    made: dict[str, Callable[[], Run]] = {"td": partial(ours, net, calibration[0], T, 0)}
    for levels in (15, 63, 255):
        made[f"td, {levels} levels"] = partial(ours, net, calibration[0], T, levels)
    made["SpikingJelly TD equivalent"] = partial(spikingjelly, net, ann2snn.TransformerTDEquivalentRecipe(T), T)
    for mode in ("equivalent", "spiking_encoder"):
        recipe = ann2snn.STATransformerRecipe(batches, time_steps=T, mode=mode)
        made[f"SpikingJelly STA, {mode}"] = partial(spikingjelly, net, recipe, T)
    return made


@torch.no_grad()
def compared(make: Callable[[], Run], net: nn.Module, test: tuple[torch.Tensor, torch.Tensor]) -> dict[str, Any]:
    start = time.perf_counter()
    run = make()
    converted = time.perf_counter() - start
    errors, right = [], []
    for x, y in zip(test[0].split(100), test[1].split(100), strict=True):
        outputs, wanted = run(x), net(x)
        errors.append((outputs - wanted).abs().amax((1, 2)) / wanted.abs().max())
        right.append((outputs.argmax(2) == y).sum(1))
    return {
        "error": torch.stack(errors).amax(0).tolist(),
        "accuracy": (torch.stack(right).sum(0) / len(test[1])).tolist(),
        "convert_seconds": converted,
        "run_seconds": time.perf_counter() - start - converted,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=20000, help="images to train on")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--steps", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results to this file")
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    net = VisionTransformer(options.width, options.blocks, options.heads)
    train(net, options)
    net.eval().requires_grad_(False)
    test = images("test", options.test)
    source = (net(test[0]).argmax(1) == test[1]).double().mean().item()
    print(f"source network {source:.2%} of {options.test} test images", flush=True)
    found: dict[str, Any] = {
        "settings": {name: value for name, value in vars(options).items() if name != "json"},
        "machine": f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads",
        "source_accuracy": source,
        "rows": {},
    }
    shown = [step for step in (1, 2, 4, 8, 16, 32) if step <= options.steps]
    table = []
    for name, make in rows(net, images("train", 500), options.steps).items():
        row = found["rows"][name] = compared(make, net, test)
        cells = [f"{100 * row['accuracy'][step - 1]:.1f} ({row['error'][step - 1]:.1e})" for step in shown]
        table.append([name, *cells, f"{row['run_seconds']:.1f}"])
        if options.json:
            write_text(options.json, json.dumps(found, indent=1) + "\n")
    print(markdown(["accuracy % (largest error) at T", *map(str, shown), "seconds"], table))


if __name__ == "__main__":
    main()
