"""Memory, addressing and operations of a spiking or dense network on a generic digital chip.

E. Lemaire, L. Cordone, A. Castagnetti, P.-E. Novac, J. Courtois, B. Miramond, "An Analytical Estimation of Spiking Neural
Networks Energy Efficiency", ICONIP 2022, arXiv 2210.13107; its memory line is a fit through Horowitz' SRAM energies.
"""

from __future__ import annotations

from math import ceil, prod
from typing import Final, Literal

from neuromorphic.energy.counts import Counts, LayerCounts
from neuromorphic.energy.estimates import Estimate, Price, Row, exact, row
from neuromorphic.energy.models.horowitz import NODE, add_price, mac_price
from snn.errors import UnsupportedError

SOURCE: Final = "Lemaire et al., ICONIP 2022, arXiv 2210.13107"
_SLOPE: Final = 1.09e-5
_FIFO_PJ: Final = 13.2

Addressing = Literal["per synapse", "per kernel position"]


def access_pj(elements: float, bits: int) -> float:
    """Energy of one access to a memory of so many elements of so many bits: 1.09e-5 n b + 13.2 pJ.

    >>> round(access_pj(2048, 32), 4)
    13.9143
    """
    return _SLOPE * elements * bits + _FIFO_PJ


def lemaire(
    counts: Counts,
    bits: int = 32,
    precision: str | None = None,
    addressing: Addressing = "per synapse",
    analog_once: bool = True,
) -> Estimate:
    """Energy by memory access, operation and addressing, per layer of weights and the neurons behind it.

    Spiking layers: every spike reads one weight and reads and writes one potential per synapse; every neuron reads its
    bias, reads and writes its potential at each step; a leak costs one multiply-accumulate per neuron and step. Layers
    with analog or multi-level input count as dense layers. Weights and potentials lie in memories of their own size,
    spikes in queues.

    Args:
        counts: of a network whose connections have shapes.
        bits: of weights, biases and potentials.
        precision: of the operations; None takes "int32" at 32 bits, "int8" at 8.
        addressing: additions to find the targets of a spike in a convolution: "per synapse" (as SpikingJelly reads the
            paper) or "per kernel position" (as the authors' code does).
        analog_once: charge layers with analog input once, as the paper does, not at every step they ran.
    Raises: ValueError for bits without a precision or an unknown addressing; UnsupportedError for a network without
        shapes (an event network, see `with_geometry`) or with products of activations.
    """
    chosen = precision or {32: "int32", 16: "int16", 8: "int8"}.get(bits)
    if chosen is None:
        raise ValueError(f"lemaire: bits {bits} has no known operations; say precision='int32', 'int16' or 'int8'")
    if addressing not in ("per synapse", "per kernel position"):
        raise ValueError(f"lemaire: addressing must be 'per synapse' or 'per kernel position', got {addressing!r}")
    rows: list[Row] = []
    for layer in counts.connections:
        if not layer.weight_shape or not layer.input_shape or layer.kind == "matmul":
            raise UnsupportedError(
                f"lemaire: layer {layer.name!r} ({layer.kind}) has no weights in memory of known shape"
            )
        neurons = layer if layer.neuron_count else counts.neurons_behind(layer)
        costs = _Costs(layer.name, bits, chosen)
        if layer.input_signal.is_binary:
            _spiking(costs, layer, neurons, addressing)
        else:
            is_analog = layer.input_signal.kind == "analog"
            _dense(costs, layer, 1 if analog_once and is_analog else layer.steps)
        rows += costs.rows
    text = f"memory, addressing and operations, {bits} bit, {chosen}, addressing {addressing}"
    text += ", analog layers once" if analog_once else ", analog layers at every step they ran"
    notes = ("on-chip SRAM of each layer's own size; no DRAM, routing or static energy",)
    return Estimate("lemaire", text, tuple(rows), notes=notes)


class _Costs:
    """Rows of one layer."""

    def __init__(self, layer: str, bits: int, precision: str) -> None:
        self.layer = layer
        self.bits = bits
        self.add, self.mac = add_price(precision), mac_price(precision)
        self.rows: list[Row] = []

    def memory(self, term: str, count: float, elements: float) -> None:
        value = access_pj(elements, self.bits)
        what = "queue of spikes" if elements == 0 else f"SRAM of {elements:g} x {self.bits} bit"
        self._append(term, count, exact(value, f"pJ per access, {what}", NODE, SOURCE))

    def operations(self, adds: float, macs: float, prefix: str) -> None:
        self._append(f"{prefix} AC", adds, self.add)
        self._append(f"{prefix} MAC", macs, self.mac)

    def _append(self, term: str, count: float, price: Price) -> None:
        if count:
            self.rows.append(row(self.layer, term, count, price))


def _spiking(costs: _Costs, layer: LayerCounts, neurons: LayerCounts | None, addressing: str) -> None:
    spikes = layer.total("input_events") / layer.samples
    outputs = neurons.neuron_count if neurons else prod(layer.output_shape)
    emitted = neurons.total("output_events") / neurons.samples if neurons else 0.0
    updates = outputs * layer.steps
    reached, summed, addressed, lookups = _targets(layer, addressing)
    biases = updates if layer.bias_count else 0
    costs.memory("read inputs", spikes, 0)
    costs.memory("write outputs", emitted, 0)
    costs.memory("read weights", spikes * reached, layer.weight_count)
    costs.memory("read biases", biases, layer.bias_count)
    costs.memory("read potentials", spikes * reached + updates, outputs)
    costs.memory("write potentials", spikes * reached + updates, outputs)
    leak = updates if neurons is not None and neurons.leaky else 0
    costs.operations(spikes * summed + updates + emitted, leak, "operations")
    costs.operations(spikes * addressed, spikes * lookups, "addressing")


def _targets(layer: LayerCounts, addressing: str) -> tuple[int, int, int, int]:
    """Per spike: synapses, additions, addressing additions and addressing multiply-accumulates."""
    if layer.kind == "linear" or not layer.kernel_size:
        return layer.weight_shape[0], layer.weight_shape[0], layer.weight_shape[0], 0
    taps = prod(layer.kernel_size)
    channels = layer.weight_shape[0] // layer.groups if layer.kind == "conv" else layer.weight_shape[1]
    strides = layer.stride if layer.kind == "conv" else (1,) * len(layer.stride)
    summed = prod(ceil(k / s) for k, s in zip(layer.kernel_size, strides, strict=True))
    return channels * taps, channels * summed, taps * (channels if addressing == "per synapse" else 1), 2


def _dense(costs: _Costs, layer: LayerCounts, runs: int) -> None:
    outputs, inputs = prod(layer.output_shape), prod(layer.input_shape)
    macs = layer.dense_synops_padded * runs
    is_linear = layer.kind == "linear"
    costs.memory("read inputs", inputs * runs if is_linear else macs, inputs)
    costs.memory("write outputs", outputs * runs, outputs)
    costs.memory("read weights", macs, layer.weight_count)
    costs.memory("read biases", outputs * runs if layer.bias_count else 0, layer.bias_count)
    costs.operations(outputs * runs if layer.bias_count else 0, macs, "operations")
    addresses = inputs * outputs if is_linear else inputs + outputs + layer.weight_shape[0] * prod(layer.kernel_size)
    costs.operations(addresses * runs, 0, "addressing")
