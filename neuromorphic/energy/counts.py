"""What a network did on data: integers per layer, time step and sample, and the geometry they belong to.

Nothing here knows a price. Every energy model is a function of these integers; the mapper reads the geometry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np

from neuromorphic.energy.layer_counts import ARRAYS as ARRAYS
from neuromorphic.energy.layer_counts import KINDS as KINDS
from neuromorphic.energy.layer_counts import Events as Events
from neuromorphic.energy.layer_counts import Kind as Kind
from neuromorphic.energy.layer_counts import LayerCounts as LayerCounts
from neuromorphic.energy.signals import ANALOG as ANALOG
from neuromorphic.energy.signals import SPIKES as SPIKES
from neuromorphic.energy.signals import Signal as Signal

INPUT: Final = "input"
"""Name of the network's input among the sources of a layer."""
FORMAT: Final = 1
"""Version of the JSON form."""


@dataclass(frozen=True, eq=False)
class Counts:
    """All layers of a network on some samples, in the order in which they ran first.

    Attributes:
        layers: see `LayerCounts`.
        steps: time steps T of one inference.
        samples: number of samples B.
        input_shape: of one sample at one step.
        input_signal: as declared by the caller.
        parameter_count: all parameters of the network.
        footprint_bytes: bytes of all parameters and buffers as they are held.
        source: "torch" or "engine".
        dt_ms: length of a step where the network has one (the engine), else None.
    """

    layers: tuple[LayerCounts, ...]
    steps: int
    samples: int
    input_shape: tuple[int, ...] = ()
    input_signal: Signal = ANALOG
    parameter_count: int = 0
    footprint_bytes: int = 0
    source: str = "torch"
    dt_ms: float | None = None

    def __post_init__(self) -> None:
        names = [layer.name for layer in self.layers]
        if len(set(names)) != len(names):
            raise ValueError(f"Counts: layer names must differ, got {sorted({n for n in names if names.count(n) > 1})}")
        for layer in self.layers:
            if layer.samples != self.samples:
                raise ValueError(f"Counts: layer {layer.name!r} has {layer.samples} samples, expected {self.samples}")

    def __getitem__(self, name: str) -> LayerCounts:
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(f"no layer {name!r}; layers: {', '.join(layer.name for layer in self.layers)}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def connections(self) -> tuple[LayerCounts, ...]:
        """Layers that do synaptic operations."""
        return tuple(layer for layer in self.layers if layer.is_connection)

    @property
    def neurons(self) -> tuple[LayerCounts, ...]:
        """Layers with neurons."""
        return tuple(layer for layer in self.layers if layer.neuron_count)

    def total(self, what: str) -> int:
        """Sum over layers, steps and samples of one array, by the name it has in `LayerCounts`."""
        return sum(layer.total(what) for layer in self.layers)

    def per_sample(self, what: str) -> Events:
        """Sum over layers and steps of one array, int64 [B]."""
        return np.sum([getattr(layer, what).sum(0) for layer in self.layers], axis=0, dtype=np.int64)

    def neurons_behind(self, layer: LayerCounts) -> LayerCounts | None:
        """The first neurons that a connection feeds, through pooling, normalisation and sums; None if there are none."""
        return self._search(layer, lambda found: found.neuron_count > 0)

    def _search(self, layer: LayerCounts, wanted: Any) -> LayerCounts | None:
        reached, position = {layer.name}, self.layers.index(layer)
        for other in self.layers[position + 1 :]:
            if not reached.intersection(other.inputs):
                continue
            if wanted(other):
                return other
            if not other.is_connection:
                reached.add(other.name)
        return None

    def merged(self, other: Counts) -> Counts:
        """Both sets of samples together: `self`'s first.

        Raises: ValueError if the two are not of the same network at the same number of steps.
        """
        if self._shape() != other._shape():
            raise ValueError("Counts.merged: the two counts are of different networks, inputs or numbers of steps")
        layers = []
        for a, b in zip(self.layers, other.layers, strict=True):
            arrays: dict[str, Any] = {
                name: np.concatenate([getattr(a, name), getattr(b, name)], axis=1) for name in ARRAYS
            }
            layers.append(replace(a, **arrays))
        return replace(self, layers=tuple(layers), samples=self.samples + other.samples)

    def up_to(self, steps: int) -> Counts:
        """The first `steps` steps of every layer; layers that ran once for all steps are kept whole.

        Raises: ValueError if there are fewer steps.
        """
        if not 1 <= steps <= self.steps:
            raise ValueError(f"Counts.up_to: steps must be in 1..{self.steps}, got {steps}")
        layers = []
        for layer in self.layers:
            kept = steps if layer.steps == self.steps else layer.steps
            arrays: dict[str, Any] = {name: getattr(layer, name)[:kept] for name in ARRAYS}
            layers.append(replace(layer, **arrays))
        return replace(self, layers=tuple(layers), steps=steps)

    def _shape(self) -> dict[str, Any]:
        shape = self.to_dict() | {"samples": None}
        for layer in shape["layers"]:
            for name in ARRAYS:
                layer[name] = len(layer[name])
        return shape

    def to_dict(self) -> dict[str, Any]:
        """Plain values: numbers, strings, lists."""
        signal = self.input_signal
        return {
            "format": FORMAT,
            "steps": self.steps,
            "samples": self.samples,
            "input_shape": list(self.input_shape),
            "input_signal": {"kind": signal.kind, "levels": signal.levels, "signed": signal.signed},
            "parameter_count": self.parameter_count,
            "footprint_bytes": self.footprint_bytes,
            "source": self.source,
            "dt_ms": self.dt_ms,
            "layers": [layer.to_dict() for layer in self.layers],
        }

    def to_json(self) -> str:
        """All integers and the geometry as JSON text."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str) -> Counts:
        """The inverse of `to_json`.

        Raises: ValueError for text that is not counts of this version.
        """
        values = json.loads(text)
        if not isinstance(values, dict) or values.get("format") != FORMAT:
            raise ValueError(f"Counts.from_json: not counts of format {FORMAT}")
        return Counts(
            tuple(LayerCounts.from_dict(layer) for layer in values["layers"]),
            steps=values["steps"],
            samples=values["samples"],
            input_shape=tuple(values["input_shape"]),
            input_signal=Signal(**values["input_signal"]),
            parameter_count=values["parameter_count"],
            footprint_bytes=values["footprint_bytes"],
            source=values["source"],
            dt_ms=values["dt_ms"],
        )


@dataclass(frozen=True, eq=False)
class LayerActivity:
    """What one layer of an event network (a connection and the neurons behind it) did on a batch.

    Attributes:
        name: of the layer; that of the torch module where the network was compiled from one.
        input_spikes: spikes that arrived, int64 [T, B].
        synaptic_events: spikes times the synapses they crossed, int64 [T, B].
        neuron_updates: membrane updates, int64 [T, B].
        output_spikes: spikes that the neurons emitted, int64 [T, B].
    """

    name: str
    input_spikes: Events
    synaptic_events: Events
    neuron_updates: Events
    output_spikes: Events


@runtime_checkable
class EventNetwork(Protocol):
    """A network of the event engine that reports what its layers did."""

    def activity(self, x: Any) -> Sequence[LayerActivity]:
        """Run the input [T, B, ...] and return every layer's integers, in the order of the layers."""
        ...


def from_activity(layers: Iterable[LayerActivity]) -> Counts:
    """Counts of an event network's run, one layer of kind "event" per reported layer.

    The reported synaptic events stand for `synops` and `synops_nonzero`, since the report does not tell them apart.

    Args:
        layers: as `EventNetwork.activity` returns them, each fed by the one before.
    Raises: ValueError if there is no layer or if the shapes differ.
    """
    found: list[LayerCounts] = []
    for layer in layers:
        found.append(
            LayerCounts(
                layer.name,
                "event",
                inputs=(found[-1].name if found else INPUT,),
                input_signal=SPIKES,
                output_signal=SPIKES,
                input_events=layer.input_spikes,
                synops=layer.synaptic_events,
                synops_nonzero=layer.synaptic_events,
                output_events=layer.output_spikes,
                output_magnitude=layer.output_spikes,
                neuron_updates=layer.neuron_updates,
            )
        )
    if not found:
        raise ValueError("from_activity: the event network reported no layer")
    return Counts(tuple(found), found[0].steps, found[0].samples, input_signal=SPIKES, source="engine")
