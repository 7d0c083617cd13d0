"""What `spikeloop energy` finds out about each network, as values, as text and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from neuromorphic.energy.counting import count
from neuromorphic.energy.counts import Counts
from neuromorphic.energy.estimates import PJ, Estimate
from neuromorphic.energy.estimating import CHIP, estimate
from neuromorphic.energy.neuron_kinds import reset_all
from neuromorphic.energy.runs import Case
from neuromorphic.targets import map as place
from neuromorphic.targets.mapping import Mapping as Placement
from snn.errors import UnsupportedError
from snn.training.loss import running_scores


@dataclass(frozen=True, eq=False)
class Report:
    """One network.

    Attributes:
        case: network and data.
        counts: of all inputs.
        estimates: by model name.
        refused: why a model gave no total, by model name.
        mappings: placement on each chip that the network fits, by chip.
        unmapped: which limit it breaks on the others, by how much, and what would fit.
        accuracy_by_step: share of the inputs that are right when the logits of the first t steps are averaged.
    """

    case: Case
    counts: Counts
    estimates: Mapping[str, Estimate]
    refused: Mapping[str, str]
    mappings: Mapping[str, Placement]
    unmapped: Mapping[str, str]
    accuracy_by_step: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `counts` holds every integer."""
        return {
            "name": self.case.name,
            "origin": self.case.origin,
            "samples": self.counts.samples,
            "steps": self.counts.steps,
            "test_accuracy": self.case.test_accuracy,
            "accuracy_by_step": list(self.accuracy_by_step),
            "estimates": {name: found.to_dict() for name, found in self.estimates.items()},
            "refused": dict(self.refused),
            "mappings": {name: found.to_dict() for name, found in self.mappings.items()},
            "unmapped": dict(self.unmapped),
            "counts": self.counts.to_dict(),
        }


def make_report(
    case: Case, models: Sequence[str], targets: Sequence[str], frames_per_second: float | None = None
) -> Report:
    """Count a network, price it with every model and chip and place it on every chip.

    Models without a total and chips that it does not fit are kept with their reason.

    Args:
        case: network and data.
        models: names for `estimate`.
        targets: data sheets, by name or path.
        frames_per_second: wanted inferences per second, for duty cycle and static energy of a placement.
    """
    counts = count(case.network, case.x, input_signal=case.input_signal, call=case.call)
    estimates: dict[str, Estimate] = {}
    refused: dict[str, str] = {}
    for model in (*models, *(f"{CHIP}{target}" for target in targets)):
        try:
            estimates[model] = estimate(counts, model)
        except UnsupportedError as error:
            refused[model] = str(error)
    mappings: dict[str, Placement] = {}
    unmapped: dict[str, str] = {}
    for target in targets:
        try:
            mappings[target] = place(counts, target, frames_per_second=frames_per_second)
        except UnsupportedError as error:
            reason = str(error)
            unmapped[target] = reason if reason.startswith(f"{target}:") else f"{target}: {reason}"
    return Report(case, counts, estimates, refused, mappings, unmapped, _accuracy_by_step(case))


def _accuracy_by_step(case: Case) -> tuple[float, ...]:
    reset_all(case.network)
    with torch.no_grad():
        logits = case.network(case.x)
    reset_all(case.network)
    if logits.dim() == 2:
        logits = logits.unsqueeze(0)
    right = running_scores(logits, case.on).argmax(2) == case.labels
    return tuple(right.double().mean(1).tolist())


