"""Ways of counting additions (AC) and multiply-accumulates (MAC), as published tools and papers do.

On one and the same activity they differ by factors, so a number without its convention says little.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Final, NamedTuple

from neuromorphic.energy.counts import Counts, LayerCounts


class Operations(NamedTuple):
    """Operations of one layer per inference (mean over samples)."""

    layer: str
    term: str
    macs: float = 0.0
    acs: float = 0.0


Convention = Callable[[Counts, bool], list[Operations]]


def _steps(layer: LayerCounts, once: bool) -> int:
    return 1 if once else layer.steps


def _mean(layer: LayerCounts, what: str) -> float:
    return layer.total(what) / layer.samples


def rate_synops(layer: LayerCounts) -> float:
    """Rate times padded dense operations, summed over steps, per inference: the "SOP" of papers."""
    if not layer.dense_synops_padded or layer.kind == "matmul":  # no shape, or two operands with a rate each
        return _mean(layer, "synops")
    return _mean(layer, "input_events") * layer.dense_synops_padded / prod(layer.input_shape)


def _split(layer: LayerCounts, acs: float, macs: float) -> Operations:
    if layer.input_signal.is_binary:
        return Operations(layer.name, "synaptic operations", acs=acs)
    return Operations(layer.name, "synaptic operations", macs=macs)


def exact_operations(counts: Counts, analog_once: bool = False) -> list[Operations]:
    """Exact fan-out of every spike, zero weights included, padding left out; layers with other inputs are dense."""
    return [
        _split(
            layer,
            _mean(layer, "synops"),
            layer.dense_synops * _steps(layer, analog_once) if layer.dense_synops else _mean(layer, "synops"),
        )
        for layer in counts.connections
    ]


def nonzero_operations(counts: Counts, analog_once: bool = False) -> list[Operations]:
    """NeuroBench's effective operations: zero inputs and zero weights are skipped everywhere."""
    found = []
    for layer in counts.connections:
        share = 1.0 if not analog_once or layer.input_signal.is_binary else 1.0 / layer.steps
        operations = _mean(layer, "synops_nonzero") * share
        found.append(_split(layer, operations, operations))
    return found


def sop_operations(counts: Counts, analog_once: bool = False) -> list[Operations]:
    """Papers' SOPs: mean firing rate of the input times padded dense MACs times steps."""
    return [
        _split(layer, rate_synops(layer), layer.dense_synops_padded * _steps(layer, analog_once))
        for layer in counts.connections
    ]


def spikingjelly_operations(counts: Counts, analog_once: bool = False) -> list[Operations]:
    """SpikingJelly's counters: exact fan-out of spikes, padded dense MACs for everything else."""
    return [
        _split(layer, _mean(layer, "synops"), layer.dense_synops_padded * _steps(layer, analog_once))
        for layer in counts.connections
    ]


def syops_operations(counts: Counts, analog_once: bool = False) -> list[Operations]:
    """syops-counter: padded dense operations and biases times the input rate; neurons, pooling and norms by entries.

    It divides by the length of the first axis and adds the bias of linear layers once per call; here every sample gets
    its own, which equals the tool at a batch of one.
    """
    found = []
    for layer in counts.layers:
        if layer.is_connection:
            per_step = layer.dense_synops_padded + (prod(layer.output_shape) if layer.bias_count else 0)
            rate = _mean(layer, "input_events") / prod(layer.input_shape)
            found.append(_split(layer, per_step * rate, per_step * _steps(layer, analog_once)))
        elif layer.kind == "neuron":
            found.append(Operations(layer.name, "neurons", acs=_mean(layer, "neuron_updates")))
        elif layer.kind == "norm":
            found.append(Operations(layer.name, "normalisation", macs=2.0 * prod(layer.input_shape) * layer.steps))
        elif layer.kind == "pool":
            found.append(Operations(layer.name, "pooling", acs=float(prod(layer.input_shape) * layer.steps)))
    return found


def dense_operations(counts: Counts, analog_once: bool = False) -> list[Operations]:
    """Every product with padding, nothing skipped; `analog_once` counts one pass for all layers, as an ANN makes it."""
    return [
        Operations(
            layer.name, "synaptic operations", macs=float(layer.dense_synops_padded * _steps(layer, analog_once))
        )
        for layer in counts.connections
    ]


CONVENTIONS: Final[dict[str, Convention]] = {
    "exact": exact_operations,
    "sop": sop_operations,
    "spikingjelly": spikingjelly_operations,
    "neurobench": nonzero_operations,
    "syops": syops_operations,
    "dense": dense_operations,
}
"""Every way of counting, by name."""
