"""`count`: what a network does on data, for torch networks and for the event engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import TYPE_CHECKING, Any, Literal

from neuromorphic.energy.counts import ANALOG, Counts, EventNetwork, Signal, from_activity

if TYPE_CHECKING:
    import torch
    from torch import nn

Call = Literal["auto", "sequence", "step", "batch"]
_CALLS = ("auto", "sequence", "step", "batch")


def count(
    network: Any,
    data: Any,
    *,
    input_signal: Signal = ANALOG,
    call: Call = "auto",
    steps: int | None = None,
    spiking: Sequence[Any] = (),
) -> Counts:
    """Run a network on data and return what every layer did, in integers.

    Whether a layer's input is spikes is declared, never read off its values: outputs of neuron layers are spikes, the
    network's input is what `input_signal` says, and pooling, reshaping, sums and the like follow fixed rules
    (`propagation`). An average over n binary spikes holds whole numbers up to n, so what follows is charged as such.

    Args:
        network: a torch module with neurons of this package, SpikingJelly or snnTorch, or without any; a compiled event
            network (anything with `activity(x)`); or a `neuromorphic.engine.Network` that was not built yet.
        data: a tensor, or an iterable of tensors (batches, whose counts are put together): [T, B, ...] for a network
            over time, [B, ...] for one without. For an engine network the milliseconds to run.
        input_signal: what the input carries: ANALOG, SPIKES or `Signal("spikes", levels)`.
        call: how the network is called: "sequence" as network(x) with x [T, B, ...]; "step" as network(x[t]) for each t
            from a fresh state; "batch" as network(x) with x [B, ...]. "auto" takes what the step modes of the neurons
            say; without neurons "sequence" for networks made of `snn.models.Stack` and "batch" for others.
        steps: with "batch", how many steps the network makes of one input by itself; default 1, for a converted network
            (`snn.convert(...).snn`, data [B, ...]) its T.
        spiking: further layers whose output is spikes: module classes or module names.

    Returns: counts of all samples, in the order of the layers.

    Raises:
        TypeError: a network or data of another kind.
        ValueError: a wrong `call` or `steps`, or neurons in different step modes with "auto".
        ShapeError: a layer whose input does not show its steps and samples.
        UnsupportedError: a layer whose operations cannot be seen.
    """
    if call not in _CALLS:
        raise ValueError(f"count: call must be one of {_CALLS}, got {call!r}")
    if steps is not None and steps < 1:
        raise ValueError(f"count: steps must be >= 1, got {steps}")
    from neuromorphic.engine.network import Network

    if isinstance(network, Network):
        from neuromorphic.energy.engine_counter import count_engine

        return count_engine(network, data)
    if isinstance(network, EventNetwork):
        return from_activity(network.activity(data))
    return _count_torch(network, data, input_signal, call, steps, spiking)


def _count_torch(
    network: Any, data: Any, signal: Signal, call: Call, steps: int | None, spiking: Sequence[Any]
) -> Counts:
    import torch
    from torch import nn

    if not isinstance(network, nn.Module):
        raise TypeError(
            "count: network must be a torch.nn.Module, an event network with activity(x) or a "
            f"neuromorphic.engine.Network, got {type(network).__name__}"
        )
    batches: Iterable[Any] = [data] if isinstance(data, torch.Tensor) else data
    found = []
    for x in batches:
        if not isinstance(x, torch.Tensor):
            raise TypeError(f"count: data must be a tensor or an iterable of tensors, got {type(x).__name__}")
        found.append(_count_batch(network, x, signal, call, steps, spiking))
    if not found:
        raise ValueError("count: data holds no batch")
    return reduce(Counts.merged, found)


def _count_batch(
    network: nn.Module, x: torch.Tensor, signal: Signal, call: Call, steps: int | None, spiking: Sequence[Any]
) -> Counts:
    import torch

    from neuromorphic.energy.converted import converted_network, count_converted, repeats_one_image
    from neuromorphic.energy.neuron_kinds import reset_all
    from neuromorphic.energy.records import Layout
    from neuromorphic.energy.torch_counter import TorchCounter

    converted = converted_network(network)
    if converted is network and converted is not None and call in ("auto", "batch"):
        return count_converted(network, converted, x, steps or converted.T, signal, spiking)
    if converted is not None and call in ("auto", "sequence") and steps is None and repeats_one_image(x):
        return count_converted(network, converted, x[0], len(x), signal, spiking)
    counter = TorchCounter(network, spiking)
    chosen = counter.call_of_neurons() if call == "auto" else call
    axes = 1 if chosen == "batch" else 2
    if x.dim() < axes or 0 in x.shape[:axes]:
        expected = "[B, ...]" if axes == 1 else "[T, B, ...]"
        raise ValueError(f"count: data must be {expected} for call {chosen!r}, got shape {tuple(x.shape)}")
    if steps is not None and chosen != "batch":
        raise ValueError(f"count: steps belongs to call 'batch'; with {chosen!r} data [T, B, ...] says it")
    T, B = (steps or 1, x.shape[0]) if chosen == "batch" else x.shape[:2]
    was_training = network.training
    network.eval()
    reset_all(network)
    try:
        with torch.no_grad():
            if chosen == "step":
                for x_t in x:
                    with counter.counting(Layout(1, B), x_t, signal):
                        network(x_t)
            else:
                with counter.counting(Layout(T, B), x, signal):
                    network(x)
    finally:
        reset_all(network)
        network.train(was_training)
    held = (*network.parameters(), *network.buffers())
    return Counts(
        counter.records.finished(),
        steps=T,
        samples=B,
        input_shape=tuple(x.shape[axes:]),
        input_signal=signal,
        parameter_count=sum(parameter.numel() for parameter in network.parameters()),
        footprint_bytes=sum(value.numel() * value.element_size() for value in held),
    )


def with_geometry(activity: Counts, geometry: Counts) -> Counts:
    """Counts of an event network's run with the shapes and weights of the torch network that it was compiled from.

    Args:
        activity: of the event network: layers of kind "event".
        geometry: of the torch network on any data.
    Raises: ValueError for a layer of `activity` that `geometry` does not have.
    """
    names = {layer.name for layer in geometry.layers}
    layers = []
    for layer in activity.layers:
        if layer.name not in names:
            raise ValueError(f"with_geometry: the torch network has no layer {layer.name!r}; it has {sorted(names)}")
        shape = geometry[layer.name]
        neurons = geometry.neurons_behind(shape)
        known = {
            key: getattr(shape, key)
            for key in ("input_shape", "weight_shape", "kernel_size", "stride", "padding", "dilation", "groups")
        } | {
            key: getattr(shape, key)
            for key in ("weight_count", "weight_nonzero_count", "bias_count", "weight_bits", "dense_synops")
        }
        known |= {"dense_synops_padded": shape.dense_synops_padded, "recurrent": shape.recurrent}
        if neurons is not None:
            names_of_neurons = (
                "output_shape",
                "neuron_count",
                "state_variables",
                "neuron_model",
                "leaky",
                "hard_reset",
            )
            known |= {key: getattr(neurons, key) for key in names_of_neurons}
        else:
            known["output_shape"] = shape.output_shape
        layers.append(replace(layer, **known))
    return replace(
        activity,
        layers=tuple(layers),
        input_shape=geometry.input_shape,
        parameter_count=geometry.parameter_count,
        footprint_bytes=geometry.footprint_bytes,
    )
