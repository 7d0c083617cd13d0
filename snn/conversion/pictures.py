"""Pictures of a conversion report: accuracy against T, the errors of each layer, and rates beside activations."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snn.conversion.layer_report import TERMS
from snn.conversion.recurrent_report import RECURRENT_TERMS
from snn.training.figures import new_figure, save_figure

if TYPE_CHECKING:
    from snn.conversion.report import ConversionReport

_COLOURS = dict(zip((*TERMS, RECURRENT_TERMS[0]), ("#4c72b0", "#dd8452", "#c44e52", "#8c8c8c", "#8172b3"), strict=True))
_COLUMNS = 4


def draw(report: ConversionReport, folder: Path) -> list[Path]:
    """Draw the pictures into a folder and return their paths; a report without neurons has only the first."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_draw_accuracy(report, folder / "accuracy.png")]
    if report.points:
        paths += [_draw_errors(report, folder / "errors.png"), _draw_rates(report, folder / "rates.png")]
    return paths


def _draw_accuracy(report: ConversionReport, path: Path) -> Path:
    figure, axes = new_figure(1, 1, (6.4, 4.0))
    axis = axes[0][0]
    steps = range(1, report.T + 1)
    if report.accuracy is not None and report.source_accuracy is not None:
        axis.plot(steps, [100 * value for value in report.accuracy], marker="o", markersize=3, label="accuracy")
        axis.axhline(
            100 * report.source_accuracy,
            color="black",
            linestyle=":",
            label=f"source network, {report.source_accuracy:.2%}",
        )
    shares = [100 * value for value in report.agreement]
    axis.plot(steps, shares, color="grey", linestyle="--", linewidth=1, label="same answer as the source network")
    if report.T > 8:
        axis.set_xscale("log", base=2)
    axis.xaxis.set_major_formatter("{x:.0f}")
    axis.set_xlabel("time steps T")
    axis.set_ylabel("% of the images")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    axis.set_title(f"{report.recipe or 'conversion'}, {report.images} images")
    save_figure(figure, path)
    return path


def _draw_errors(report: ConversionReport, path: Path) -> Path:
    names = list(report.points)
    sizes = _sizes(report)
    figure, axes = new_figure(1, 1, (max(6.4, 0.55 * len(names) + 2.5) + 2.0, 4.4))
    axis = axes[0][0]
    floor = [0.0] * len(names)
    for term, colour in _COLOURS.items():
        heights = [sizes[name].get(term, 0.0) for name in names]
        if any(term in sizes[name] for name in names):
            axis.bar(range(len(names)), heights, bottom=floor, color=colour, label=term, width=0.7)
        floor = [below + height for below, height in zip(floor, heights, strict=True)]
    totals = [sizes[name]["total"] for name in names]
    axis.scatter(
        range(len(names)), totals, color="black", marker="_", s=160, label="total (terms may cancel)", zorder=3
    )
    axis.use_sticky_edges = False  # else no room above bars that end in an empty term
    axis.set_ylim(bottom=0.0)
    axis.set_xticks(range(len(names)), names, rotation=35, ha="right")
    axis.set_ylabel("mean size, % of mean activation")
    axis.set_axisbelow(True)
    axis.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside right upper")
    axis.set_title(f"Error of each layer, {report.recipe or 'conversion'}, T = {report.T}")
    save_figure(figure, path)
    return path


def _sizes(report: ConversionReport) -> dict[str, dict[str, float]]:
    """Mean absolute errors by layer and term, in % of the layer's mean activation (recurrent: mean absolute output)."""
    whole = {layer.name: abs(layer.source_mean) for layer in report.layers}
    whole |= {layer.name: layer.source_size for layer in report.recurrent}
    errors = {layer.name: layer.errors for layer in report.all_layers}
    return {
        name: {term: 100 * error.mean_absolute / max(whole[name], 1e-300) for term, error in found.items()}
        for name, found in errors.items()
    }


def _draw_rates(report: ConversionReport, path: Path) -> Path:
    names = list(report.points)
    columns = min(_COLUMNS, len(names))
    rows = math.ceil(len(names) / columns)
    figure, axes = new_figure(rows, columns, (2.9 * columns, 2.9 * rows))
    for place in range(rows * columns):
        axis = axes[place // columns][place % columns]
        if place < len(names):
            _draw_layer(axis, report, names[place])
        else:
            axis.set_axis_off()
    figure.supxlabel("activation of the source network")
    figure.supylabel("mean output" if report.coding == "rate" else "summed output")
    save_figure(figure, path)
    return path


def _draw_layer(axis: Any, report: ConversionReport, name: str) -> None:
    correlation = {layer.name: layer.correlation for layer in report.all_layers}[name]
    points = report.points[name].numpy()
    low, high = float(points.min(initial=0.0)), float(points.max(initial=0.0))
    axis.plot([low, high], [low, high], color="black", linewidth=0.8, linestyle=":")
    axis.scatter(points[:, 0], points[:, 1], s=5, alpha=0.35, linewidths=0)
    found = "" if correlation is None else f"\ncorrelation {correlation:.3f}"
    axis.set_title(f"{name}{found}", fontsize=9)
