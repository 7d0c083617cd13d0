"""What a chip cannot express, whatever the placement: neurons, resets, kernels, totals, fan-in and fan-out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, prod

from neuromorphic.targets.geometry import PlacedLayer, without_pooling
from neuromorphic.targets.placement import Refusal
from neuromorphic.targets.sheet import Target


def structural_refusals(layers: Sequence[PlacedLayer], target: Target, bits: int) -> list[Refusal]:
    """Every limit that the network breaks before it is placed, in the order of the layers."""
    found: list[Refusal] = []
    for layer in layers:
        found += _neuron_refusals(layer, target)
        found += _shape_refusals(layer, target)
        found += _fan_refusals(layer, target)
    return found + list(_totals(layers, target, bits))


def notes(layers: Sequence[PlacedLayer], target: Target) -> list[str]:
    """What a reader of a placement must know."""
    said = []
    graded = target.value("spikes.graded")
    for layer in layers:
        if layer.analog and graded is False:
            said.append(
                f"{layer.name!r} has an analog input, which {target.name} cannot receive: encode it as spikes, or "
                "compute its currents outside (its synaptic operations are not charged)"
            )
        if layer.family == "lif" and target.value("neuron.leak") == "linear":
            said.append(f"{layer.neuron_name!r} leaks exponentially, {target.name}'s neurons leak by a constant")
    budget, cores = target.value("fabric.neurons_per_core_budget"), target.limit("fabric.cores")
    total = sum(layer.neurons for layer in layers)
    if budget and cores and total > budget * cores:
        said.append(f"{total} neurons are more than the {budget} per core that run in real time on {cores} cores")
    delays = target.value("execution.layer_latency_steps")
    if delays:
        said.append(f"every layer answers {delays} step later: {len(layers) * delays} steps from input to output")
    return said


def _neuron_refusals(layer: PlacedLayer, target: Target) -> Iterator[Refusal]:
    models = target.value("neuron.models")
    if layer.family and models is not None and "any" not in models and layer.family not in models:
        accepted = f"use {' or '.join(models)} neurons" if models else "use a chip with spiking neurons"
        yield Refusal("neuron.models", layer.neuron_name, 1, 0, f"{layer.family!r} neurons are not there: {accepted}")
    resets = target.value("neuron.reset")
    if layer.reset and resets is not None and layer.reset not in resets and "any" not in (models or ()):
        how = {"zero": "v_reset=0.0", "subtract": "v_reset=None"}
        accepted = " or ".join(how[reset] for reset in resets if reset in how)
        yield Refusal("neuron.reset", layer.neuron_name, 1, 0, f"reset by {layer.reset!r} is not there: use {accepted}")
    if layer.recurrent and target.value("connections.recurrence") is False:
        yield Refusal("connections.recurrence", layer.name, 1, 0, "remove the feedback")
    if layer.max_levels > max(1, target.value("spikes.per_step", 1)) and target.value("spikes.graded") is False:
        most = max(1, target.value("spikes.per_step", 1))
        yield Refusal("spikes.per_step", layer.neuron_name, layer.max_levels, most, "send smaller counts in more steps")


def _shape_refusals(layer: PlacedLayer, target: Target) -> Iterator[Refusal]:
    if not layer.linear and target.value("connections.convolutions") is False:
        yield Refusal("connections.convolutions", layer.name, 1, 0, "use linear layers")
    if target.value("memory.format") != "padded-kernels":
        return
    seen = without_pooling(layer)
    limits = [
        ("connections.channels_max", max(seen.source[0], layer.size[0]), "use fewer channels"),
        ("connections.input_side_max", max(seen.source[1:]), "pool in front of it"),
        ("connections.output_side_max", max(layer.size[1:]), "use a larger stride"),
    ]
    kernel = seen.source[1:] if layer.linear else seen.kernel
    limits.append(("connections.kernel_max", max(kernel), "use a smaller kernel or pool in front of it"))
    if not layer.linear:
        limits.append(("connections.padding_max", max(seen.padding), "use less padding"))
    for name, needed, fix in limits:
        allowed = target.limit(name)
        if allowed is not None and needed > allowed:
            yield Refusal(name, layer.name, needed, allowed, fix)
    if layer.groups > 1 and target.value("connections.groups") is False:
        yield Refusal("connections.groups", layer.name, layer.groups, 1, "use groups=1")
    if kernel[0] != kernel[1] and target.value("connections.square_kernels"):
        yield Refusal("connections.square_kernels", layer.name, max(kernel), min(kernel), "use a square kernel")
    for name, values in (("strides", () if layer.linear else seen.stride), ("pooling", layer.pool)):
        accepted = target.value(f"connections.{name}")
        for value in sorted(set(values)) if accepted else ():
            if value not in accepted:
                smaller = max([a for a in accepted if a < value], default=accepted[0])
                yield Refusal(f"connections.{name}", layer.name, value, smaller, f"use one of {accepted}")


def _fan_refusals(layer: PlacedLayer, target: Target) -> Iterator[Refusal]:
    fan_in = layer.fan_in + (layer.neurons if layer.recurrent else 0)
    allowed = target.limit("connections.fan_in")
    if allowed is not None and fan_in > allowed:
        parts = ceil(fan_in / allowed)
        yield Refusal("connections.fan_in", layer.name, fan_in, allowed, f"cut its inputs into {parts} groups")
    out = layer.neurons if layer.linear else layer.size[0] // layer.groups * prod(layer.kernel)
    allowed = target.limit("connections.fan_out")
    if allowed is not None and out > allowed and "input" not in layer.sources:
        fix = f"give {layer.name!r} at most {allowed} targets for each input"
        yield Refusal("connections.fan_out", layer.name, out, allowed, fix)


def _totals(layers: Sequence[PlacedLayer], target: Target, bits: int) -> Iterator[Refusal]:
    allowed_bits = target.value("weights.bits")
    if allowed_bits and bits not in allowed_bits and bits > max(allowed_bits):
        yield Refusal("weights.bits", "", bits, max(allowed_bits), f"quantise the weights to {max(allowed_bits)} bits")
    values = target.value("weights.distinct_per_neuron")
    if values is not None and 2**bits - 2 > values:
        fits = max(b for b in range(1, bits) if 2**b - 2 <= values)
        fix = f"quantise the weights to {fits} bits"
        yield Refusal("weights.distinct_per_neuron", "", 2**bits - 2, values, fix)
    if not layers:
        return
    hidden = sum(layer.neurons for layer in layers[:-1])
    weights = sum(layer.weight_count for layer in layers)
    checks = [
        ("fabric.neurons", hidden + layers[-1].neurons, "remove neurons"),
        ("fabric.hidden_neurons", hidden, "remove hidden neurons"),
        ("fabric.output_neurons", layers[-1].neurons, "use fewer outputs"),
        ("connections.classes", layers[-1].neurons if layers[-1].linear else 0, "use fewer classes"),
        ("connections.inputs", prod(layers[0].source), "reduce the inputs, for example by pooling or filter banks"),
        ("memory.weights", weights, "remove synapses"),
        ("fabric.synapses", _synapses(layers, target), "remove synapses"),
    ]
    if target.value("memory.format") == "weight-list" and target.limit("memory.bytes_per_core") is None:
        checks.append(("memory.bytes_on_chip", ceil(weights * bits / 8), "use fewer weight bits or weights"))
    for name, needed, fix in checks:
        allowed = target.limit(name)
        if allowed is not None and needed > allowed:
            yield Refusal(name, "", needed, allowed, fix)


def _synapses(layers: Sequence[PlacedLayer], target: Target) -> int:
    """Stored synapses: shared weights once where the chip keeps convolutions, else one for each connection."""
    if target.value("connections.convolutions"):
        return sum(layer.weight_count for layer in layers)
    return sum(layer.neurons * layer.fan_in for layer in layers)
