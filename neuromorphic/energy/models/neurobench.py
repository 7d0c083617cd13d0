"""NeuroBench's metrics from counts.

Yik et al., "The neurobench framework for benchmarking neuromorphic computing algorithms and systems", Nature
Communications 16:1545, 2025; definitions as in its package, version 2.3.
"""

from __future__ import annotations

from math import prod
from typing import Final

from neuromorphic.energy.counts import Counts, LayerCounts
from neuromorphic.energy.estimates import Estimate, exact, row

SOURCE: Final = "Yik et al., Nat. Commun. 16:1545, 2025; neurobench 2.3"
UNIT: Final = "operations"
_CONNECTIONS: Final = ("linear", "conv")

NEURON_OPERATIONS: Final[dict[str, tuple[int, int]]] = {
    "Leaky": (4, 4),
    "Synaptic": (6, 8),
    "Lapicque": (11, 11),
    "Alpha": (18, 24),
}
"""Operations of one update of snnTorch's neurons: reset by subtraction, reset to zero."""


def neurobench(counts: Counts) -> Estimate:
    """Effective and dense synaptic operations by layer, and NeuroBench's other metrics in `metrics`.

    footprint, parameter_count, connection_sparsity, activation_sparsity, effective_macs, effective_acs, dense,
    membrane_updates; and effective_neuron_ops and dense_neuron_ops where all neurons are of a kind that it prices.

    Two differences from the tool are kept on purpose. AC or MAC follows from what a tensor is declared to carry, while
    NeuroBench looks whether all values of a call are in {-1, 0, 1}. And "dense" of an LSTM cell has all states
    non-zero, while NeuroBench leaves h and c as they are.
    """
    rows = []
    per_operation = exact(1, "operation", "any", SOURCE)
    for layer in counts.layers:
        effective = layer.total("synops_nonzero") / layer.samples
        if layer.kind not in _CONNECTIONS and not _is_gate(layer):
            continue
        term = "effective AC" if layer.input_signal.is_binary else "effective MAC"
        rows.append(row(layer.name, term, effective, per_operation, UNIT, count_high=_dense(layer)))
    metrics = _metrics(counts)
    text = "effective operations (low, typical): zero inputs and zero weights skipped; dense (high): none skipped"
    return Estimate("neurobench", text, tuple(rows), UNIT, ("NeuroBench prices nothing",), metrics)


def _is_gate(layer: LayerCounts) -> bool:
    return layer.kind == "elementwise" and bool(layer.total("synops_nonzero"))


def _dense(layer: LayerCounts) -> float:
    return layer.total("multiplies") / layer.samples if _is_gate(layer) else layer.dense_macs


def _metrics(counts: Counts) -> dict[str, float]:
    weighted = [layer for layer in counts.layers if layer.kind in _CONNECTIONS]
    weights = sum(layer.weight_count for layer in weighted)
    present = sum(layer.weight_nonzero_count for layer in weighted)
    active = [layer for layer in counts.layers if layer.kind in ("neuron", "activation")]
    values = sum(prod(layer.output_shape) * layer.steps * layer.samples for layer in active)
    nonzero = sum(layer.total("output_events") for layer in active)
    operations = [layer for layer in counts.layers if layer.kind in _CONNECTIONS or _is_gate(layer)]
    binary = sum(layer.total("synops_nonzero") for layer in operations if layer.input_signal.is_binary)
    metrics = {
        "effective_acs": binary / counts.samples,
        "effective_macs": (sum(layer.total("synops_nonzero") for layer in operations) - binary) / counts.samples,
        "dense": sum(_dense(layer) for layer in operations),
        "footprint": float(counts.footprint_bytes),
        "parameter_count": float(counts.parameter_count),
        "connection_sparsity": round(1 - present / weights, 4) if weights else 0.0,
        "activation_sparsity": 1 - nonzero / values if values else 0.0,
        "membrane_updates": counts.total("membrane_changes") / counts.samples,
    }
    if counts.neurons and all(layer.neuron_model in NEURON_OPERATIONS for layer in counts.neurons):
        cost = {layer.name: NEURON_OPERATIONS[layer.neuron_model][bool(layer.hard_reset)] for layer in counts.neurons}
        for name, what in (("effective_neuron_ops", "membrane_changes"), ("dense_neuron_ops", "neuron_updates")):
            metrics[name] = sum(layer.total(what) * cost[layer.name] for layer in counts.neurons) / counts.samples
    return metrics
