"""A network as layers of neurons and the maps between them, read from ordinary torch modules."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from spikingjelly.activation_based.base import MemoryModule
from torch import nn

from snn.errors import UnsupportedError
from snn.learning.linear_maps import Gradients, LinearMap, WeightedMap, linear_map
from snn.models import AnalogMLP, AnalogVGG, Residual, SpikingConvNet, SpikingMLP, SpikingVGG, Stack
from snn.neurons.dyadic import Activation, activation_of

_WITH_STACK = (AnalogMLP, AnalogVGG, SpikingMLP, SpikingConvNet, SpikingVGG)


@dataclass(eq=False)
class Edge:
    """Maps in a row from one layer of neurons to another, at most one of them with weights.

    Args:
        source, target: positions of the layers; source < target.
        maps: in the order in which they are applied; none for an addition as it is.
    """

    source: int
    target: int
    maps: list[LinearMap]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, list[Any]]:
        """Return the contribution to the target's input, and what `transposed` needs of this evaluation."""
        saved = []
        for step in self.maps:
            x, kept = step.forward(x)
            saved.append(kept)
        return x, saved

    def transposed(self, delta: torch.Tensor, saved: list[Any]) -> torch.Tensor:
        """Return J^T delta at the evaluation that `saved` is of."""
        for step, kept in zip(reversed(self.maps), reversed(saved), strict=True):
            delta = step.transposed(delta, kept)
        return delta

    def collect(self, delta: torch.Tensor, saved: list[Any], point: torch.Tensor, gradients: Gradients) -> None:
        """Add the weight gradient of <delta, forward(point)>, routed as in the evaluation that `saved` is of."""
        for step, kept in zip(reversed(self.maps), reversed(saved), strict=True):
            if isinstance(step, WeightedMap):
                for below in self.maps[: self.maps.index(step)]:
                    point, _ = below.forward(point)
                step.collect(delta, point, gradients)
                return
            delta = step.transposed(delta, kept)

    def both(
        self, delta: torch.Tensor, saved: list[Any], gradients: Gradients, wants_input: bool
    ) -> torch.Tensor | None:
        """Do `collect` and `transposed` at one evaluation; without wants_input stop at the weights and return None."""
        if not wants_input and self.weights is None:
            return None
        for step, kept in zip(reversed(self.maps), reversed(saved), strict=True):
            if not isinstance(step, WeightedMap):
                delta = step.transposed(delta, kept)
            elif wants_input:
                delta = step.both(delta, kept, gradients)
            else:
                step.collect(delta, kept, gradients)
                return None
        return delta

    @property
    def weights(self) -> WeightedMap | None:
        """The map with weights, if there is one."""
        return next((step for step in self.maps if isinstance(step, WeightedMap)), None)


@dataclass(eq=False)
class Layer:
    """One layer of neurons.

    Args:
        name: of the weights that feed it, or of its activation.
        activation: of its neurons.
        incoming, outgoing: edges that end and start here.
    """

    name: str
    activation: Activation
    incoming: list[Edge] = field(default_factory=list)
    outgoing: list[Edge] = field(default_factory=list)


