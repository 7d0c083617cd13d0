"""A data set of 60 small images, and ways for a run to be ended from outside at a chosen batch.

SPIKELOOP_TEST_END="SIGKILL 2 1" sends that signal when batch 1 of epoch 2 (both from 0) is asked for.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

CLASSES = ("left", "middle", "right")
TRAIN, TEST, BATCH = 60, 21, 12


class TinyImages:
    """Images 1x4x6 with a bright pair of columns that tells the class."""

    classes = CLASSES
    shape = (1, 4, 6)
    source = "made for the tests"

    def __init__(self, split: str) -> None:
        count = TRAIN if split == "train" else TEST
        draw = torch.Generator().manual_seed(len(split))
        self.split = split
        self.labels = torch.arange(count) % 3
        self.images = 0.5 * torch.rand(count, 1, 4, 6, generator=draw)
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            image[..., 2 * label : 2 * label + 2] += 0.4
        self.asked = 0

    def batch(self, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        name, _, place = os.environ.get("SPIKELOOP_TEST_END", "").partition(" ")
        if place and self.split == "train":
            epoch, batch = (int(word) for word in place.split())
            if self.asked == epoch * (TRAIN // BATCH) + batch:
                os.kill(os.getpid(), getattr(signal, name))
            self.asked += 1
        return self.images[indices], self.labels[indices]


def load(split: str, root: str | None) -> TinyImages:
    return TinyImages(split)


class WholeSequenceNetwork(torch.nn.Module):
    """A network that returns one answer for all steps, where logits at every step are asked for."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.LazyLinear(classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x.flatten(2)).mean(0)
        return logits


class StatelessNetwork(torch.nn.Module):
    """A network that cannot carry state."""

    def __init__(self, input_shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(24, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.linear(x.flatten(2))
        return logits


def recipe_file(folder: Path, text: str = "") -> Path:
    path = folder / "recipe.yaml"
    path.write_text(
        f"data: {{name: 'tiny_data:load', batch_size: {BATCH}, shift: 1, flip: true}}\n"
        "encoding: {name: rate, steps: 5}\n"
        "network: {class: SpikingMLP, hidden: [16], neuron: {class: LIF, backend: reference}, dropout: 0.2,"
        " batch_norm: true}\n"
        "optimizer: {class: AdamW, lr: 0.01}\n"
        "schedule: {warmup_epochs: 1}\n"
        "epochs: 4\naccelerator: cpu\ndevices: 1\n" + text,
        encoding="utf-8",
    )
    return path


def run_in_child(arguments: list[str], end: str, die_while_saving: bool, log: str) -> None:
    """Body of a child process: the command, its output in a file, and its exit code."""
    os.environ["SPIKELOOP_TEST_END"] = end
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(log, os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    from snn.training.command_line import main

    if die_while_saving:
        _die_in_save(after=4)
    code = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _die_in_save(after: int) -> None:
    saved: list[Any] = []
    save = torch.save

    def half_save(content: Any, path: Path) -> None:
        save(content, path)
        saved.append(path)
        if len(saved) == after:
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    torch.save = half_save


def import_everything() -> None:
    from snn.training.lightning_import import import_lightning

    import_lightning()

    import spikedata  # noqa: F401


if os.environ.get("SPIKELOOP_TEST_PRELOAD"):
    import_everything()
