"""One layer of a network that ran: its geometry, and integers per time step and sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import prod
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from neuromorphic.energy.signals import ANALOG, Signal

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
        input_events: non-zero entries of the input of a connection (of a "matmul", of its first operand).
        synops: products with a non-zero input, zero weights included, padding left out (exact fan-out).
        synops_nonzero: the same without zero weights.
        output_events: spikes of neurons; non-zero entries of activations.
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
