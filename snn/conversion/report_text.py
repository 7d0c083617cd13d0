"""A conversion report as text, tables in Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from snn.conversion.layer_report import TERMS, LayerReport
from snn.conversion.recurrent_report import RECURRENT_TERMS, RecurrentReport

if TYPE_CHECKING:
    from snn.conversion.report import ConversionReport


def text_of(report: ConversionReport) -> str:
    """The whole report: accuracy against T, then one row per layer, recurrent layers in a table of their own."""
    parts = [_head(report), markdown(*_accuracy(report))]
    if report.layers:
        parts += [markdown(*_layers(report)), _explanation(report)]
    if report.recurrent:
        parts += [markdown(*_recurrent(report)), _explanation_of_recurrent(report)]
    parts += [f"note: {note}" for note in report.notes]
    return "\n\n".join(parts)


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned: the first to the left, the others to the right.

    >>> print(markdown(["a", "long"], [["b", "1"]]))
    | a | long |
    |:--|-----:|
    | b |    1 |
    """
    widths = [max(len(line[column]) for line in [header, *rows]) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = zip(cells, widths, strict=True)
        return "| " + " | ".join([first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]) + " |"

    rule = "|:" + "-" * (widths[0] + 1) + "|" + "".join("-" * (width + 1) + ":|" for width in widths[1:])
    return "\n".join([line(header), rule, *map(line, rows)])


def shown_steps(T: int) -> list[int]:
    """1, 2, 4, ... and T."""
    steps = []
    step = 1
    while step < T:
        steps.append(step)
        step *= 2
    return [*steps, T]


def _head(report: ConversionReport) -> str:
    coding = "means over the steps" if report.coding == "rate" else "sums over the steps"
    lines = [
        f"Conversion{f' by {report.recipe!r}' if report.recipe else ''}: T = {report.T}, {coding}, {report.images} images"
    ]
    if report.accuracy is not None and report.source_accuracy is not None:
        lost = 100 * (report.source_accuracy - report.accuracy[-1])
        lines.append(
            f"accuracy {report.accuracy[-1]:.2%}, source network {report.source_accuracy:.2%} ({lost:+.2f} points lost)"
        )
    lines.append(
        f"same answer as the source network on {report.agreement[-1]:.2%}; logits differ by {report.logit_error:.2%}"
    )
    if report.layers or report.recurrent:
        lines.append(f"{report.spikes_per_inference:,.1f} spikes per image")
        found = report.first_difference
        lines.append(f"first output unlike the source: {found}" if found else "every layer gives the source's outputs")
    if report.early_exit is not None:
        early = report.early_exit
        lines.append(
            f"early exit at a margin of {early.margin:g}: accuracy {early.accuracy:.2%} after {early.mean_steps:.2f} steps "
            "on average"
        )
    return "\n".join(lines)


def _accuracy(report: ConversionReport) -> tuple[list[str], list[list[str]]]:
    steps = shown_steps(report.T)
    rows = []
    if report.accuracy is not None:
        rows.append(["accuracy %", *(f"{100 * report.accuracy[step - 1]:.2f}" for step in steps)])
    rows.append(["same answer %", *(f"{100 * report.agreement[step - 1]:.2f}" for step in steps)])
    return ["T", *map(str, steps)], rows


def _layers(report: ConversionReport) -> tuple[list[str], list[list[str]]]:
    header = [
        "layer",
        "neurons",
        "threshold",
        "corr.",
        *TERMS,
        "total",
        "silent",
        "satur.",
        "resid.",
        "too many",
        "too few",
    ]
    return [*header, "spikes"], [_row(layer) for layer in report.layers]


def _row(layer: LayerReport) -> list[str]:
    size = max(abs(layer.source_mean), 1e-300)
    threshold = f"{layer.threshold_least:.3g}"
    if layer.threshold_least != layer.threshold_greatest:
        threshold += f"..{layer.threshold_greatest:.3g}"
    return [
        layer.name,
        str(layer.neurons),
        threshold,
        "-" if layer.correlation is None else f"{layer.correlation:.4f}",
        *(f"{100 * layer.errors[name].mean_absolute / size:.2f}" for name in (*TERMS, "total")),
        *(f"{100 * share:.1f}" for share in (layer.silent, layer.saturated)),
        "-" if layer.residual is None else f"{layer.residual:.2f}",
        *(f"{100 * share:.1f}" for share in (layer.too_many, layer.too_few)),
        f"{layer.events:,.1f}",
    ]


def _explanation(report: ConversionReport) -> str:
    return (
        "Errors: mean size in % of the layer's mean activation. silent: % of neurons without a spike; satur.: % of outputs "
        "at the\ngreatest count; resid.: mean |v(T) - v(0)| of the others in thresholds; too many, too few: % of outputs "
        "with more or fewer\nspikes than their summed input is worth. Charge balance: largest deviation "
        f"{max(layer.charge_balance for layer in report.layers):.1e} thresholds."
    )


def _recurrent(report: ConversionReport) -> tuple[list[str], list[list[str]]]:
    header = ["recurrent layer", "cell", "wiring", "units", "elements", "spike", "corr.", *RECURRENT_TERMS, "total"]
    rest = ["silent", "satur.", "settled", "inner steps", "resid.", "spikes", "carried"]
    return [*header, *rest], [_recurrent_row(layer) for layer in report.recurrent]


def _recurrent_row(layer: RecurrentReport) -> list[str]:
    size = max(layer.source_size, 1e-300)
    value = f"{layer.threshold_least:.3g}"
    if layer.threshold_least != layer.threshold_greatest:
        value += f"..{layer.threshold_greatest:.3g}"
    return [
        layer.name,
        layer.kind,
        layer.wiring,
        str(layer.units),
        str(layer.elements),
        value,
        "-" if layer.correlation is None else f"{layer.correlation:.4f}",
        *(f"{100 * layer.errors[name].mean_absolute / size:.2f}" for name in (*RECURRENT_TERMS, "total")),
        *(f"{100 * share:.1f}" for share in (layer.silent, layer.saturated)),
        "yes" if layer.settled else "no",
        str(layer.inner_steps),
        "-" if layer.residual is None else f"{layer.residual:.2f}",
        f"{layer.events:,.1f}",
        f"{layer.recurrent_events:,.1f}",
    ]


def _explanation_of_recurrent(report: ConversionReport) -> str:
    counted = max(layer.counted_images for layer in report.recurrent)
    return (
        "Recurrent layers stand beside their quantised form, which has the same levels: there is no clipping, quantisation or\n"
        "unevenness. Errors in % of its mean absolute output: unsettled, by inner steps that were cut off; propagated, from the\n"
        "layers before. silent: % of units that are 0 after every element; settled: nothing was left to send; resid.: mean\n"
        "distance of the membranes from 1/2 at the end of an element (- where no steps were run); spikes: of all populations\n"
        f"and inner steps, per image; carried: events from element to element. The last five are of {counted} images."
    )
