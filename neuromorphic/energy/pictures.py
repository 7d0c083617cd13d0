"""Pictures of an energy report, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import torch

from neuromorphic.energy.estimates import PJ
from neuromorphic.energy.estimating import CHIP
from neuromorphic.energy.report import Report, energy_by_step

_COLOURS: Final = (
    "#1f4e79",
    "#c0392b",
    "#2e7d32",
    "#b8860b",
    "#5e35b1",
    "#00838f",
    "#6d4c41",
    "#455a64",
    "#ad1457",
    "#9e9d24",
)
_SHOWN_NEURONS: Final = 60


def figure_and_axes(size: tuple[float, float], rows: int = 1) -> tuple[Any, Any]:
    """A figure of so many inches and its axes, one below the other.

    Raises: ImportError without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib; install it with: pip install 'spikeloop[plots]'") from error
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, 1, squeeze=False)[:, 0]


def png_of(figure: Any) -> bytes:
    """The figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def layer_bars(report: Report, model: str) -> bytes:
    """Energy of each layer under one model, its terms stacked, with the range of the sum."""
    found = report.estimates[model]
    order = {layer.name: place for place, layer in enumerate(report.counts.layers)}
    layers = sorted(found.by_layer().items(), key=lambda entry: order.get(entry[0], len(order)))
    figure, (axis,) = figure_and_axes((8.0, 1.4 + 0.32 * len(layers)))
    terms = list(found.by_term())
    left = dict.fromkeys((name for name, _ in layers), 0.0)
    for number, term in enumerate(terms):
        widths = dict.fromkeys(left, 0.0)
        for row in found.rows:
            if row.term == term:
                widths[row.layer] += row.typical
        colour = _COLOURS[number % len(_COLOURS)]
        axis.barh(list(left), list(widths.values()), left=list(left.values()), color=colour, label=term)
        left = {name: left[name] + widths[name] for name in left}
    for position, (_, total) in enumerate(layers):
        axis.plot([total.low, total.high], [position, position], color="black", lw=1.2, marker="|", markersize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.05 * max((total.high for _, total in layers), default=1.0))
    axis.set_xlabel(f"{found.unit} per inference (bar: typical; line: low to high)")
    axis.set_title(f"{report.case.name}: {found.model}")
    axis.legend(fontsize=8, loc="lower right", framealpha=0.85)
    return png_of(figure)


def chip_ranges(reports: Sequence[Report]) -> bytes | None:
    """Low, typical and high energy on each model and chip, logarithmic; None where nothing is in pJ."""
    names = list(dict.fromkeys(name for r in reports for name, e in r.estimates.items() if e.unit == PJ and e.rows))
    if not names:
        return None
    figure, (axis,) = figure_and_axes((8.0, 1.4 + 0.34 * len(names) * max(1, len(reports) / 2)))
    for number, report in enumerate(reports):
        offset = (number - (len(reports) - 1) / 2) * 0.8 / max(1, len(reports))
        colour = _COLOURS[number % len(_COLOURS)]
        shown = [(place + offset, report.estimates[n].total) for place, n in enumerate(names) if n in report.estimates]
        for y, total in shown:
            axis.plot(
                [max(total.low, 1e-3) / 1e3, total.high / 1e3],
                [y, y],
                color=colour,
                lw=4,
                alpha=0.4,
                solid_capstyle="butt",
            )
        axis.scatter(
            [total.typical / 1e3 for _, total in shown],
            [y for y, _ in shown],
            color=colour,
            s=22,
            zorder=3,
            label=report.case.name,
        )
    axis.set_xscale("log")
    axis.set_yticks(
        range(len(names)), [name.removeprefix(CHIP) + (" (chip)" if name.startswith(CHIP) else "") for name in names]
    )
    axis.invert_yaxis()
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel("nJ per inference (dot: typical; bar: low to high)")
    axis.legend(fontsize=8, loc="best")
    return png_of(figure)


def accuracy_over_energy(reports: Sequence[Report], model: str) -> bytes | None:
    """Accuracy on the counted inputs against energy, one point per number of steps; None where no energy is known."""
    curves = [(report, energy_by_step(report, model)) for report in reports]
    curves = [(report, energies) for report, energies in curves if energies]
    if not curves:
        return None
    figure, (axis,) = figure_and_axes((7.0, 4.4))
    points: list[tuple[float, float]] = []
    for number, (report, energies) in enumerate(curves):
        accuracy = [100 * a for a in report.accuracy_by_step]
        if len(accuracy) != len(energies):  # a network that gives one answer for all steps
            energies = energies[-1:]
        points += zip(energies, accuracy, strict=True)
        colour = _COLOURS[number % len(_COLOURS)]
        axis.plot([e / 1e3 for e in energies], accuracy, marker="o", ms=4, color=colour, label=report.case.name)
        for step, (energy, value) in enumerate(zip(energies, accuracy, strict=True), start=1):
            if step in (1, len(energies)) and len(energies) > 1:
                axis.annotate(
                    f"{step} step{'s' * (step > 1)}",
                    (energy / 1e3, value),
                    fontsize=7,
                    xytext=(4, -10),
                    textcoords="offset points",
                )
    front = pareto(points)
    axis.plot([e / 1e3 for e, _ in front], [a for _, a in front], color="black", lw=0.9, ls="--", label="Pareto front")
    if max(front)[0] > 5 * min(front)[0]:
        axis.set_xscale("log")
    axis.margins(x=0.12)
    axis.set_xlabel(f"nJ per inference, {model}")
    axis.set_ylabel("accuracy on the counted inputs in %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="best")
    return png_of(figure)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (cost, value) that no other point beats with a lower or equal cost and a higher value, by rising cost."""
    front: list[tuple[float, float]] = []
    for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or value > front[-1][1]:
            front.append((cost, value))
    return front


def raster(report: Report, sample: int = 0) -> bytes | None:
    """Spikes of one input in every layer of neurons; None for a network without."""
    from snn.training.figures import layer_spikes

    spikes, _ = layer_spikes(report.case.network, report.case.x[:, sample : sample + 1])
    spikes = {name: z[:, 0] for name, z in spikes.items() if z.dim() == 3}
    if not spikes:
        return None
    figure, axes = figure_and_axes((7.0, 0.6 + 1.5 * len(spikes)), len(spikes))
    for axis, (name, z) in zip(axes, spikes.items(), strict=True):
        chosen = torch.linspace(0, z.shape[1] - 1, min(z.shape[1], _SHOWN_NEURONS)).round().long()
        steps, neurons = z[:, chosen].nonzero(as_tuple=True)
        axis.scatter(steps.numpy(), neurons.numpy(), s=14, marker="|", linewidths=1.4, color="black")
        axis.set_xlim(-0.6, len(z) - 0.4)
        axis.set_ylim(-1, len(chosen))
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.set_ylabel(f"{name}\n{len(chosen)} of {z.shape[1]}", fontsize=8)
    axes[-1].set_xlabel("time step")
    axes[0].set_title(
        f"{report.case.name}: spikes of input {sample} (label {int(report.case.labels[sample])})", fontsize=10
    )
    return png_of(figure)
