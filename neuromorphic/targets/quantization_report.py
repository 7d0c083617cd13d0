"""Float network and integer network side by side, layer by layer."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch

from neuromorphic.targets.chain import FloatLayer
from neuromorphic.targets.formats import IntegerFormat
from neuromorphic.targets.layers import IntegerLayer
from neuromorphic.targets.network import IntegerNetwork


@dataclass(frozen=True)
class LayerReport:
    """One layer on the calibration data.

    Attributes:
        name: of the weights.
        spike_difference: share of (step, sample, neuron) whose spikes (or counts) differ; None for a read-out.
        float_rate, integer_rate: mean spikes per neuron and step; None for a read-out.
        saturated_weights: share of weights that were clipped to the stored range.
        saturated_states: share of state updates that were clipped or wrapped.
        silent_float, silent_integer: share of neurons that never spiked; None for a read-out.
        output_error: of a read-out, the largest |integer - float| divided by the largest |float|; None for neurons.
        weight_scale: stored integers per unit of the folded weight: smallest and largest over channels.
        exponent: left shift of the stored weights.
    """

    name: str
    spike_difference: float | None
    float_rate: float | None
    integer_rate: float | None
    saturated_weights: float
    saturated_states: float
    silent_float: float | None
    silent_integer: float | None
    output_error: float | None
    weight_scale: tuple[float, float]
    exponent: int


@dataclass(frozen=True)
class QuantizationReport:
    """All layers, the format, and how often both networks name the same class (largest output summed over time)."""

    format: IntegerFormat
    layers: tuple[LayerReport, ...]
    same_prediction: float
    samples: int

    def to_json(self) -> str:
        """Everything as JSON text."""
        return json.dumps(asdict(self))

    def __str__(self) -> str:
        def share(value: float | None) -> str:
            return "-" if value is None else f"{100 * value:.2f} %"

        head = (
            "layer",
            "spikes differ",
            "rate float",
            "rate integer",
            "clipped w",
            "clipped state",
            "silent",
            "silent int",
        )
        rows = [
            (
                layer.name,
                share(layer.spike_difference),
                share(layer.float_rate),
                share(layer.integer_rate),
                share(layer.saturated_weights),
                share(layer.saturated_states),
                share(layer.silent_float),
                share(layer.silent_integer),
            )
            for layer in self.layers
        ]
        widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]
        lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in [head, *rows]]
        form = self.format
        title = f"{form.name}: {form.weight_bits}-bit weights, {form.state_bits}-bit states"
        return "\n".join([title, *lines, f"same prediction: {share(self.same_prediction)} of {self.samples} samples"])


@torch.no_grad()
def compare(
    layers: Sequence[FloatLayer], network: IntegerNetwork, x: torch.Tensor, form: IntegerFormat
) -> QuantizationReport:
    """Run both networks on x [T, B, ...], each on its own spikes, and compare."""
    outputs = network.layer_outputs(x)
    reports, y = [], x
    for layer in layers:
        y = layer.output(layer.current(y))
        stage = network.stages[network.names.index(layer.name)]
        assert isinstance(stage, IntegerLayer)
        spiking = layer.neuron is not None and layer.neuron.family != "li"
        integer = outputs[layer.name]
        found = integer if spiking else integer / network.output_scale
        scale = stage.connection.scale
        neuron = stage.neuron
        reports.append(
            LayerReport(
                name=layer.name,
                spike_difference=float((found != y).double().mean()) if spiking else None,
                float_rate=float(y.double().mean()) if spiking else None,
                integer_rate=float(found.mean()) if spiking else None,
                saturated_weights=stage.connection.clipped_share(),
                saturated_states=0.0 if neuron is None else neuron.saturated / max(1, neuron.updates),
                silent_float=_silent(y) if spiking else None,
                silent_integer=_silent(found) if spiking else None,
                output_error=None if spiking else float((found - y).abs().max() / y.abs().max().clamp(min=1e-12)),
                weight_scale=(float(scale.min()), float(scale.max())),
                exponent=stage.connection.exponent,
            )
        )
    same = (found.sum(0).flatten(1).argmax(1) == y.sum(0).flatten(1).argmax(1)).double().mean()
    return QuantizationReport(form, tuple(reports), float(same), x.shape[1])


def _silent(z: torch.Tensor) -> float:
    """Share of neurons without a spike in [T, B, ...]."""
    return float((z.flatten(2).sum((0, 1)) == 0).double().mean())
