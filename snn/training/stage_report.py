"""Tables and picture of a training in stages."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snn.training.atomic_write import replacing, write_text
from snn.training.figures import new_figure

Row = Mapping[str, Any]

_STAGE_COLUMNS = (
    "stage",
    "weights_from",
    "T",
    "epochs",
    "validation_accuracy",
    "test_accuracy",
    "test_accuracy_is_of",
    "spikes_per_neuron",
    "energy_nj",
    "ann_over_snn_energy",
    "train_seconds",
)
_LAYER_COLUMNS = (
    "layer",
    "macs",
    "input_spikes",
    "energy_pj",
    "neurons",
    "spikes_per_neuron",
    "threshold",
    "leak",
    "membrane_accesses",
)


def write_tables(folder: Path, rows: Sequence[Row]) -> None:
    """Write stages.csv, a row per stage, and layers.csv, a row per stage and layer of weights."""
    layers = [{"stage": row["stage"], "T": row["T"], **layer} for row in rows for layer in row["layers"]]
    _write_csv(folder / "stages.csv", _STAGE_COLUMNS, rows)
    _write_csv(folder / "layers.csv", ("stage", "T", *_LAYER_COLUMNS), layers)


def _write_csv(path: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows([{key: "" if value is None else value for key, value in row.items()} for row in rows])
    write_text(path, text.getvalue())


def stage_line(row: Row) -> str:
    """One line about a finished stage: steps, accuracy, spikes, thresholds, energy."""
    spikes = row["spikes_per_neuron"]
    parts = [f"{row['stage']}: T = {row['T']}, test accuracy {row['test_accuracy']:.2%} ({row['test_accuracy_is_of']})"]
    if spikes is not None:
        thresholds = [layer["threshold"] for layer in row["layers"] if layer["threshold"] is not None]
        parts += [f"{spikes:.3f} spikes per neuron"] if thresholds else []
        parts += [f"thresholds {' '.join(f'{value:.2f}' for value in thresholds)}"] if thresholds else []
    parts.append(f"{row['energy_nj']:.4g} nJ (ANN / SNN {row['ann_over_snn_energy']:.3g})")
    return ", ".join(parts)


def stage_table(rows: Sequence[Row]) -> str:
    """The stages below each other, for people."""
    head = ("stage", "T", "validation", "test", "spikes/neuron", "energy nJ", "ANN/SNN", "seconds")
    lines = [head]
    for row in rows:
        spikes, validation = row["spikes_per_neuron"], row.get("validation_accuracy")
        lines.append(
            (
                row["stage"],
                str(row["T"]),
                "" if validation is None else f"{validation:.2%}",
                f"{row['test_accuracy']:.2%}",
                "" if spikes is None else f"{spikes:.3f}",
                f"{row['energy_nj']:.4g}",
                f"{row['ann_over_snn_energy']:.3g}",
                f"{row['train_seconds']:.1f}",
            )
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if column == 0 else cell.rjust(width) for column, (cell, width) in enumerate(cells))
        for line in lines
        if (cells := list(zip(line, widths, strict=True)))
    )


def draw_stages(rows: Sequence[Row], path: Path) -> None:
    """Draw test accuracy and spikes per neuron of every stage into a PNG file."""
    figure, axes = new_figure(1, 2, (9.0, 3.8))
    places = range(len(rows))
    labels = [f"{row['stage']}\nT = {row['T']}" for row in rows]
    accuracy, spikes = axes[0]
    names = [row["stage"] for row in rows]
    for place, row in zip(places, rows, strict=True):  # a line from the stage whose weights were the start
        start = place if row["weights_from"] is None else names.index(row["weights_from"])
        ends = [100 * rows[at]["test_accuracy"] for at in (start, place)]
        accuracy.plot([start, place], ends, marker="o", color="black")
    accuracy.set_ylabel("test accuracy in %")
    spiking = [(place, row["spikes_per_neuron"]) for place, row in zip(places, rows, strict=True)]
    spiking = [pair for pair in spiking if pair[1] is not None]
    spikes.bar([place for place, _ in spiking], [value for _, value in spiking], color="0.6")
    spikes.set_ylabel("spikes per neuron and input")
    for axis in (accuracy, spikes):
        axis.set_xticks(places, labels, fontsize=8)
        axis.set_xlim(-0.5, len(rows) - 0.5)
        axis.grid(alpha=0.3, axis="y")
    with replacing(path) as temporary:
        figure.savefig(temporary, format="png")
