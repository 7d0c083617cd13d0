"""What a compiled network consists of, and how busy it was on its example."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from neuromorphic.compiler.graph import Conv, DelayedDense, Dense, Fire, Layer, LayerGraph, Pool, as_map
from neuromorphic.compiler.machine import Machine

if TYPE_CHECKING:
    from neuromorphic.energy.counts import LayerActivity


@dataclass
class LayerReport:
    """One layer.

    Attributes:
        name, kind: of the layer.
        shape: of its output.
        neurons: 0 for layers without.
        weights: stored numbers, shared ones once.
        synapses: pairs of input and output that a weight joins, as if weights were not shared.
        events_per_step: events sent (neurons) or additions made (connections) per step on the example; NaN before.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    neurons: int = 0
    weights: int = 0
    synapses: int = 0
    events_per_step: float = float("nan")


@dataclass
class CompileReport:
    """Layers, neurons, synapses and events of a compiled network; `print` shows a table."""

    layers: list[LayerReport]
    memory_bytes: dict[str, int]
    seconds: float = 0.0
    activity: list[LayerActivity] = field(default_factory=list)

    @property
    def neurons(self) -> int:
        """All neurons."""
        return sum(layer.neurons for layer in self.layers)

    @property
    def weights(self) -> int:
        """All stored weights."""
        return sum(layer.weights for layer in self.layers)

    @property
    def synapses(self) -> int:
        """All synapses, shared weights counted for each pair that they join."""
        return sum(layer.synapses for layer in self.layers)

    def note_events(self, activity: Iterable[LayerActivity]) -> None:
        """Fills in the events of each layer from a run."""
        self.activity = list(activity)
        by_name = {layer.name: layer for layer in self.layers}
        for did in self.activity:
            if did.name in by_name and by_name[did.name].synapses:
                by_name[did.name].events_per_step = float(did.synaptic_events.mean())

    def summary(self) -> str:
        """One line."""
        return f"{self.neurons} neurons, {self.synapses} synapses, {self.weights} weights"

    def __str__(self) -> str:
        lines = [f"{'layer':32s} {'kind':12s} {'shape':>16s} {'neurons':>9s} {'weights':>10s} {'synapses':>12s}"]
        for layer in self.layers:
            shape = "x".join(map(str, layer.shape))
            lines.append(
                f"{layer.name:32s} {layer.kind:12s} {shape:>16s} {layer.neurons:9d} {layer.weights:10d} {layer.synapses:12d}"
            )
        lines.append(f"{'all':32s} {'':12s} {'':>16s} {self.neurons:9d} {self.weights:10d} {self.synapses:12d}")
        lines.append(f"compiled in {self.seconds:.2f} s, {sum(self.memory_bytes.values()) / 2**20:.2f} MiB")
        for did in self.activity:
            inputs, additions = did.input_spikes.mean(), did.synaptic_events.mean()
            sent, updates = did.output_spikes.mean(), did.neuron_updates.mean()
            lines.append(
                f"  {did.name:30s} per step: {inputs:9.1f} events in, {additions:11.1f} additions, "
                f"{updates:9.1f} updates, {sent:8.1f} spikes out"
            )
        return "\n".join(lines)


def compile_report(graph: LayerGraph, machine: Machine) -> CompileReport:
    """The static part of the report."""
    return CompileReport([_layer(graph, layer) for layer in graph], machine.memory_bytes())


def _layer(graph: LayerGraph, layer: Layer) -> LayerReport:
    op = layer.op
    kind = op.kind if isinstance(op, Fire) else type(op).__name__.lower()
    neurons = layer.size if isinstance(op, Fire) else 0
    weights = op.weight.size if isinstance(op, Dense | DelayedDense | Conv) else 0
    synapses = weights
    if isinstance(op, Conv | Pool):
        _, H, W = as_map(graph.layers[layer.inputs[0]].shape)
        _, out_H, out_W = as_map(layer.shape)
        kernel = op.weight.shape[2:] if isinstance(op, Conv) else op.kernel
        dilation = op.dilation if isinstance(op, Conv) else (1, 1)
        per_pixel = op.weight.shape[0] * op.weight.shape[1] if isinstance(op, Conv) else layer.shape[0]
        pairs = [
            _taps_inside(*sizes) for sizes in zip((H, W), (out_H, out_W), kernel, op.stride, op.padding, dilation, strict=True)
        ]  # fmt: skip
        synapses = per_pixel * pairs[0] * pairs[1]
    return LayerReport(layer.name, kind, layer.shape, neurons, weights, synapses)


def _taps_inside(size: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """Pairs of input and output along one axis that a tap joins."""
    places = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel)[None, :] * dilation
    return int(((places >= 0) & (places < size)).sum())
