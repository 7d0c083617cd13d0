"""What a network did on data: integers per layer, time step and sample, and the geometry they belong to.

Nothing here knows a price. Every energy model is a function of these integers; the mapper reads the geometry.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from math import ceil, log2, prod
from typing import Any, Final, Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

Events = npt.NDArray[np.int64]
"""Integers of each executed step and sample, int64 [steps, B]."""

Kind = Literal[
    "linear", "conv", "conv_transpose", "matmul", "neuron", "pool", "norm", "activation", "elementwise", "event"
]
KINDS: Final[tuple[Kind, ...]] = (
    "linear",
    "conv",
    "conv_transpose",
    "matmul",
    "neuron",
    "pool",
    "norm",
    "activation",
    "elementwise",
    "event",
)
INPUT: Final = "input"
"""Name of the network's input among the sources of a layer."""
FORMAT: Final = 1
"""Version of the JSON form."""


@dataclass(frozen=True)
class Signal:
    """What a tensor is declared to carry; never found by looking at its values.

    Args:
        kind: "spikes" for whole numbers of spikes (times one common factor, which folds into the next weights), "analog"
            for anything else.
        levels: largest magnitude of one entry, in spikes; 1 for ordinary spikes, 2^b - 1 for b-bit ones; 0 for analog.
        signed: entries may be negative.

    >>> Signal("spikes", levels=5).bits
    3
    """

    kind: Literal["spikes", "analog"]
    levels: int = 0
    signed: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("spikes", "analog"):
            raise ValueError(f"Signal: kind must be 'spikes' or 'analog', got {self.kind!r}")
        if (self.kind == "spikes") != (self.levels >= 1):
            raise ValueError(f"Signal: levels must be >= 1 for spikes and 0 for analog, got {self.levels}")

    @property
    def is_binary(self) -> bool:
        """True where one event is one addition or subtraction: entries 0, 1 or -1."""
        return self.levels == 1

    @property
    def bits(self) -> int | None:
        """Width of one entry, sign included: ceil(log2(levels + 1)) + signed; None for analog."""
        return None if self.kind == "analog" else ceil(log2(self.levels + 1)) + self.signed


ANALOG: Final = Signal("analog")
SPIKES: Final = Signal("spikes", 1)


def _no_events() -> Events:
    return np.zeros((0, 0), dtype=np.int64)


