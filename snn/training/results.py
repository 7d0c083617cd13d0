"""What a finished run reports: metrics.json and two pictures."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from snn.training.data import Splits
from snn.training.encoding import encoded
from snn.training.figures import draw_accuracy, draw_raster
from snn.training.recipe import Recipe
from snn.training.run_folder import RunFolder
from snn.training.seeding import EVALUATE, derived_seed


def write_results(
    recipe: Recipe,
    splits: Splits,
    network: nn.Module,
    folder: RunFolder,
    history: Sequence[Mapping[str, Any]],
    best: int,
) -> dict[str, Any]:
    """Write metrics.json, accuracy.png and raster.png.

    The reported test accuracy is that of the last epoch; where the recipe sets a validation part aside, that of the
    epoch that is best on it. The weights in the raster are those of the reported epoch.

    Args:
        recipe: of the run.
        splits: its images.
        network: receives the weights of the reported epoch, on the CPU.
        folder: of the run.
        history: one row per epoch.
        best: number of the best epoch, from 1.
    Returns: the content of metrics.json.
    """
    from snn.training.checkpoint import load_checkpoint

    validated = len(splits.val_rows) > 0
    reported = best if validated else len(history)
    row = history[reported - 1]
    # Under a strategy that spreads the weights over devices, the file has all of them.
    weights = load_checkpoint(folder.best if validated else folder.last)["state_dict"]
    network.cpu().load_state_dict({key.removeprefix("network."): value for key, value in weights.items()})
    draw_accuracy(
        history, f"{recipe.data.name}: test {row['test_accuracy']:.2%} (epoch {reported})", folder.accuracy_picture
    )
    images, labels = _examples(splits)
    x = encoded(images, recipe.encoding, derived_seed(recipe.seed, EVALUATE))
    draw_raster(network, x, labels.tolist(), splits.test.classes, folder.raster_picture)
    metrics = _metrics(recipe, splits, network, history, row)
    metrics["reported_epoch"] = f"{reported}, the " + ("best on the validation part" if validated else "last")
    folder.write_metrics(metrics)
    return metrics


def _metrics(
    recipe: Recipe, splits: Splits, network: nn.Module, history: Sequence[Mapping[str, Any]], row: Mapping[str, Any]
) -> dict[str, Any]:
    seconds = [entry["seconds"] for entry in history]
    rate, T = row["spikes_per_neuron_per_step"], recipe.encoding.steps
    return {
        "test_accuracy": row["test_accuracy"],
        "train_seconds": round(sum(seconds), 3),
        "seconds_per_epoch": round(statistics.median(seconds), 3),
        "epochs": len(history),
        "spikes_per_neuron_per_step": rate,
        "spikes_per_neuron": rate * T,
        "spike_rates": row["spike_rates"],
        "T": T,
        "seed": recipe.seed,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "data": recipe.data.name,
        "data_source": splits.train.source,
        "train_images": len(splits.train_rows),
        "validation_images": len(splits.val_rows),
        "test_images": len(splits.test.labels),
    }


def _examples(splits: Splits) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first test image of each of up to four classes spread over all of them, and the labels."""
    labels = splits.test.labels
    present = labels.unique()
    chosen = present[torch.linspace(0, len(present) - 1, min(4, len(present))).round().long()]
    return splits.test.batch(torch.stack([(labels == label).nonzero()[0, 0] for label in chosen]))
