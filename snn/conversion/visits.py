"""Runs a converted network layer after layer, with a look at each spiking layer's whole input."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from snn.conversion.layers import SpikingLayer, Timed
from snn.conversion.network import ConvertedNetwork

Visit = Callable[[SpikingLayer, torch.Tensor], torch.Tensor]
"""visit(layer, current [T, B, ...]) -> output [T, B, ...] that goes on to later layers."""


class _Visited(Timed):
    def __init__(self, layer: SpikingLayer, visit: Visit) -> None:
        super().__init__()
        self.layer = layer
        self.visit = visit

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        return self.visit(self.layer, x[0])

    def reset(self) -> None:
        self.layer.reset()


@contextmanager
def visited_layers(network: ConvertedNetwork, visit: Visit) -> Iterator[None]:
    """Within this context a run calls `visit` for each spiking layer, which runs the layer itself."""
    layers = network.layers()
    for name, layer in layers.items():
        put_layer(network.body, name, _Visited(layer, visit))
    try:
        yield
    finally:
        for name, layer in layers.items():
            put_layer(network.body, name, layer)


@torch.no_grad()
def barrier_run(network: ConvertedNetwork, x: torch.Tensor, T: int | None = None) -> torch.Tensor:
    """Logits [B, classes] of a run in which each layer waits for all T outputs of the layers before it.

    Every layer then gets the mean of its inputs in each step, so that its spike counts are those of constant input:
    with thresholds and T = levels of QCFS activations and a start at half the threshold the result equals the source
    network's. It costs depth * T steps.

    Args:
        x: [B, ...].
        T: steps of each layer; None takes the network's.
    """
    steps = network.T if T is None else T

    def visit(layer: SpikingLayer, current: torch.Tensor) -> torch.Tensor:
        mean = layer.sequence(current).sum(0) / steps
        return mean.expand(steps, *mean.shape)

    network.reset()
    with visited_layers(network, visit):
        logits = network.run_in_one_chunk(x, steps)[-1]
    network.reset()
    return logits


def put_layer(network: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a layer in the place of the one with this dotted name."""
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
