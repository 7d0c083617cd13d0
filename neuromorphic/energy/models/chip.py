"""A chip's energy from its data sheet."""

from __future__ import annotations

from collections.abc import Mapping

from neuromorphic.energy.counts import Counts, LayerCounts
from neuromorphic.energy.estimates import Estimate, Price, Row, row
from neuromorphic.targets import Entry, Target
from snn.errors import UnsupportedError


def chip(
    counts: Counts, target: Target, step_us: float | None = None, cores: int | None = None, hops: float | None = None
) -> Estimate:
    """Energy of one inference with the prices of a data sheet, without a placement.

    A sheet whose prices are per event gives synaptic operations, neuron updates, local spikes and routing; one whose
    prices are all-in (the chip's whole energy divided by its events) gives synaptic operations alone, since neurons,
    routing and leakage are inside. Static energy is static power times steps times the length of a step, and only
    added to per-event prices. On a chip with only a price per product, all products are priced once per run.

    Args:
        counts: of the network.
        target: from `neuromorphic.targets.load`.
        step_us: length of a time step; None takes the sheet's. Without either, static energy is left out and said so.
        cores: used cores, for sheets that give static power per core.
        hops: that each spike travels, for the price of routing; None leaves routing out and says so. The mapper's
            report has both numbers.
    Raises: UnsupportedError where the sheet lacks a price without which no total exists, naming it.
    """
    scope = target.energy_scope
    rows: list[Row] = []
    notes: list[str] = []
    if scope is None:
        rows = _arithmetic(counts, target)
        notes.append("arithmetic only: no memory, routing or static energy")
    else:
        prices = target.sections[f"energy.{scope}"]
        rows = _operations(counts, target, prices, scope)
        if "synop_pj" not in prices:
            notes.append("this device does every product at every step, whatever the activity")
        if scope == "per_event" or "neuron_update_pj" in prices:
            rows += _neurons(counts, target, prices, scope)
    if scope == "per_event":
        routing, said = _routing(counts, target, prices, hops)
        static, left_out = _static(counts, target, step_us, cores)
        rows += routing + static
        notes += said + left_out
    elif scope == "all_in":
        notes.append("all-in prices: routing and static power are inside and nothing is added")
    notes += list(target.notes)
    kind = {"per_event": "prices per event", "all_in": "all-in prices", None: "arithmetic"}[scope]
    text = f"{target.title}: {kind}, no placement"
    return Estimate(f"chip:{target.name}", text, tuple(rows), notes=tuple(dict.fromkeys(notes)))


def _price(target: Target, entry: Entry, unit: str, scope: str) -> Price:
    node = str(target.value("fabric.process", target.title))
    source = "; ".join(target.sources[key] for key in entry.source) + f" ({entry.evidence})"
    return Price(entry.low, entry.value, entry.high, unit, node, source, "all-in" if scope == "all_in" else "per term")


def _arithmetic(counts: Counts, target: Target) -> list[Row]:
    """Additions and multiply-accumulates of a sheet that prices arithmetic, at the precision of each layer's weights."""
    prices = target.sections.get("energy.per_event", {})
    rows = []
    for layer in counts.connections:
        bits = layer.weight_bits or 32
        precision = "fp32" if bits > 16 else "fp16" if bits > 8 else "int8"
        term = "ac" if layer.input_signal.is_binary else "mac"
        if f"{term}_{precision}_pj" not in prices:
            raise UnsupportedError(
                f"chip:{target.name}: no total energy, the data sheet does not state energy.per_event.synop_pj with a "
                f"neuron price, energy.all_in, or energy.per_event.{term}_{precision}_pj"
            )
        unit = f"pJ per {precision} {'addition' if term == 'ac' else 'multiply-accumulate'}"
        rows.append(_synops(layer, _price(target, prices[f"{term}_{precision}_pj"], unit, "per_event")))
    return rows