def text_of(report: Report) -> str:
    """Tables for the terminal."""
    counts = report.counts
    accuracy = report.case.test_accuracy
    head = [
        report.case.origin,
        f"counted on {counts.samples} test inputs, {counts.steps} steps; accuracy on them "
        f"{report.accuracy_by_step[-1]:.2%}" + ("" if accuracy is None else f", of the run {accuracy:.2%}"),
    ]
    layers: list[tuple[str, ...]] = [("layer", "kind", "input", "rate", "AC", "MAC", "dense", "updates", "spikes")]
    layers += [_layer_line(layer) for layer in counts.layers if layer.is_connection or layer.neuron_count]
    energies: list[tuple[str, ...]] = [("model", "low", "typical", "high", "unit")]
    for name, found in report.estimates.items():
        total = found.total
        energies.append((name, *(_number(v) for v in (total.low, total.typical, total.high)), found.unit))
    parts = [*head, "", "per inference:", _table(layers), "", _table(energies)]
    if report.mappings:
        parts += ["", "placed on chips:", _table([PLACEMENT_HEAD, *placement_lines(report)])]
    if report.unmapped:
        parts += ["", "does not fit:", *(f"  {_indented(reason)}" for reason in report.unmapped.values())]
    if report.refused:
        parts += ["", "no total:", *_grouped(report.refused)]
    return "\n".join(parts)


PLACEMENT_HEAD = ("chip", "cores", "of", "fullest limit", "latency us", "duty cycle", "energy nJ", "low", "high")


def placement_lines(report: Report) -> list[tuple[str, ...]]:
    """One line of text cells per chip that the network fits."""
    lines: list[tuple[str, ...]] = []
    for name, found in report.mappings.items():
        fullest = max(found.utilisation.items(), key=lambda entry: entry[1], default=("", 0.0))
        energy = found.energy_pj
        low, typical, high = ("", "no price", "") if energy is None else (_number(value / 1e3) for value in energy)
        lines.append(
            (
                name,
                "" if found.cores_used is None else str(found.cores_used),
                "" if found.cores_available is None else str(found.cores_available),
                f"{fullest[0]} {fullest[1]:.0%}" if fullest[0] else "",
                "" if found.latency_us is None else _number(found.latency_us),
                "" if found.duty_cycle is None else f"{found.duty_cycle:.2%}",
                typical,
                low,
                high,
            )
        )
    return lines


def _grouped(refused: Mapping[str, str]) -> list[str]:
    """One line per reason, with the models that gave it."""
    models: dict[str, list[str]] = {}
    for model, reason in refused.items():
        models.setdefault(reason.removeprefix(f"{model}: "), []).append(model)
    return [f"  {', '.join(named)}: {reason}" for reason, named in models.items()]


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")


def _layer_line(layer: Any) -> tuple[str, ...]:
    per = layer.samples
    size = max(1, layer.steps * per * _size(layer.input_shape))
    signal = layer.input_signal
    kind = "analog" if signal.kind == "analog" else "spikes" if signal.is_binary else f"{signal.bits}-bit"
    return (
        layer.name,
        layer.kind,
        kind if layer.is_connection else "",
        f"{layer.total('input_events') / size:.3f}" if layer.is_connection else "",
        _number(layer.total("acs") / per) if layer.is_connection else "",
        _number(layer.total("macs") / per) if layer.is_connection else "",
        _number(layer.dense_macs) if layer.is_connection else "",
        _number(layer.total("neuron_updates") / per) if layer.neuron_count else "",
        _number(layer.total("output_events") / per) if layer.neuron_count else "",
    )


def _size(shape: tuple[int, ...]) -> int:
    size = 1
    for axis in shape:
        size *= axis
    return size


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.4g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first = row[0].ljust(widths[0])
        lines.append(
            "  " + "  ".join([first, *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))])
        )
    return "\n".join(line.rstrip() for line in lines)


def energy_by_step(report: Report, model: str) -> list[float]:
    """Typical energy of the first t steps in pJ, for t = 1..T; empty where the model is not in pJ or was refused.

    Steps of a preparation come before the first that gives logits, whose energy holds theirs.
    """
    found = report.estimates.get(model)
    if found is None or found.unit != PJ:
        return []
    first = report.counts.steps - len(report.accuracy_by_step) + 1
    return [estimate(report.counts.up_to(t), model).total.typical for t in range(first, report.counts.steps + 1)]
