"""A converted network as the network of a run folder: [T, B, ...] to logits [T, B, classes]."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.layers import SpikingLayer, Timed
from snn.conversion.network import ConvertedNetwork
from snn.errors import ShapeError
from snn.models.stack import Stack

_ROWS = 8192
"""Steps times samples that the layers without memory get at once."""


def plain_network(network: nn.Module) -> nn.Module:
    """The layers of a network of `snn.models` over [T, B, ...] as an ordinary network over [B, ...]; shares the weights.

    A network whose only child is a `Stack` of layers without memory, such as `AnalogMLP` and `AnalogVGG`, becomes a
    `Sequential` with the same names. Any other network is returned as it is.
    """
    children = list(network.children())
    stack = network if isinstance(network, Stack) else children[0] if len(children) == 1 else None
    if not isinstance(stack, Stack):
        return network
    return nn.Sequential(OrderedDict(stack.layers.items())).train(network.training)


def converted_structure(
    ann: Mapping[str, Any],
    recipe: str,
    T: int,
    options: Mapping[str, Any],
    input_shape: Sequence[int],
    classes: int,
) -> ConvertedNetwork:
    """The converted network of an ANN's entry in a run folder, without calibration."""
    from snn.conversion.convert import structure
    from snn.training.build import build_network

    return structure(plain_network(build_network(ann, input_shape, classes)), recipe, T, **options)


class ConvertedRun(nn.Module):
    """A converted network over sequences, as run folders hold it.

    With rate coding and nothing to prepare, the network takes any sequence step by step. All others take one image that
    is repeated T times, of which each recipe makes its own use.

    Args:
        input_shape: shape of one image.
        classes: number of logits.
        ann: `class` and arguments of the source network, as in a training recipe.
        recipe, T, options: of the conversion.
    Input: [T, B, *input_shape].
    Returns: logits [T, B, classes] whose mean over the steps is the read-out.
    Raises: ShapeError for an input of another layout; ValueError for an image that changes where it must not.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        classes: int,
        ann: Mapping[str, Any],
        recipe: str,
        T: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = converted_structure(ann, recipe, T, options or {}, input_shape, classes)

    def repeats_steps(self) -> bool:
        """True where every step does the same, so that engines can run the network spike by spike."""
        network = self.network
        return network.coding == "rate" and network.preparation is None and int(network.skipped_steps) == 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() < 3:
            raise ShapeError(f"a converted run takes [T, B, ...], got shape {tuple(x.shape)}")
        if not self.repeats_steps():
            return self._readouts(x)
        if x.shape[0] * x.shape[1] <= _ROWS:
            return _sequence(self.network, x)
        parts = x.split(max(1, _ROWS // x.shape[0]), dim=1)
        return torch.cat([_sequence(self.network, part) for part in parts], 1)

    def _readouts(self, x: torch.Tensor) -> torch.Tensor:
        if x.stride(0) != 0 and not torch.equal(x, x[:1].expand_as(x)):
            raise ValueError(f"a network with coding {self.network.coding!r} takes one image, repeated in every step")
        T = len(x)
        readouts = self.network(x[0], T=T, return_all_steps=True)
        weights = torch.ones(T) if self.network.coding == "sum" else torch.arange(1, T + 1)
        sums = readouts * weights.to(readouts).view(-1, 1, 1)
        steps = torch.cat([sums[:1], sums[1:] - sums[:-1]])
        return steps * T if self.network.coding == "sum" else steps


def _sequence(network: ConvertedNetwork, x: torch.Tensor) -> torch.Tensor:
    """Logits [T, B, classes] for inputs [T, B, ...]: every layer sees all steps before the next one begins."""
    network.reset()
    steps: torch.Tensor = OverTime(network.body, x.shape[0]).run(x.flatten(0, 1))
    network.reset()
    return steps.unflatten(0, (x.shape[0], -1))


class OverTime(fx.Interpreter):
    """Runs a graph on [T * B, ...]; layers with a memory see [T, B, ...]."""

    def __init__(self, body: fx.GraphModule, steps: int) -> None:
        super().__init__(body)
        self.steps = steps

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        layer = self.fetch_attr(target)
        if not isinstance(layer, Timed):
            return super().call_module(target, args, kwargs)
        inputs = [part.unflatten(0, (self.steps, -1)) for part in args]
        if not isinstance(layer, SpikingLayer):
            return layer.sequence(*inputs).flatten(0, 1)
        (current,) = inputs
        if layer.correction.dim():
            current = current + layer.correction
        # Called without a state, so that engines and counters see an ordinary layer of neurons.
        counts = layer.neuron(current)
        # As a number, one value for all spikes is a factor that counters and engines fold into the next weights.
        theta = layer.threshold.item() if layer.threshold.dim() == 0 else layer.threshold
        return (counts * theta).flatten(0, 1)
