"""An energy report as one HTML file that needs nothing else: tables, and pictures as data."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final

from neuromorphic.energy import pictures
from neuromorphic.energy.estimates import Estimate
from neuromorphic.energy.report import PLACEMENT_HEAD, Report, placement_lines

_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 62em; padding: 0 1em; }
body { color: #222; background: #fff; }
h1 { font-size: 1.6em; }
h2 { font-size: 1.25em; margin-top: 2em; border-bottom: 1px solid #ccc; }
table { border-collapse: collapse; margin: .8em 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto; }
th, td { padding: .15em .7em; text-align: right; border-bottom: 1px solid #e5e5e5; }
th:first-child, td:first-child { text-align: left; }
th { background: #f4f4f4; }
img { max-width: 100%; }
pre { white-space: pre-wrap; margin: 0; }
.note { color: #555; font-size: .9em; }
details { margin: .4em 0; }
"""


def html_of(reports: Sequence[Report], pictured: str) -> str:
    """The whole page.

    Args:
        reports: one per network.
        pictured: model of the pictures per layer and of accuracy over energy.
    """
    names = ", ".join(report.case.name for report in reports)
    body = [f"<h1>Energy of {escape(names)}</h1>"]
    body.append(
        '<p class="note">Every number is an estimate from counted integers and sourced constants, per inference; '
        "nothing was measured on a device. Estimates of different models differ in what they leave out and are not "
        "to be compared with each other.</p>"
    )
    body.append("<h2>All models and chips</h2>")
    body.append(_picture(pictures.chip_ranges(reports), "energy range of each model and chip"))
    body.append(_picture(pictures.accuracy_over_energy(reports, pictured), "accuracy over energy"))
    for report in reports:
        body += _of_network(report, pictured)
    title = escape(f"Energy of {names}")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(part for part in body if part) + "\n</body></html>\n"
    )


def _of_network(report: Report, pictured: str) -> Iterable[str]:
    counts, accuracy = report.counts, report.case.test_accuracy
    yield f"<h2>{escape(report.case.name)}</h2><p>{escape(report.case.origin)}.</p>"
    said = "" if accuracy is None else f" Test accuracy of the run: {accuracy:.2%}."
    yield (
        f"<p>Counted on {counts.samples} test inputs over {counts.steps} steps; accuracy on them "
        f"{report.accuracy_by_step[-1]:.2%}.{said}</p>"
    )
    rows = []
    for layer in counts.layers:
        signal = layer.input_signal
        carried = "analog" if signal.kind == "analog" else f"{signal.bits}-bit spikes"
        numbers = (
            layer.total("input_events"),
            layer.total("acs"),
            layer.total("macs"),
            layer.dense_macs * counts.samples,
            layer.total("neuron_updates"),
            layer.total("output_events") if layer.neuron_count else 0,
        )
        cells = [f"{number / counts.samples:,.1f}" if number else "" for number in numbers]
        rows.append([layer.name, layer.kind, carried, str(layer.steps), *cells])
    head = ["layer", "kind", "input", "runs", "input events", "AC", "MAC", "dense", "neuron updates", "spikes"]
    yield "<h3>Counts per inference</h3>" + _table(head, rows)
    yield _picture(pictures.raster(report), "spikes of one input")
    if pictured in report.estimates:
        yield _picture(pictures.layer_bars(report, pictured), f"energy per layer, {pictured}")
    totals = [
        [name, f"{e.total.low:,.4g}", f"{e.total.typical:,.4g}", f"{e.total.high:,.4g}", e.unit]
        for name, e in report.estimates.items()
    ]
    yield "<h3>Totals</h3>" + _table(["model", "low", "typical", "high", "unit"], totals)
    if report.refused:
        items = "".join(f"<li>{escape(reason)}</li>" for reason in report.refused.values())
        yield f"<p>No total, since a price or shape is missing:</p><ul>{items}</ul>"
    if report.mappings:
        yield "<h3>Placement on chips</h3>" + _table(PLACEMENT_HEAD, placement_lines(report))
        for placed in report.mappings.values():
            yield f"<details><summary>{escape(placed.title)}</summary><pre>{escape(str(placed))}</pre></details>"
    if report.unmapped:
        items = "".join(f"<li><pre>{escape(reason)}</pre></li>" for reason in report.unmapped.values())
        yield f"<p>Does not fit:</p><ul>{items}</ul>"
    yield "<h3>Terms and sources</h3>"
    for found in report.estimates.values():
        yield _terms(found)


def _terms(found: Estimate) -> str:
    head = ["layer", "term", "count", "low", "typical", "high", "constant", "unit", "node", "source"]
    rows = []
    for entry in found.rows:
        price = entry.price
        constant = f"{price.typical:,.5g}" if price.low == price.high else f"{price.low:,.5g} to {price.high:,.5g}"
        numbers = [f"{value:,.5g}" for value in (entry.count, entry.low, entry.typical, entry.high)]
        rows.append([entry.layer, entry.term, *numbers, constant, price.unit, price.node, price.source])
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    metrics = _table(["metric", "value"], [[name, f"{value:,.6g}"] for name, value in found.metrics.items()])
    return (
        f"<details><summary>{escape(found.model)}: {found.total.typical:,.5g} {escape(found.unit)}</summary>"
        f'<p class="note">{escape(found.convention)}</p><ul class="note">{notes}</ul>'
        f"{_table(head, rows)}{metrics if found.metrics else ''}</details>"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    first = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = ("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{first}</tr>{''.join(lines)}</table>"


def _picture(png: bytes | None, text: str) -> str:
    if png is None:
        return ""
    data = base64.b64encode(png).decode("ascii")
    return f'<p><img alt="{escape(text)}" src="data:image/png;base64,{data}"></p>'
