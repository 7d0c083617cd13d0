"""`map`: a network onto the cores of a chip, or the reasons why it does not fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, isqrt
from typing import Any

import numpy as np

from neuromorphic.energy.counting import count
from neuromorphic.energy.counts import ANALOG, Counts, Signal
from neuromorphic.targets.checks import notes, structural_refusals
from neuromorphic.targets.geometry import PlacedLayer, placed_layers
from neuromorphic.targets.mapping import LayerPlacement, Mapping, MappingError
from neuromorphic.targets.placement import Core, DoesNotFit, Refusal, core_limits, match_whole_layers, pack, split
from neuromorphic.targets.placement_energy import Activity, placement_energy, step_seconds
from neuromorphic.targets.sheet import Target, load


def map(
    network: Any,
    target: Target | str | os.PathLike[str],
    data: Any = None,
    *,
    weight_bits: int | None = None,
    input_signal: Signal = ANALOG,
    frames_per_second: float | None = None,
    step_us: float | None = None,
) -> Mapping:
    """Place a network on a chip.

    Layers are split into blocks that respect every limit of a core in the data sheet (neurons, input and output axons,
    synaptic memory in the chip's own format, weight sharing included), blocks share cores where they fit, and cores are
    filled along the mesh. Spikes are taken as evenly spread over a layer's neurons.

    Args:
        network: `neuromorphic.energy.Counts`, or a torch network, which is counted on `data`.
        target: a data sheet, its name or path.
        data: inputs [T, B, ...] of a torch network. Without data a network that starts in a linear layer is placed
            without activity, so that traffic and energy are those of silence.
        weight_bits: of a stored weight; None takes 8 where the chip has them, else its widest.
        input_signal: what `data` carries, see `neuromorphic.energy.count`.
        frames_per_second: wanted rate of inferences, for duty cycle and static energy per frame.
        step_us: wanted length of a time step; None takes the fastest that the sheet's times give, or its usual step.

    Returns: placement, use, traffic, time and energy.
    Raises:
        MappingError: the network does not fit; the text names each limit, by how much, and the smallest change.
        UnsupportedError: a layer has no place on any core.
        ValueError: a wrong argument.
    """
    sheet = target if isinstance(target, Target) else load(target)
    for name, value in (("frames_per_second", frames_per_second), ("step_us", step_us)):
        if value is not None and not value > 0:
            raise ValueError(f"map: {name} must be > 0, got {value}")
    counts = network if isinstance(network, Counts) else _counted(network, data, input_signal)
    bits = _bits(sheet, weight_bits)
    layers = placed_layers(counts)
    refusals = structural_refusals(layers, sheet, bits)
    cores: list[Core] | None = None
    if not any(refusal.limit.startswith("fabric.") for refusal in refusals):  # far too large to be worth placing
        try:
            cores = place(layers, sheet, bits)
        except DoesNotFit as error:
            refusals.append(error.refusal)
    if cores is not None:
        refusals += _core_refusals(cores, sheet, layers)
    if refusals:
        raise MappingError(sheet.name, tuple(refusals), _suggestion(refusals, layers, sheet, bits))
    return _report(counts, layers, sheet, bits, cores, frames_per_second, step_us)


def _counted(network: Any, data: Any, signal: Signal) -> Counts:
    import torch
    from torch import nn

    if data is not None:
        return count(network, data, input_signal=signal)
    if not isinstance(network, nn.Module):
        raise TypeError(f"map: network must be Counts or a torch.nn.Module, got {type(network).__name__}")
    first = next((part for part in network.modules() if isinstance(part, nn.Linear | nn.modules.conv._ConvNd)), None)
    if not isinstance(first, nn.Linear):
        raise ValueError("map: the shape of the network's input is not known; pass data=[T, B, ...]")
    training = network.training
    try:
        return count(network.eval(), torch.zeros(1, 1, first.in_features), input_signal=signal)
    finally:
        network.train(training)


def _bits(target: Target, given: int | None) -> int:
    allowed = target.value("weights.bits", (8,))
    if given is None:
        return 8 if 8 in allowed else max(allowed)
    if not isinstance(given, int) or given < 1:
        raise ValueError(f"map: weight_bits must be a whole number >= 1, got {given!r}")
    # A narrower weight is stored in the narrowest format that holds it; a crossbar stores no weights of other widths.
    if target.value("memory.format") == "crossbar":
        return given
    return min([b for b in allowed if b >= given], default=given)


def place(layers: Sequence[PlacedLayer], target: Target, bits: int) -> list[Core] | None:
    """Blocks on cores; None where the sheet names no limits of a core.

    Raises: DoesNotFit.
    """
    if target.value("memory.format") == "padded-kernels":
        return match_whole_layers(layers, target)
    if not core_limits(target):
        return None
    placed: dict[int, list[Any]] = {}
    for number in reversed(range(len(layers))):
        receivers = _receivers(layers, number, placed)
        blocks = split(target, number, layers[number], bits, receivers)
        own = 0
        while layers[number].recurrent and own != len(blocks):  # its own cores receive its spikes too
            own = len(blocks)
            blocks = split(target, number, layers[number], bits, _receivers(layers, number, placed, own))
        placed[number] = blocks
    return pack([block for number in range(len(layers)) for block in placed[number]], target)


def consumers(layers: Sequence[PlacedLayer], number: int) -> list[int]:
    """Indices of the layers that a layer feeds."""
    layer = layers[number]
    return [n for n, other in enumerate(layers) if {layer.name, layer.neuron_name} & set(other.sources) and n != number]


def _receivers(
    layers: Sequence[PlacedLayer], number: int, placed: dict[int, list[Any]], own: int = 0
) -> Callable[[tuple[int, int]], int]:
    """Positions -> sum over them of the cores that a spike there reaches, taking each block as a core of its own."""
    size = layers[number].positions
    cores = np.full(size, own, np.int64)
    for other in consumers(layers, number):
        for block in placed.get(other, []):
            reached = layers[other].inputs_of(*block.positions).ravel() > 0
            cores += reached if reached.size == size else int(reached.any())
    return lambda positions: int(cores[positions[0] : positions[1]].sum())


def _core_refusals(cores: list[Core], target: Target, layers: Sequence[PlacedLayer]) -> list[Refusal]:
    """What only shows once the network is placed: too many cores, and neurons that reach more cores than they can."""
    found = []
    limit, used = target.limit("fabric.cores"), sum(1 for core in cores if core.blocks)
    if limit is not None and used > limit:
        found.append(Refusal("fabric.cores", "", used, limit, f"use {ceil(used / limit)} chips or a smaller network"))
    reach = target.limit("connections.axons_per_target")
    for number, layer in enumerate(layers) if reach is not None else ():
        blocks = [block for core in cores for block in core.blocks if block.layer == number]
        most = max((ceil(block.output_axons / block.neurons) for block in blocks), default=0)
        if most > reach:
            splitters = sum(block.output_axons for block in blocks)
            fix = f"put {splitters} splitter neurons behind {layer.name!r}, one for each axon that it feeds"
            found.append(Refusal("connections.axons_per_target", layer.name, most, reach, fix))
    return found


def _suggestion(refusals: Sequence[Refusal], layers: Sequence[PlacedLayer], target: Target, bits: int) -> str:
    """The widest smaller weight that makes everything fit, where weights are what is too large."""
    sizes = ("fabric.cores", "memory.words_per_core", "memory.bytes_on_chip", "memory.weights")
    if not all(refusal.limit in sizes for refusal in refusals):
        return ""
    for fewer in sorted((b for b in target.value("weights.bits", ()) if b < bits), reverse=True):
        if structural_refusals(layers, target, fewer):
            continue
        try:
            cores = place(layers, target, fewer)
        except DoesNotFit:
            continue
        if cores is None or not _core_refusals(cores, target, layers):
            return f"{fewer}-bit weights instead of {bits} fit"
    return ""


@dataclass
class _Traffic:
    """Messages between cores, and the tile borders that they cross."""

    pairs: dict[tuple[int, int], float]
    messages: float = 0.0
    between: float = 0.0
    hops_x: float = 0.0
    hops_y: float = 0.0


def _traffic(layers: Sequence[PlacedLayer], cores: Sequence[Core], target: Target) -> _Traffic:
    """Each spike goes once to every core that holds one of its targets."""
    found = _Traffic({})
    tile = max(1, target.value("fabric.cores_per_tile", 1))
    side = max(1, isqrt(max(1, ceil(target.value("fabric.cores", 1) / tile) - 1)) + 1)
    for number, layer in enumerate(layers):
        if layer.spikes_out == 0:
            continue
        feeds = consumers(layers, number) + ([number] if layer.recurrent else [])
        reached = [_reached(layers, core, number, feeds) for core in cores]
        for source, core in enumerate(cores):
            for block in core.blocks:
                if block.layer != number:
                    continue
                spikes = layer.spikes_out * block.neurons / layer.neurons
                for receiver, mask in enumerate(reached):
                    if mask is None:
                        continue
                    sent = spikes * float(mask[block.positions[0] : block.positions[1]].mean())
                    _send(found, source, receiver, sent, tile, side)
    return found


def _send(found: _Traffic, source: int, receiver: int, sent: float, tile: int, side: int) -> None:
    if sent == 0:
        return
    (x0, y0), (x1, y1) = _position(source // tile, side), _position(receiver // tile, side)
    found.pairs[source, receiver] = found.pairs.get((source, receiver), 0.0) + sent
    found.messages += sent
    found.between += sent if source != receiver else 0.0
    found.hops_x += sent * abs(x0 - x1)
    found.hops_y += sent * abs(y0 - y1)


def _position(tile: int, side: int) -> tuple[int, int]:
    """Tiles row by row, every second row backwards, so that neighbours in number are neighbours on the mesh."""
    row, column = divmod(tile, side)
    return (column if row % 2 == 0 else side - 1 - column), row


def _reached(layers: Sequence[PlacedLayer], core: Core, number: int, feeds: Sequence[int]) -> np.ndarray | None:
    """Positions of layer `number` whose spikes a core receives, [positions]; None where it receives none."""
    mask = np.zeros(layers[number].positions, bool)
    for block in core.blocks:
        if block.layer not in feeds:
            continue
        if block.layer == number:
            mask[:] = True
            continue
        reached = layers[block.layer].inputs_of(*block.positions).ravel() > 0
        mask |= reached if reached.size == mask.size else bool(reached.any())
    return mask if mask.any() else None


def _report(
    counts: Counts,
    layers: Sequence[PlacedLayer],
    target: Target,
    bits: int,
    cores: list[Core] | None,
    frames_per_second: float | None,
    wanted_step_us: float | None,
) -> Mapping:
    charged = [0.0 if layer.analog and target.value("spikes.graded") is False else layer.synops for layer in layers]
    used = [] if cores is None else [core for core in cores if core.blocks]
    traffic = _traffic(layers, cores or [], target)
    if cores is None:
        traffic.messages = sum(layer.spikes_out for layer in layers)
    steps = max(1, counts.steps)
    tile = target.value("fabric.cores_per_tile", 1)
    busiest = _busiest(layers, used, charged)
    seconds, origin = step_seconds(target, ceil(len(used) / tile), busiest[0] / steps, busiest[1], wanted_step_us)
    extra = len(layers) * target.value("execution.layer_latency_steps", 0)
    run = None if seconds is None else steps * seconds
    latency = None if seconds is None else (steps + extra) * seconds
    if frames_per_second is not None and run is not None and run * frames_per_second > 1:
        fix = f"at most {1 / run:.4g} frames per second at {steps} steps, or {int(1 / frames_per_second / (run / steps))} steps"
        refusal = Refusal("frames_per_second", "", frames_per_second, 1 / run, fix)
        raise MappingError(target.name, (refusal,), "")
    activity = Activity(
        synops=sum(charged),
        updates=float(sum(layer.neurons * steps for layer in layers if layer.family)),
        messages=traffic.messages,
        hops_x=traffic.hops_x,
        hops_y=traffic.hops_y,
        products=float(sum(layer.dense_synops_padded * layer.steps for layer in counts.connections)),
        steps=steps,
    )
    duration = run if frames_per_second is None else 1 / frames_per_second
    energy, said = placement_energy(target, activity, duration)
    return Mapping(
        target=target.name,
        title=target.title,
        weight_bits=bits,
        layers=tuple(_placement(number, layer, cores) for number, layer in enumerate(layers)),
        cores_used=None if cores is None else len(used),
        cores_available=None if cores is None else target.limit("fabric.cores"),
        utilisation=_utilisation(cores, target),
        messages=traffic.messages,
        between_cores=traffic.between,
        hops_x=traffic.hops_x,
        hops_y=traffic.hops_y,
        traffic=tuple(
            (source, receiver, sent)
            for (source, receiver), sent in sorted(traffic.pairs.items(), key=lambda item: (-item[1], item[0]))
        ),
        step_us=None if seconds is None else seconds * 1e6,
        step_origin=origin,
        latency_us=None if latency is None else latency * 1e6,
        duty_cycle=None if run is None or frames_per_second is None else run * frames_per_second,
        energy=None if energy is None else tuple(energy),
        energy_note=said,
        static_mw=target.value("power.static_mw"),
        notes=tuple(notes(layers, target)),
    )


def _busiest(layers: Sequence[PlacedLayer], cores: Sequence[Core], charged: Sequence[float]) -> tuple[float, int]:
    """Synaptic operations per inference and neurons of the core that has most work."""
    totals = [
        sum(block.synapses for core in cores for block in core.blocks if block.layer == n) for n in range(len(layers))
    ]
    work = [
        (
            sum(charged[block.layer] * block.synapses / max(1, totals[block.layer]) for block in core.blocks),
            sum(block.neurons for block in core.blocks),
        )
        for core in cores
    ]
    return max(work, default=(0.0, 0))


def _placement(number: int, layer: PlacedLayer, cores: list[Core] | None) -> LayerPlacement:
    blocks = [(n, block) for n, core in enumerate(cores or []) for block in core.blocks if block.layer == number]
    return LayerPlacement(
        name=layer.name,
        cores=tuple(n for n, _ in blocks),
        neurons=layer.neurons,
        synapses=sum(block.synapses for _, block in blocks),
        input_axons=sum(block.input_axons for _, block in blocks),
        output_axons=sum(block.output_axons for _, block in blocks),
        words=sum(block.words for _, block in blocks),
    )


def _utilisation(cores: list[Core] | None, target: Target) -> dict[str, float]:
    used = [(n, core) for n, core in enumerate(cores or []) if core.blocks]
    if not used:
        return {}
    found = {
        name: sum(core.used(name) for _, core in used) / (limit * len(used))
        for name, limit in core_limits(target).items()
        if limit
    }
    rooms = target.value("memory.core_kernel_entries")
    if rooms is not None:
        taken = sum(block.words for _, core in used for block in core.blocks)
        found["memory.core_kernel_entries"] = taken / sum(rooms[n] for n, _ in used)
    return found