def _operations(counts: Counts, target: Target, prices: Mapping[str, Entry], scope: str) -> list[Row]:
    if "synop_pj" in prices:
        price = _price(target, prices["synop_pj"], "pJ per synaptic operation", scope)
        return [_synops(layer, price) for layer in counts.connections]
    price = _price(target, prices["mac_pj"], "pJ per multiply-accumulate", scope)
    products = {layer.name: layer.dense_synops_padded * layer.steps for layer in counts.connections}
    return [row(name, "products", number, price) for name, number in products.items()]


def _synops(layer: LayerCounts, price: Price) -> Row:
    events = layer.total("synops") / layer.samples
    effective = layer.total("synops_nonzero") / layer.samples
    if layer.input_signal.kind == "spikes":
        return row(layer.name, "synaptic operations", events, price, count_low=min(effective, events))
    dense = layer.dense_synops * layer.steps or events
    return row(layer.name, "synaptic operations (analog input)", dense, price, count_low=min(effective, dense))


def _neurons(counts: Counts, target: Target, prices: Mapping[str, Entry], scope: str) -> list[Row]:
    rows = []
    for layer in counts.neurons:
        updates = layer.total("neuron_updates") / layer.samples
        if "neuron_update_pj" in prices:
            price = _price(target, prices["neuron_update_pj"], "pJ per neuron update", scope)
        else:
            # Which neurons are active depends on the chip's rules: between all inactive and all active.
            active, idle = prices["neuron_active_pj"], prices["neuron_inactive_pj"]
            whole = Entry(active.value, idle.low, active.high, (*active.source, *idle.source), active.evidence)
            price = _price(target, whole, "pJ per neuron update (inactive to active)", "per_event")
        rows.append(row(layer.name, "neuron updates", updates, price))
    return rows


def _routing(
    counts: Counts, target: Target, prices: Mapping[str, Entry], hops: float | None
) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    spikes = {layer.name: layer.total("output_events") / layer.samples for layer in counts.neurons}
    if "spike_local_pj" in prices:
        local = _price(target, prices["spike_local_pj"], "pJ per spike within a tile", "per_event")
        rows += [row(name, "spikes", count, local) for name, count in spikes.items()]
    along = [prices[key] for key in ("hop_pj", "hop_x_pj", "hop_y_pj") if key in prices]
    if not along:
        return rows, []
    if hops is None:
        return rows, ["routing between cores is left out: it needs a placement (see neuromorphic.targets.map) or hops="]
    keys = tuple(dict.fromkeys(key for entry in along for key in entry.source))
    middle = sum(entry.value for entry in along) / len(along)
    entry = Entry(middle, min(e.low for e in along), max(e.high for e in along), keys, along[0].evidence)
    price = _price(target, entry, "pJ per spike and hop", "per_event")
    return rows + [row(name, "hops", count * hops, price) for name, count in spikes.items()], []


def _static(counts: Counts, target: Target, step_us: float | None, cores: int | None) -> tuple[list[Row], list[str]]:
    whole, per_core = target.entry("power.static_mw"), target.entry("power.static_per_core_mw")
    step = target.value("time.step_us") if step_us is None else step_us
    if step is None or (whole is None and per_core is None):
        missing = "the length of a step" if step is None else "static power"
        return [], [f"static energy is left out: the data sheet does not state {missing}"]
    time_us = counts.steps * step
    if cores is not None and per_core is not None:
        # mW times us is nJ.
        price = _price(target, per_core, "mW per core", "per_event")
        in_pj = Price(
            price.low * 1e3, price.typical * 1e3, price.high * 1e3, "pJ per us and core", price.node, price.source
        )
        return [row("(chip)", "static", time_us * cores, in_pj)], []
    if whole is None:
        return [], ["static energy is left out: the data sheet gives it per core, so it needs cores="]
    price = _price(target, whole, "mW", "per_event")
    in_pj = Price(price.low * 1e3, price.typical * 1e3, price.high * 1e3, "pJ per us", price.node, price.source)
    return [row("(chip)", "static", time_us, in_pj)], [f"static energy for {counts.steps} steps of {step:g} us"]
