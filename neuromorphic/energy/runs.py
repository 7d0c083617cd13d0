"""Trained runs and other networks with the data that they are counted on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn

from neuromorphic.energy.converted import check_countable
from neuromorphic.energy.counting import Call
from neuromorphic.energy.counts import ANALOG, SPIKES, Signal
from snn.conversion.run_network import ConvertedRun
from snn.training.build import build_network
from snn.training.data import load_splits
from snn.training.encoding import encoded
from snn.training.loss import On
from snn.training.recipe import (
    DataOptions,
    EncodingOptions,
    LossOptions,
    Recipe,
    RecipeError,
    ScheduleOptions,
)
from snn.training.run_folder import RunFolder
from snn.training.seeding import EVALUATE, derived_seed


@dataclass(frozen=True, eq=False)
class Case:
    """A network and the inputs that it is counted on.

    Attributes:
        name: for tables.
        network: maps x to logits [T, B, classes] or [B, classes].
        x: [T, B, ...].
        labels: of the inputs, int64 [B].
        input_signal: what x carries.
        test_accuracy: of the whole test set as the run reports it; None for a network without a run.
        origin: in words, where network and data come from.
        call: how the network is called, see `count`.
        on: what each step adds to the answer, see `snn.training.loss.votes`.
    """

    name: str
    network: nn.Module
    x: torch.Tensor
    labels: torch.Tensor
    input_signal: Signal
    test_accuracy: float | None
    origin: str
    call: Call
    on: On = "mean"


def from_run(folder: str | Path, samples: int) -> Case:
    """A finished run of `spikeloop train` with the first test images, spread evenly over the test set.

    Raises: RecipeError (a ValueError) if the folder holds no finished run; UnsupportedError for a conversion that cannot be
        counted.
    """
    run = RunFolder(Path(folder))
    if not run.metrics.is_file():
        raise RecipeError(f"RUN: {folder} is no folder of a finished run, metrics.json is missing")
    metrics = json.loads(run.metrics.read_text(encoding="utf-8"))
    file = run.best if metrics["validation_images"] else run.last
    checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    recipe = _recipe(checkpoint["spikeloop"]["recipe"])
    splits = load_splits(recipe.data, recipe.seed)
    network = build_network(recipe.network, splits.input_shape, splits.class_count)
    weights = {key.removeprefix("network."): value for key, value in checkpoint["state_dict"].items()}
    network.load_state_dict(weights)
    if isinstance(network, ConvertedRun):
        check_countable(network.network)
    x, labels = _inputs(splits.test, recipe.encoding, samples, recipe.seed)
    return Case(
        name=Path(folder).name,
        network=network.eval(),
        x=x,
        labels=labels,
        input_signal=_signal(recipe.encoding),
        test_accuracy=metrics["test_accuracy"],
        origin=f"run {Path(folder).name}: {recipe.network['class']} on {recipe.data.name} ({metrics['data_source']}), "
        f"{recipe.encoding.name} coding, T = {recipe.encoding.steps}, seed {recipe.seed}",
        call="sequence",
        on=recipe.loss.on,
    )


def from_function(path: str, data: str, steps: int, samples: int) -> Case:
    """A network that `package.module:function` returns, with images of a data set at every step.

    Raises: RecipeError if the function cannot be imported or does not return a module.
    """
    module, _, name = path.partition(":")
    try:
        made = getattr(importlib.import_module(module), name)()
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise RecipeError(f"--network: {path!r} must be package.module:function without arguments: {error}") from error
    if not isinstance(made, nn.Module):
        raise RecipeError(f"--network: {path!r} returned a {type(made).__name__}, not a torch.nn.Module")
    splits = load_splits(DataOptions(name=data, batch_size=1), 0)
    encoding = EncodingOptions(steps=steps)
    x, labels = _inputs(splits.test, encoding, samples, 0)
    return Case(name, made.eval(), x, labels, ANALOG, None, f"{path} on {data}, direct coding, T = {steps}", "auto")


def _inputs(images: Any, encoding: EncodingOptions, samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    if samples < 1:
        raise RecipeError(f"--samples must be >= 1, got {samples}")
    count = len(images.labels)
    rows = torch.linspace(0, count - 1, min(samples, count)).round().long()
    x, labels = images.batch(rows)
    return encoded(x, encoding, derived_seed(seed, EVALUATE)), labels


def _signal(encoding: EncodingOptions) -> Signal:
    return ANALOG if encoding.name == "direct" else SPIKES


def _recipe(saved: Mapping[str, Any]) -> Recipe:
    nested = {"data": DataOptions, "encoding": EncodingOptions, "schedule": ScheduleOptions, "loss": LossOptions}
    known = {entry.name for entry in fields(Recipe)}
    return Recipe(
        **{key: nested[key](**value) if key in nested else value for key, value in saved.items() if key in known}
    )
