"""Writes a converted network as a run folder that `simulate` and `energy` read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from snn.conversion.network import ConvertedNetwork
from snn.conversion.report import ConversionReport
from snn.conversion.sources import SourceRun, recipe_of
from snn.training.environment import environment
from snn.training.recipe import RecipeError, recipe_to_dict
from snn.training.run_folder import RunFolder


def check_target(path: Path, overwrite: bool) -> None:
    """Raise RecipeError unless a run folder may be written to this path."""
    if path.exists() and not path.is_dir():
        raise RecipeError(f"--run-dir: {path} is a file")
    if path.is_dir() and any(path.iterdir()):
        if not RunFolder(path).config.is_file():
            raise RecipeError(f"--run-dir: {path} holds files that are not a run; choose another folder")
        if not overwrite:
            raise RecipeError(f"--run-dir: {path} already holds a run; replace it with --overwrite")


def write_folder(
    path: Path,
    source: SourceRun,
    network: ConvertedNetwork,
    report: ConversionReport,
    options: Mapping[str, Any],
    seconds: float,
) -> None:
    """Write the folder: complete under another name first, then renamed, so that it is never seen half-written.

    Args:
        path: the folder; what is there is replaced.
        source: what was converted.
        network: the converted network.
        report: on the test images.
        options: of the conversion recipe.
        seconds: that the conversion took.
    """
    converted = {"ann": source.choice, "recipe": report.recipe, "T": report.T, "options": dict(options)}
    recipe = recipe_to_dict(recipe_of(source, report.T, converted))
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    replaced = path.with_name(f".{path.name}.{os.getpid()}.old.tmp")
    try:
        (temporary / "checkpoints").mkdir(parents=True)
        (temporary / "config.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
        versions = environment()
        (temporary / "environment.json").write_text(json.dumps(versions, indent=2) + "\n", encoding="utf-8")
        weights = {f"network.network.{key}": value for key, value in network.state_dict().items()}
        record = {"recipe": recipe, "environment": versions, "seed": source.seed}
        torch.save({"state_dict": weights, "spikeloop": record}, RunFolder(temporary).last)
        metrics = json.dumps(_metrics(source, network, report, seconds), indent=2) + "\n"
        (temporary / "metrics.json").write_text(metrics, encoding="utf-8")
        report.to_json(temporary / "report.json")
        report.plot(temporary)
        (temporary / "report.md").write_text(report.table() + "\n", encoding="utf-8")
        if path.exists():
            path.rename(replaced)
        temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        if path.exists():
            shutil.rmtree(replaced, ignore_errors=True)
        elif replaced.exists():
            replaced.rename(path)


def _metrics(source: SourceRun, network: ConvertedNetwork, report: ConversionReport, seconds: float) -> dict[str, Any]:
    assert report.accuracy is not None
    neurons = sum(layer.neurons for layer in report.all_layers)
    rates = {layer.name: layer.events / layer.neurons / report.T for layer in report.layers}
    per_neuron = report.spikes_per_inference / neurons if neurons else 0.0
    return {
        "test_accuracy": report.accuracy[-1],
        "test_accuracy_is_of": f"{source.origin}, converted by {report.recipe}",
        "source_accuracy": report.source_accuracy,
        "conversion_seconds": round(seconds, 3),
        "spikes_per_neuron_per_step": per_neuron / report.T,
        "spikes_per_neuron": per_neuron,
        "spikes_per_inference": report.spikes_per_inference,
        "spike_rates": rates,
        "T": report.T,
        "seed": source.seed,
        "parameters": sum(parameter.numel() for parameter in network.source.parameters()),
        "data": source.data.name,
        "data_source": source.splits.train.source,
        "train_images": len(source.splits.train_rows),
        "validation_images": 0,
        "test_images": report.images,
    }
