"""45 nm accounting: additions for spikes, multiply-accumulates for everything else, arithmetic alone."""

from __future__ import annotations

from math import prod

from neuromorphic.energy.counts import Counts, LayerCounts
from neuromorphic.energy.estimates import Estimate, Price, Row, row
from neuromorphic.energy.models.conventions import (
    CONVENTIONS,
    exact_operations,
    nonzero_operations,
    sop_operations,
)
from neuromorphic.energy.models.horowitz import add_price, mac_price
from snn.errors import closest


def mac_ac(
    counts: Counts,
    precision: str | None = None,
    convention: str = "exact",
    analog_once: bool = False,
    fold_norm: bool = True,
) -> Estimate:
    """Arithmetic energy at 45 nm.

    The default convention "exact" gives a range: low skips zero weights and zero inputs everywhere, high is the papers'
    rate times padded dense operations. It also prices neurons (one addition per update, and one multiply-accumulate
    where they leak), pooling, residual sums and gates; the other conventions hold what their tool or paper holds.

    Args:
        counts: of the network.
        precision: "fp32", "fp16", "int32", "int16" (interpolated) or "int8"; None takes int8 for a network whose widest
            weights have at most 8 bits, fp16 up to 16 and fp32 above.
        convention: one of `CONVENTIONS`.
        analog_once: charge a layer with analog input once, as if its result were kept for all steps, and not each time
            it really ran.
        fold_norm: leave out normalisation that follows a connection, which folds into its weights.
    Raises: ValueError for an unknown precision or convention.
    Source: Horowitz, ISSCC 2014; memory and data movement are not part of it.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention: unknown {convention!r}{closest(convention, CONVENTIONS)}")
    precision = precision or _precision_of(counts)
    mac, ac = mac_price(precision), add_price(precision)
    rows: list[Row] = []
    if convention == "exact":
        low = {entry.layer: entry for entry in nonzero_operations(counts, analog_once)}
        high = {entry.layer: entry for entry in sop_operations(counts, analog_once)}
        for entry in exact_operations(counts, analog_once):
            a, b = low[entry.layer], high[entry.layer]
            if entry.macs or b.macs:
                rows.append(
                    row(entry.layer, "MAC", entry.macs, mac, count_low=a.macs, count_high=max(entry.macs, b.macs))
                )
            else:
                rows.append(row(entry.layer, "AC", entry.acs, ac, count_low=a.acs, count_high=max(entry.acs, b.acs)))
        rows += [extra for layer in counts.layers for extra in _others(counts, layer, fold_norm, mac, ac)]
    else:
        for entry in CONVENTIONS[convention](counts, analog_once):
            suffix = "" if entry.term == "synaptic operations" else f" ({entry.term})"
            if entry.macs:
                rows.append(row(entry.layer, f"MAC{suffix}", entry.macs, mac))
            if entry.acs:
                rows.append(row(entry.layer, f"AC{suffix}", entry.acs, ac))
    first = "analog layers once" if analog_once else "analog layers at every step they ran"
    text = (CONVENTIONS[convention].__doc__ or "").split("\n")[0]
    notes = ("arithmetic only: no memory, addressing, routing or static energy",)
    return Estimate("45nm", f"{convention}, {precision}, {first}: {text}", tuple(rows), notes=notes)


def _precision_of(counts: Counts) -> str:
    widest = max((layer.weight_bits or 0 for layer in counts.connections), default=32) or 32
    return "int8" if widest <= 8 else "fp16" if widest <= 16 else "fp32"


def _others(counts: Counts, layer: LayerCounts, fold_norm: bool, mac: Price, ac: Price) -> list[Row]:
    rows = []
    updates = layer.total("neuron_updates") / layer.samples
    if updates:
        rows.append(row(layer.name, "AC (neurons)", updates, ac))
        if layer.leaky:
            rows.append(row(layer.name, "MAC (leak)", updates, mac))
    if layer.kind == "norm" and fold_norm and _follows_connection(counts, layer):
        return rows
    adds, multiplies = (layer.total(what) / layer.samples for what in ("adds", "multiplies"))
    if layer.kind == "norm":
        rows.append(row(layer.name, "MAC (normalisation)", prod(layer.input_shape) * layer.steps, mac))
    else:
        if adds:
            rows.append(row(layer.name, f"AC ({layer.kind})", adds, ac))
        if multiplies:
            rows.append(row(layer.name, f"MAC ({layer.kind})", multiplies, mac))
    return rows


def _follows_connection(counts: Counts, layer: LayerCounts) -> bool:
    connections = {other.name for other in counts.connections if other.weight_count}
    return bool(layer.inputs) and connections.issuperset(layer.inputs)
