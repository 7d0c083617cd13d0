"""Cells of the report's tables and what its pictures draw, against the figures of the report."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from snn.conversion import pictures
from snn.conversion.layer_report import TERMS
from snn.conversion.report import ConversionReport, measure
from snn.conversion.report_text import shown_steps
from tests.conversion.looped_network import dyadic_images, looped_network


@pytest.fixture
def report() -> ConversionReport:
    network, x = looped_network(T=5, start=0.0, seed=5), dyadic_images(40)
    labels = network.source(x).argmax(1)
    labels[:4] = (labels[:4] + 1) % 4
    return measure(network, x, labels, recipe="by hand")


def cells(text: str, first: str) -> list[str]:
    """The cells of the table row that begins with this one."""
    (line,) = [line for line in text.splitlines() if line.startswith("|") and line.split("|")[1].strip() == first]
    return [cell.strip() for cell in line.strip("|").split("|")[1:]]


def test_the_table_of_steps_has_the_accuracies_of_its_steps(report: ConversionReport) -> None:
    text, accuracy = report.table(), report.accuracy
    assert accuracy is not None
    assert len(set(accuracy)) > 2
    steps = shown_steps(5)
    assert cells(text, "T") == [str(step) for step in steps]
    assert cells(text, "accuracy %") == [f"{100 * accuracy[step - 1]:.2f}" for step in steps]
    assert cells(text, "same answer %") == [f"{100 * report.agreement[step - 1]:.2f}" for step in steps]


def test_points_lost_are_those_of_the_source_over_the_spiking_network(report: ConversionReport) -> None:
    assert report.accuracy is not None
    assert report.source_accuracy is not None
    lost = 100 * (report.source_accuracy - report.accuracy[-1])
    assert abs(lost) > 1
    assert f"({lost:+.2f} points lost)" in report.table()


def test_every_cell_of_a_layer_is_under_its_header(report: ConversionReport) -> None:
    text = report.table()
    header = cells(text, "layer")
    for layer in report.layers:
        row = dict(zip(header, cells(text, layer.name), strict=True))
        assert row["neurons"] == str(layer.neurons)
        assert row["corr."] == f"{layer.correlation:.4f}"
        for name in (*TERMS, "total"):
            assert row[name] == f"{100 * layer.errors[name].mean_absolute / layer.source_mean:.2f}"
        assert float(row["total"]) > 0
        assert row["silent"] == f"{100 * layer.silent:.1f}"
        assert row["satur."] == f"{100 * layer.saturated:.1f}"
        assert row["resid."] == f"{layer.residual:.2f}"
        assert row["too many"] == f"{100 * layer.too_many:.1f}"
        assert row["too few"] == f"{100 * layer.too_few:.1f}"
        assert row["spikes"] == f"{layer.events:,.1f}"
    assert any(layer.silent != layer.saturated for layer in report.layers)
    assert any(layer.too_many != layer.too_few for layer in report.layers)


@pytest.fixture
def figures(report: ConversionReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The figures by file name, as they are saved."""
    saved: dict[str, Any] = {}
    monkeypatch.setattr(pictures, "save_figure", lambda figure, path: saved.update({path.name: figure}))
    report.plot(tmp_path)
    return saved


def test_bars_stand_on_each_other(report: ConversionReport, figures: dict[str, Any]) -> None:
    (axis,) = figures["errors.png"].axes
    floor = [0.0] * len(report.layers)
    for term, bars in zip(TERMS, axis.containers, strict=True):
        assert bars.get_label() == term
        for place, (bar, layer) in enumerate(zip(bars, report.layers, strict=True)):
            assert bar.get_y() == pytest.approx(floor[place])
            assert bar.get_height() == pytest.approx(100 * layer.errors[term].mean_absolute / layer.source_mean)
            floor[place] += bar.get_height()
    marks = axis.collections[0].get_offsets().tolist()
    totals = [100 * layer.errors["total"].mean_absolute / layer.source_mean for layer in report.layers]
    assert marks == [[place, pytest.approx(total)] for place, total in enumerate(totals)]
    assert [label.get_text() for label in axis.get_xticklabels()] == [layer.name for layer in report.layers]


def test_the_legend_covers_no_bar(figures: dict[str, Any]) -> None:
    figure = figures["errors.png"]
    figure.canvas.draw()
    (legend,) = figure.legends
    assert legend.get_window_extent().x0 >= figure.axes[0].get_window_extent().x1


def test_curves_are_those_of_the_report(report: ConversionReport, figures: dict[str, Any]) -> None:
    (axis,) = figures["accuracy.png"].axes
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert report.accuracy is not None
    assert lines["accuracy"].get_xdata() is not None
    assert list(lines["accuracy"].get_xdata()) == [1, 2, 3, 4, 5]
    assert list(lines["accuracy"].get_ydata()) == pytest.approx([100 * value for value in report.accuracy])
    same = lines["same answer as the source network"].get_ydata()
    assert list(same) == pytest.approx([100 * value for value in report.agreement])


def test_points_have_activations_across_and_outputs_up(report: ConversionReport, figures: dict[str, Any]) -> None:
    axes = [axis for axis in figures["rates.png"].axes if axis.axison]
    for axis, layer in zip(axes, report.layers, strict=True):
        drawn = torch.tensor(axis.collections[0].get_offsets().tolist())
        torch.testing.assert_close(drawn, report.points[layer.name])
        assert not torch.equal(drawn[:, 0], drawn[:, 1])
        assert axis.get_title().startswith(layer.name)
