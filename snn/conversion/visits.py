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


def put_layer(network: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a layer in the place of the one with this dotted name."""
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)
