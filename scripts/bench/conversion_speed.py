"""Times the conversion of a VGG-16 for 32 x 32 images, and runs of a converted network against a plain loop over steps.

    python scripts/bench/conversion_speed.py --threads 2 --json FILE

The weights are random: times do not depend on what a network has learned. The plain loop runs the same network one step
at a time; its logits are compared with the fused run's before anything is timed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import snn

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "rate, percentile 99.9": ("rate", {}),
    "rate, percentile 99, channelwise": ("rate", {"percentile": 99.0, "channelwise": True}),
    "rate, mse": ("rate", {"threshold": "mse"}),
    "ltb, 4 passes": ("ltb", {}),
    "calibration-light, T=16": ("calibration-light", {}),
}


def vgg(stages: tuple[tuple[int, ...], ...] = VGG16, hidden: int = 4096, classes: int = 10) -> nn.Sequential:
    """VGG-16 with batch normalisation and average pooling, as the QCFS paper trains it on CIFAR."""
    layers: list[nn.Module] = []
    before = 3
    for stage in stages:
        for channels in stage:
            layers += [nn.Conv2d(before, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU()]
            before = channels
        layers.append(nn.AvgPool2d(2))
    layers += [nn.Flatten(), nn.Linear(before * (32 >> len(stages)) ** 2, hidden), nn.ReLU(), nn.Dropout()]
    layers += [nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout(), nn.Linear(hidden, classes)]
    return nn.Sequential(*layers)


def seconds(call: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def conversions(images: int, names: list[str]) -> list[dict[str, Any]]:
    """Seconds of each conversion, calibration data in memory."""
    torch.manual_seed(0)
    network = vgg().eval()
    for module in network.modules():  # keeps the activity of deep layers alive
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
    x = torch.randn(images, 3, 32, 32)
    plain = seconds(lambda: [network(part) for part in x.split(64)])
    rows = []
    for name in names:
        recipe, options = SETTINGS[name]
        taken = seconds(lambda recipe=recipe, options=options: snn.convert(network, recipe, x, T=16, **options))  # type: ignore[misc]
        rows.append({"setting": name, "images": images, "seconds": taken, "one pass of the ANN": plain})
        print(f"{name:36s} {taken:7.1f} s   (one pass of the ANN over the images {plain:.1f} s)", flush=True)
    return rows


def runs(repeats: int, steps: int) -> list[dict[str, Any]]:
    """Median seconds of a fused run and of the same network stepped in a loop."""
    torch.manual_seed(0)
    network = vgg(((64, 64), (128, 128), (256, 256)), 256).eval()
    rows = []
    for batch in (1, 16):
        x = torch.randn(batch, 3, 32, 32)
        converted = snn.convert(network, "rate", x, T=steps).snn
        view = converted.single_step()

        def looped(x: torch.Tensor = x, view: Any = view) -> torch.Tensor:
            view.reset()
            return sum(view(x) for _ in range(steps)) / steps  # type: ignore[return-value]

        difference = (converted(x) - looped()).abs().max().item()
        if difference > 1e-3:
            raise SystemExit(f"the fused run differs from the loop by {difference}")
        fused, plain = ([], [])  # type: ignore[var-annotated]
        for _ in range(repeats):
            fused.append(seconds(lambda x=x, converted=converted: converted(x)))  # type: ignore[misc]
            plain.append(seconds(looped))
        row = {"batch": batch, "T": steps, "fused": statistics.median(fused), "loop": statistics.median(plain)}
        row["loop / fused"] = row["loop"] / row["fused"]
        rows.append(row)
        print(", ".join(f"{key} {value:.4g}" for key, value in row.items()), flush=True)
    return rows


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--images", type=int, default=1000, help="calibration images")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--steps", type=int, default=16, help="T of the runs")
    parser.add_argument("--json", type=Path, help="file for the figures")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {
        "threads": arguments.threads,
        "conversions": conversions(arguments.images, arguments.settings) if arguments.settings else [],
        "runs": runs(arguments.repeats, arguments.steps) if arguments.repeats else [],
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
