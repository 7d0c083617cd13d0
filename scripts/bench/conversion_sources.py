"""Makes a QCFS network from a trained ReLU network: thresholds from data, then a few epochs of fine-tuning.

python scripts/bench/conversion_sources.py RELU_RUN --run-dir DIR [--levels 4] [--epochs 2] [--lr 0.02] [--dither] [--bf16]

RELU_RUN is a run folder of a network of `snn.models`, such as the recipe cifar10_ann writes. The new folder holds the same
network with QCFS activations, which `convert` and scripts/bench/conversion.py take.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.nn import functional as F

from snn.conversion import QCFS
from snn.conversion.run_network import plain_network
from snn.conversion.sources import SourceRun, source_of_run, spread_images
from snn.training.atomic_write import write_text
from snn.training.build import build_network
from snn.training.command_line import parse
from snn.training.data import training_loader
from snn.training.environment import environment
from snn.training.recipe import recipe_to_dict

PERCENTILE = 0.999


def main() -> None:
    given = _arguments()
    source = source_of_run(given.relu)
    choice = {**source.choice, "neuron": {"class": "QCFS", "levels": given.levels, "dither": given.dither}}
    made = build_network(choice, source.splits.input_shape, source.splits.class_count)
    plain = plain_network(made)
    missing, unexpected = plain.load_state_dict(source.network.state_dict(), strict=False)
    assert not unexpected
    assert all(key.endswith(".threshold") for key in missing)
    _set_thresholds(source, plain)
    start = time.perf_counter()
    before = _accuracy(plain, source)
    print(f"ReLU {_accuracy(source.network, source):.2%}, QCFS before fine-tuning {before:.2%}", flush=True)
    _fine_tune(plain, source, given)
    accuracy = _accuracy(plain, source)
    print(f"QCFS, {given.levels} levels, {given.epochs} epochs: {accuracy:.2%}", flush=True)
    _write(given, made, choice, {"test_accuracy": accuracy, "train_seconds": time.perf_counter() - start})


def _arguments() -> argparse.Namespace:
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("relu", metavar="RELU_RUN")
    out.add_argument("--run-dir", type=Path, required=True)
    out.add_argument("--levels", type=int, default=4)
    out.add_argument("--epochs", type=int, default=2)
    out.add_argument("--lr", type=float, default=0.02)
    out.add_argument("--dither", action="store_true", help="draw the shift of each sample and channel in training")
    out.add_argument("--bf16", action="store_true", help="train in bfloat16 where the processor is fast at it")
    return out.parse_args()


@torch.no_grad()
def _set_thresholds(source: SourceRun, plain: nn.Module) -> None:
    """Gives each QCFS the 99.9th percentile of the activations of the ReLU in its place."""
    images, _ = spread_images(source.splits.train, source.splits.train_rows, 500)
    x = images
    for (_, relu), (_, layer) in zip(source.network.named_children(), plain.named_children(), strict=True):
        x = relu(x)
        if isinstance(layer, QCFS):
            values = x.flatten()
            rank = max(1, round(PERCENTILE * values.numel()))
            layer.threshold.fill_(values.kthvalue(rank).values)


def _fine_tune(plain: nn.Module, source: SourceRun, given: argparse.Namespace) -> None:
    """SGD with momentum 0.9, cosine from the learning rate to 0, in the batches and augmentation of the ReLU run."""
    _, recipe = parse([f"--run-dir={given.relu}", "--resume"])
    loader = training_loader(source.splits, recipe.data, source.seed + 1, 0, 1)
    optimizer = torch.optim.SGD(plain.parameters(), lr=given.lr, momentum=0.9, weight_decay=5e-4)
    count, step = given.epochs * len(loader), 0
    for epoch in range(given.epochs):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        plain.train()
        start = time.perf_counter()
        for x, y in loader:
            for group in optimizer.param_groups:
                group["lr"] = given.lr * (1 + math.cos(math.pi * step / count)) / 2
            with torch.autocast("cpu", torch.bfloat16, enabled=given.bf16):
                loss = F.cross_entropy(plain(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            step += 1
        print(f"  epoch {epoch + 1}: loss {loss.item():.4f}, {time.perf_counter() - start:.0f} s", flush=True)
    plain.eval()


@torch.no_grad()
def _accuracy(plain: nn.Module, source: SourceRun) -> float:
    plain.eval()
    test = source.splits.test
    rows = torch.arange(len(test.labels))
    right = 0
    for part in rows.split(500):
        x, y = test.batch(part)
        right += int((plain(x).argmax(1) == y).sum())
    return right / len(rows)


def _write(given: argparse.Namespace, made: nn.Module, choice: dict[str, Any], metrics: dict[str, float]) -> None:
    _, recipe = parse([f"--run-dir={given.relu}", "--resume"])
    saved = recipe_to_dict(replace(recipe, network=choice, epochs=given.epochs))
    (given.run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_text(given.run_dir / "config.yaml", yaml.safe_dump(saved, sort_keys=False))
    write_text(given.run_dir / "metrics.json", json.dumps({**metrics, "validation_images": 0}, indent=2) + "\n")
    weights = {f"network.{key}": value for key, value in made.state_dict().items()}
    record = {"recipe": saved, "environment": environment(), "seed": recipe.seed}
    torch.save({"state_dict": weights, "spikeloop": record}, given.run_dir / "checkpoints" / "last.ckpt")


if __name__ == "__main__":
    main()
