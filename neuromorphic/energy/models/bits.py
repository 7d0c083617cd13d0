"""Bit Budget, S-ACE and NS-ACE: the arithmetic of spiking and quantised networks on one axis.

Shen, Zhao, Li, Li, Zeng, "Are Conventional SNNs Really Efficient? A Perspective from Network Quantization", CVPR 2024.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil, log2, prod
from typing import Final

from neuromorphic.energy.counts import Counts, LayerCounts
from neuromorphic.energy.estimates import Estimate, Row, exact, row
from neuromorphic.energy.models.conventions import rate_synops

SOURCE: Final = "Shen et al., CVPR 2024, arXiv 2311.10802"
UNIT: Final = "bit operations"


def bit_budget(weight_bits: int, spike_bits: int, steps: int) -> int:
    """BB = T b_w b_s. A layer without time has steps 1 and the bits of its activations as `spike_bits`.

    Raises: ValueError for a number below 1.

    >>> bit_budget(weight_bits=16, spike_bits=1, steps=4)
    64
    """
    for name, value in (("weight_bits", weight_bits), ("spike_bits", spike_bits), ("steps", steps)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"bit_budget: {name} must be a whole number >= 1, got {value!r}")
    return weight_bits * spike_bits * steps


def information_bits(steps: int) -> int:
    """ceil(log2(T + 1)): bits of a count of binary spikes in T steps (Yan et al., arXiv 2409.08290).

    >>> [information_bits(T) for T in (1, 4, 8, 16)]
    [1, 3, 4, 5]
    """
    if steps < 1:
        raise ValueError(f"information_bits: steps must be >= 1, got {steps}")
    return ceil(log2(steps + 1))


def levels(steps: int, spike_bits: int) -> int:
    """Values that the mean of T spikes of b_s bits can take: T (2^b_s - 1) + 1."""
    return steps * (2**spike_bits - 1) + 1


def arithmetic_effort(
    counts: Counts,
    weight_bits: int | Mapping[str, int] | None = None,
    input_bits: int = 8,
    analog_bits: int = 32,
    exact_fanout: bool = False,
    analog_once: bool = False,
) -> Estimate:
    """S-ACE and NS-ACE of every layer: n T b_w b_s, and the same with zero entries of the input skipped.

    `total.high` is S-ACE, `total.typical` and `total.low` are NS-ACE. The width of a layer's input follows from what it
    is declared to carry: an average over four binary spikes holds 0..4 and is charged with 3 bits.

    Args:
        counts: of the network.
        weight_bits: bits of the weights of all layers, or by layer name; None takes what the layers hold.
        input_bits: width of an analog network input (8 for images).
        analog_bits: width of other analog tensors; 32 charges float32.
        exact_fanout: count the products that exist, not padding positions.
        analog_once: charge layers with analog input once and not at every step they ran.
    Raises: ValueError for a width below 1 or a layer that `weight_bits` does not name.
    """
    rows: list[Row] = []
    per_layer: dict[str, float] = {}
    for layer in counts.connections:
        w = _weight_bits(layer, weight_bits, analog_bits)
        s = _input_bits(counts, layer, input_bits, analog_bits)
        runs = 1 if analog_once and layer.input_signal.kind == "analog" else layer.steps
        dense = (layer.dense_synops if exact_fanout else layer.dense_synops_padded) * runs
        synops = layer.total("synops") / layer.samples if exact_fanout else rate_synops(layer)
        active = synops * runs / layer.steps
        price = exact(w * s, f"bit operations per product ({w}-bit weight, {s}-bit input)", "any", SOURCE)
        rows.append(row(layer.name, f"{w} x {s} bit", active, price, UNIT, count_high=dense))
        entries = prod(layer.input_shape) * layer.steps * layer.samples
        per_layer[f"rate of the input of {layer.name}"] = layer.total("input_events") / entries
    products = sum(entry.count_high for entry in rows)
    metrics = {
        "s_ace": sum(entry.high for entry in rows),
        "ns_ace": sum(entry.typical for entry in rows),
        "effective_bits": sum(entry.typical for entry in rows) / products if products else 0.0,
        **per_layer,
    }
    text = "S-ACE (high) and NS-ACE (low, typical)" + (", exact fan-out" if exact_fanout else ", padding counted")
    notes = (
        "bit operations have no energy without a device: products grow with the square of the bits, sums linearly",
    )
    return Estimate("bit-budget", text, tuple(rows), UNIT, notes, metrics)


def _weight_bits(layer: LayerCounts, given: int | Mapping[str, int] | None, analog_bits: int) -> int:
    if isinstance(given, Mapping):
        if layer.name not in given:
            raise ValueError(f"weight_bits has no entry for layer {layer.name!r}; it has {sorted(given)}")
        bits = given[layer.name]
    else:
        bits = given if given is not None else layer.weight_bits or analog_bits
    if bits < 1:
        raise ValueError(f"weight_bits must be >= 1, got {bits} for layer {layer.name!r}")
    return bits


def _input_bits(counts: Counts, layer: LayerCounts, input_bits: int, analog_bits: int) -> int:
    if min(input_bits, analog_bits) < 1:
        raise ValueError(f"input_bits and analog_bits must be >= 1, got {input_bits} and {analog_bits}")
    declared = layer.input_signal.bits
    if declared is not None:
        return declared
    return input_bits if layer.inputs == ("input",) else analog_bits
