"""A spiking network against the quantised network that carries the same information.

Z. Yan, Z. Bai, K. Tang, W.-F. Wong, "Reconsidering the Energy Efficiency of Spiking Neural Networks", arXiv 2409.08290:
T steps of an integrate-and-fire layer carry as much as ceil(log2(T + 1))-bit activations.

What the paper states and is used here: the accumulate, compare and subtract energies at 22 nm and 0.8 V, the energies of
sparse and dense data movement per bit and hop, the off-chip energy, and the break-even inequality. How many hops data
travel and what a b-bit multiplication costs are not among the numbers that could be confirmed: they are arguments, with
a bit-serial multiplication (b accumulations) as the default, so totals are this package's and not the paper's figures.
"""

from __future__ import annotations

from math import ceil, log2, prod
from typing import Final

from neuromorphic.energy.counts import Counts, LayerCounts
from neuromorphic.energy.estimates import Estimate, Price, Row, exact, row
from neuromorphic.energy.models.bits import information_bits
from snn.errors import UnsupportedError

SOURCE: Final = "Yan et al., arXiv 2409.08290"
NODE: Final = "22 nm, 0.8 V"
ACCUMULATE: Final = exact(0.05448, "pJ per accumulation", NODE, SOURCE)
COMPARE: Final = exact(0.05448, "pJ per comparison", NODE, SOURCE)
SUBTRACT: Final = exact(0.05448, "pJ per subtraction", NODE, SOURCE)
SPARSE_MOVE: Final = exact(3.0, "pJ per bit and hop, sparse", NODE, SOURCE)
DENSE_MOVE: Final = exact(0.25, "pJ per bit and hop, dense", NODE, SOURCE)


def break_even_rate(steps: int, sparsity: float, mac_over_accumulate: float) -> tuple[float, float, float]:
    """Highest spike rate at which arithmetic alone favours the spiking network, and the rates that it can have.

    Returns: (k (1 - gamma) / T, (1 - gamma) / T, 1 - gamma): the break-even rate, and the least and largest rate of a
        network whose spike counts equal the quantised activations.
    Raises: ValueError for steps below 1, a sparsity outside [0, 1] or a ratio that is not positive.
    """
    if steps < 1 or not 0 <= sparsity <= 1 or mac_over_accumulate <= 0:
        raise ValueError(
            "break_even_rate: needs steps >= 1, 0 <= sparsity <= 1 and mac_over_accumulate > 0, "
            f"got {steps}, {sparsity}, {mac_over_accumulate}"
        )
    return mac_over_accumulate * (1 - sparsity) / steps, (1 - sparsity) / steps, 1 - sparsity


def snn_or_qnn(
    counts: Counts, sparsity: float | None = None, mac_over_accumulate: float | None = None, hops: float = 1.0
) -> Estimate:
    """Energy of the spiking layers, and in `metrics` of the quantised twin and the break-even rates.

    Per spiking layer: one accumulation per synaptic operation; one comparison per neuron and step; one subtraction per
    spike; each spike moves its address, ceil(log2(sources)) bits, over `hops`. The twin: one multiplication per
    non-zero activation and weight, and every activation's bits moved densely.

    Args:
        counts: of a network with neurons; layers with analog input are the same in both networks and are left out.
        sparsity: share of zero activations gamma of the twin; None takes the share of inputs that stayed silent on
            average as the least spiking that T steps allow, min(1, T s_r).
        mac_over_accumulate: k = E_MAC / E_ACC; None takes the activation bits of the twin (bit-serial).
        hops: that data travel from layer to layer.
    Raises: UnsupportedError without a layer whose input is spikes; ValueError for hops below 0.
    """
    if hops < 0:
        raise ValueError(f"snn_or_qnn: hops must be >= 0, got {hops}")
    spiking = [layer for layer in counts.connections if layer.input_signal.is_binary and layer.dense_synops_padded]
    if not spiking:
        raise UnsupportedError(
            "snn-or-qnn: no layer of known shape has spikes as input, so there is nothing to compare"
        )
    bits = information_bits(counts.steps)
    k = float(bits) if mac_over_accumulate is None else mac_over_accumulate
    rows: list[Row] = []
    metrics: dict[str, float] = {"activation_bits": bits, "mac_over_accumulate": k}
    twin_total = 0.0
    for layer in spiking:
        rows += _spiking_rows(counts, layer, hops)
        entries = prod(layer.input_shape)
        rate = layer.total("input_events") / (entries * layer.steps * layer.samples)
        gamma = max(0.0, 1 - rate * layer.steps) if sparsity is None else sparsity
        twin = (1 - gamma) * layer.dense_synops_padded * k * ACCUMULATE.typical
        twin += entries * bits * hops * DENSE_MOVE.typical
        twin_total += twin
        metrics[f"{layer.name}: rate"] = rate
        metrics[f"{layer.name}: break-even rate"] = break_even_rate(layer.steps, gamma, k)[0]
        metrics[f"{layer.name}: qnn_pj"] = twin
    estimate = Estimate("snn-or-qnn", f"spiking layers only, {hops:g} hops, k = {k:g}", tuple(rows))
    metrics |= {"qnn_pj": twin_total, "snn_over_qnn": estimate.total.typical / twin_total}
    notes = ("layers with analog input are left out: they are the same in both networks",)
    return Estimate(estimate.model, estimate.convention, estimate.rows, notes=notes, metrics=metrics)


def _spiking_rows(counts: Counts, layer: LayerCounts, hops: float) -> list[Row]:
    spikes = layer.total("input_events") / layer.samples
    address = ceil(log2(max(prod(layer.input_shape), 2)))
    terms: list[tuple[str, float, Price]] = [
        ("accumulate", layer.total("synops") / layer.samples, ACCUMULATE),
        (f"move {address}-bit addresses", spikes * address * hops, SPARSE_MOVE),
    ]
    neurons = layer if layer.neuron_count else counts.neurons_behind(layer)
    if neurons is not None:
        terms.append(("compare", neurons.total("neuron_updates") / layer.samples, COMPARE))
        terms.append(("subtract", neurons.total("output_events") / layer.samples, SUBTRACT))
    return [row(layer.name, term, count, price) for term, count, price in terms if count]
