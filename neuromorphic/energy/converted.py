"""Counts of converted networks (`snn.conversion`), part by part of a run: preparations, the step with the input, the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from neuromorphic.energy.counts import Counts, Signal
from neuromorphic.energy.neuron_kinds import reset_all
from neuromorphic.energy.records import Layout
from neuromorphic.energy.torch_counter import TorchCounter
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.pooling import passes_maxima
from snn.conversion.recurrent import SpikingRecurrent
from snn.conversion.run_network import ConvertedRun
from snn.errors import UnsupportedError


def converted_network(network: nn.Module) -> ConvertedNetwork | None:
    """The converted network that this is, or that a run folder holds; None for any other."""
    if isinstance(network, ConvertedRun):
        return network.network
    return network if isinstance(network, ConvertedNetwork) else None


def repeats_one_image(x: torch.Tensor) -> bool:
    """True for [T, B, ...] whose steps are all the same."""
    return x.dim() >= 3 and 0 not in x.shape and (x.stride(0) == 0 or torch.equal(x, x[:1].expand_as(x)))


def check_countable(network: ConvertedNetwork) -> None:
    """Refuses a network with layers whose work is not events of its steps.

    Raises: UnsupportedError with the first such layer and what to do instead.
    """
    for name, layer in network.body.named_modules():
        if isinstance(layer, SpikingRecurrent):
            raise UnsupportedError(
                f"count: layer {name!r} (recipe rnn-morph) runs inner steps of a time of its own for every element, which are no "
                "steps of the network; its spikes per population, events between elements and inner steps are in the report "
                "(conversion.report.recurrent, report.json)"
            )
    for layer in network.timed():
        if not isinstance(layer, SpikingLayer) and not passes_maxima(layer) and _is_outermost(network, layer):
            raise UnsupportedError(
                f"count: {type(layer).__name__} (recipe td) sends real values and works its function out anew in each step, "
                "so a count of spikes says nothing about it; count the network it was made from: "
                "count(conversion.snn.source, images)"
            )


def _is_outermost(network: ConvertedNetwork, layer: nn.Module) -> bool:
    return any(
        node.op == "call_module" and network.body.get_submodule(str(node.target)) is layer
        for node in network.body.graph.nodes
    )


def count_converted(
    root: nn.Module, network: ConvertedNetwork, image: torch.Tensor, steps: int, signal: Signal, spiking: Sequence[Any]
) -> Counts:
    """Count one run on images [B, ...].

    Layers that only see the image run once in each part. With coding "sum" the input and the biases come in the first
    step, and all steps are counted, those after the last spike too. The steps of a preparation (srp, cos) come first.

    Args:
        root: the module whose children name the layers, `network` or what holds it.
        steps: T.
    Returns: counts over the steps of the preparation and T.
    Raises: UnsupportedError for a network with values or inner steps, see `check_countable`.
    """
    check_countable(network)
    counter = TorchCounter(root, spiking)
    samples, before = len(image), network.preparation
    was_training = root.training
    root.eval()
    try:
        with torch.no_grad():
            for length, run in network.parts(image, steps):
                with counter.counting(Layout(length, samples), image, signal), counter.at_root():
                    run()
    finally:
        network.reset()
        reset_all(root)
        root.train(was_training)
    held = (*network.body.parameters(), *network.body.buffers())
    return Counts(
        counter.records.finished(),
        steps=steps + (0 if before is None else before.steps),
        samples=samples,
        input_shape=tuple(image.shape[1:]),
        input_signal=signal,
        parameter_count=sum(parameter.numel() for parameter in network.body.parameters()),
        footprint_bytes=sum(value.numel() * value.element_size() for value in held),
    )