@dataclass(frozen=True, eq=False)
class LayerCounts:
    """One layer: its geometry and what it did.

    Shapes are per sample and step, without time and batch. A layer that ran once for all steps (the convolution of a
    repeated image) has one row in its arrays.

    Attributes:
        name: dotted module name, with a suffix for operations that are no module.
        kind: one of `KINDS`; "event" is a connection together with its neurons, as the event engine reports it.
        inputs: names of the layers that feed it, or "input".
        input_shape, output_shape: of one sample at one step; two operands of a "matmul" are given by the first.
        weight_shape: as torch stores it; for a "matmul" the shape of the second operand.
        kernel_size, stride, padding, dilation, groups: of convolutions and pooling; padding is (before, after) pairs
            flattened to one number per side where both are equal.
        weight_count, weight_nonzero_count, bias_count: of the connection; 0 where there is none.
        weight_bits: bits of one stored weight; None without weights.
        neuron_count: neurons of one sample; 0 for layers without state.
        state_variables: numbers that each neuron keeps.
        neuron_model: class name of the neurons; "" without.
        leaky: the neurons decay between spikes.
        hard_reset: True sets the membrane, False subtracts the threshold, None where unknown or without neurons.
        input_signal, output_signal: as declared.
        recurrent: the connection carries the layer's own output of the step before.
        dense_synops: products of one step for one sample with every input and weight non-zero, padding left out.
        dense_synops_padded: the same with padding positions counted, as published MAC counts do.
        input_events: non-zero entries of the input.
        synops: products with a non-zero input, zero weights included, padding left out (exact fan-out).
        synops_nonzero: the same without zero weights.
        output_events: non-zero entries of the output; for neurons, the spikes.
        output_magnitude: sum of magnitudes of the output in spikes, where it is declared spikes; else 0.
        neuron_updates: membrane updates.
        membrane_changes: membranes whose value changed; 0 where the layer does not show them.
        adds, multiplies: operations other than synaptic ones (pooling, normalisation, residual sums, gates).
    """

    name: str
    kind: Kind
    inputs: tuple[str, ...] = ()
    input_shape: tuple[int, ...] = ()
    output_shape: tuple[int, ...] = ()
    weight_shape: tuple[int, ...] = ()
    kernel_size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1
    weight_count: int = 0
    weight_nonzero_count: int = 0
    bias_count: int = 0
    weight_bits: int | None = None
    neuron_count: int = 0
    state_variables: int = 0
    neuron_model: str = ""
    leaky: bool = False
    hard_reset: bool | None = None
    input_signal: Signal = ANALOG
    output_signal: Signal = ANALOG
    recurrent: bool = False
    dense_synops: int = 0
    dense_synops_padded: int = 0
    input_events: Events = field(default_factory=_no_events)
    synops: Events = field(default_factory=_no_events)
    synops_nonzero: Events = field(default_factory=_no_events)
    output_events: Events = field(default_factory=_no_events)
    output_magnitude: Events = field(default_factory=_no_events)
    neuron_updates: Events = field(default_factory=_no_events)
    membrane_changes: Events = field(default_factory=_no_events)
    adds: Events = field(default_factory=_no_events)
    multiplies: Events = field(default_factory=_no_events)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"LayerCounts {self.name!r}: kind must be one of {KINDS}, got {self.kind!r}")
        shape = max((np.shape(getattr(self, name)) for name in ARRAYS), key=prod)
        for name in ARRAYS:
            array = np.asarray(getattr(self, name))
            if array.dtype.kind not in "iu":
                raise TypeError(f"LayerCounts {self.name!r}: {name} must hold integers, got {array.dtype}")
            if array.size == 0:
                array = np.zeros(shape, dtype=np.int64)
            if array.shape != shape or array.ndim != 2:
                raise ValueError(f"LayerCounts {self.name!r}: {name} must be [steps, B] = {shape}, got {array.shape}")
            array = array.astype(np.int64)
            array.setflags(write=False)
            object.__setattr__(self, name, array)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LayerCounts) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]

    @property
    def steps(self) -> int:
        """Executions of the layer for one sample."""
        return int(self.synops.shape[0])

    @property
    def samples(self) -> int:
        """Samples B."""
        return int(self.synops.shape[1])

    @property
    def is_connection(self) -> bool:
        """True for layers that do synaptic operations."""
        return self.kind in ("linear", "conv", "conv_transpose", "matmul", "event")

    @property
    def acs(self) -> Events:
        """Accumulates [steps, B]: synaptic operations of an input that is declared 0/1 (or -1/0/1) spikes."""
        return self.synops if self.input_signal.is_binary else np.zeros_like(self.synops)

    @property
    def macs(self) -> Events:
        """Multiply-accumulates [steps, B] with a non-zero input: synaptic operations of every other input."""
        return np.zeros_like(self.synops) if self.input_signal.is_binary else self.synops

    @property
    def dense_macs(self) -> int:
        """Products of all executed steps for one sample on hardware that skips nothing, padding left out."""
        return self.dense_synops * self.steps

    @property
    def weight_reads(self) -> Events:
        """Weights fetched [steps, B] when each spike fetches its own: one per synaptic operation."""
        return self.synops if self.weight_count else np.zeros_like(self.synops)

    @property
    def membrane_reads(self) -> Events:
        """State variables read [steps, B] when every neuron is updated once a step; as many are written."""
        return self.neuron_updates * self.state_variables

    @property
    def membrane_writes(self) -> Events:
        """State variables written [steps, B]; see `membrane_reads`."""
        return self.membrane_reads

    @property
    def parameter_bytes(self) -> int:
        """Bytes of weights and biases at `weight_bits`, rounded up."""
        return 0 if self.weight_bits is None else -(-(self.weight_count + self.bias_count) * self.weight_bits // 8)

    def state_bytes(self, bits: int = 32) -> int:
        """Bytes of the neurons' state of one sample at `bits` per variable, rounded up."""
        return -(-self.neuron_count * self.state_variables * bits // 8)

    def total(self, what: str) -> int:
        """Sum of one array (a field or property by name) over steps and samples."""
        return int(getattr(self, what).sum())

    def to_dict(self) -> dict[str, Any]:
        """Plain values: numbers, strings, lists."""
        values: dict[str, Any] = {}
        for entry in fields(self):
            value = getattr(self, entry.name)
            if isinstance(value, Signal):
                value = {"kind": value.kind, "levels": value.levels, "signed": value.signed}
            elif isinstance(value, np.ndarray):
                value = value.tolist()
            elif isinstance(value, tuple):
                value = list(value)
            values[entry.name] = value
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> LayerCounts:
        """The inverse of `to_dict`.

        Raises: ValueError for unknown or missing fields, naming them.
        """
        known = {entry.name for entry in fields(LayerCounts)}
        if set(values) != known:
            raise ValueError(f"LayerCounts: fields {sorted(set(values) ^ known)} are unknown or missing")
        given = dict(values)
        samples = max((len(row) for name in ARRAYS for row in given[name]), default=0)
        for name, value in values.items():
            if name in ARRAYS:
                given[name] = np.array(value, dtype=np.int64).reshape(len(value), samples)
            elif name in ("input_signal", "output_signal"):
                given[name] = Signal(**value)
            elif isinstance(value, list):
                given[name] = tuple(value)
        return LayerCounts(**given)


ARRAYS: Final = tuple(entry.name for entry in fields(LayerCounts) if entry.type == "Events")
"""Names of the [steps, B] arrays of a layer."""


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