@dataclass(frozen=True)
class Graph:
    """Layers 0 (the input) to L (the logits), each edge from a lower to a higher one.

    Args:
        layers: all of them.
        time_first: whether the network takes [T, B, ...] rather than [B, ...].
    """

    layers: list[Layer]
    time_first: bool

    @property
    def top(self) -> int:
        """L, the position of the logits."""
        return len(self.layers) - 1

    def edges(self) -> Iterator[Edge]:
        """All edges, by target."""
        for layer in self.layers:
            yield from layer.incoming

    def input_of(self, position: int, states: list[torch.Tensor]) -> torch.Tensor:
        """Return a = sum of W z + b over the incoming edges, at the given states of all layers."""
        return _total([edge.forward(states[edge.source])[0] for edge in self.layers[position].incoming])

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the state of every layer in an ordinary forward pass."""
        states = [x]
        for position in range(1, len(self.layers)):
            states.append(self.layers[position].activation.f(self.input_of(position, states)))
        return states

    def batch(self, x: torch.Tensor, rule: str) -> torch.Tensor:
        """Return the input [B, ...] of a batch as the network takes it.

        Raises: UnsupportedError for more than one time step.
        """
        if not self.time_first:
            return x
        self.check_steps(len(x), rule)
        return x[0]

    def check_steps(self, steps: int, rule: str) -> None:
        """Raise UnsupportedError for more than one time step, which neurons without memory have no use for."""
        if self.time_first and steps != 1:
            raise UnsupportedError(f"{rule}: neurons without memory take one time step, T = 1, got T = {steps}")


def _total(terms: list[torch.Tensor]) -> torch.Tensor:
    total = terms[0]
    for term in terms[1:]:
        total = total + term
    return total


def graph_of(network: nn.Module, rule: str) -> Graph:
    """Read a network as layers of neurons.

    A layer of neurons ends at each activation function, and before each further layer with weights (it is then linear).

    Args:
        network: `torch.nn.Sequential`, `snn.models.Stack`, `Residual` blocks in them, `AnalogMLP` or `AnalogVGG`, of linear
            layers, convolutions, average and max pooling, flattening and the activations of `activation_of`.
        rule: name of the learning rule, for messages.
    Raises: UnsupportedError naming the layer that does not fit.
    """
    time_first = isinstance(network, (*_WITH_STACK, Stack))
    reader = _Reader(rule, time_first)
    reader.read("", network)
    return Graph(reader.finish(), time_first)


class _Reader:
    """Collects layers; `open` are the edges whose target has not been met yet."""

    def __init__(self, rule: str, time_first: bool) -> None:
        self.rule = rule
        self.time_first = time_first
        self.layers = [Layer("input", activation_of(nn.Identity(), "input"))]
        self.open: list[tuple[int, list[LinearMap]]] = [(0, [])]
        self.last = ""

    def read(self, name: str, module: nn.Module) -> None:
        prefix = f"{name}." if name else ""
        if isinstance(module, (*_WITH_STACK, Stack)) and not self.time_first:
            raise UnsupportedError(
                f"{self.rule}: {name!r} ({type(module).__name__}) takes a time axis and the network around it does not"
            )
        if isinstance(module, _WITH_STACK):
            self.read(f"{prefix}stack", module.stack)
        elif isinstance(module, Stack):
            for key, child in module.layers.items():
                self.read(f"{prefix}layers.{key}", child)
        elif isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
            # named_children leaves out a layer that is used a second time.
            for key, child in zip(module._modules, module, strict=True):
                self.read(f"{prefix}{key}", child)
        elif isinstance(module, Residual):
            self._branch(prefix, module)
        elif isinstance(module, nn.Identity) or (isinstance(module, nn.Dropout) and module.p == 0):
            return
        else:
            self._leaf(name, module)

    def _leaf(self, name: str, module: nn.Module) -> None:
        found = linear_map(name, module)
        if found is not None:
            if len(self.open) > 1 or (isinstance(found, WeightedMap) and self._has_weights()):
                self._close(nn.Identity(), name)
            self.open[0][1].append(found)
            if isinstance(found, WeightedMap):
                self.last = name
            return
        try:
            self._close(module, name)
        except UnsupportedError as error:
            raise UnsupportedError(
                f"{self.rule} cannot train {name!r} ({type(module).__name__}): {_why(module)}"
            ) from error

    def _branch(self, prefix: str, block: Residual) -> None:
        if len(self.open) > 1 or self.open[0][1]:
            self._close(nn.Identity(), f"{prefix}input")
        (start, _), ends = self.open[0], []
        for name, branch in (("body", block.body), ("shortcut", block.shortcut)):
            self.open = [(start, [])]
            self.read(f"{prefix}{name}", branch)
            ends += self.open
        self.open = ends

    def _has_weights(self) -> bool:
        return any(isinstance(step, WeightedMap) for _, maps in self.open for step in maps)

    def _close(self, neuron: nn.Module, name: str) -> None:
        layer = Layer(self.last if self._has_weights() else name, activation_of(neuron, name))
        target = len(self.layers)
        for source, maps in self.open:
            edge = Edge(source, target, maps)
            layer.incoming.append(edge)
            self.layers[source].outgoing.append(edge)
        self.layers.append(layer)
        self.open = [(target, [])]

    def finish(self) -> list[Layer]:
        if len(self.open) == 1 and not self.open[0][1]:
            name = self.layers[-1].name
            raise UnsupportedError(
                f"{self.rule}: the network ends with the activation after {name!r}; its last layer must be linear"
            )
        self._close(nn.Identity(), "output")
        return self.layers


def _why(module: nn.Module) -> str:
    if isinstance(module, MemoryModule):
        return "spiking neurons have no states of this kind; take bp, fa, sign_symmetric or dfa"
    if isinstance(module, nn.modules.batchnorm._NormBase):
        return "normalisation couples the samples of a batch; leave it out or fold it into the weights"
    if isinstance(module, nn.Dropout):
        return "it draws another mask at each evaluation; leave it out"
    return "not a layer that this rule knows"
