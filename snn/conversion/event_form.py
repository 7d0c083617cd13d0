"""A converted network in the form that event engines take: the same in every step, and what belongs to the run around it."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.execution import GROUPS
from snn.conversion.functions import ADDITIVE, ChannelAffine
from snn.conversion.layers import SpikingLayer, Timed
from snn.conversion.network import ConvertedNetwork
from snn.conversion.pooling import passes_maxima
from snn.conversion.recurrent import SpikingRecurrent
from snn.conversion.run_network import OverTime
from snn.conversion.source import call_name, node_kinds
from snn.errors import UnsupportedError

_INSTEAD = "use --engine torch"


@dataclass(frozen=True)
class EventForm:
    """A network of equal steps and the two ends of its run.

    Attributes:
        network: [T, B, ...] to outputs [T, B, classes].
        coding: "rate" or "sum".
        skipped: first steps that the read-out leaves out.
        offset: what the read-out holds besides the outputs [1, classes]; with coding "sum" its biases.
    """

    network: Steps
    coding: str
    skipped: int
    offset: torch.Tensor

    def inputs(self, image: torch.Tensor) -> torch.Tensor:
        """The input [T, B, ...] of the steps, from one image that is repeated: with coding "sum" zeros after the first."""
        if self.coding == "rate":
            return image
        steps = torch.zeros_like(image)
        steps[0] = image[0]
        return steps

    def logits(self, outputs: torch.Tensor) -> torch.Tensor:
        """Logits [T, B, classes] whose mean over the steps is the read-out, from the outputs of the steps."""
        T = len(outputs)
        if self.coding == "sum":
            return outputs * T + self.offset.to(outputs)
        logits = outputs.clone()
        logits[: self.skipped] = 0.0
        return logits * (T / (T - self.skipped))


class Steps(nn.Module):
    """A body over sequences [T, B, ...] whose layers see all steps before the next one begins."""

    time_first = True

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.body.modules():
            if isinstance(layer, Timed):
                layer.reset()
        outputs: torch.Tensor = OverTime(self.body, len(x)).run(x.flatten(0, 1))
        return outputs.unflatten(0, (len(x), -1))


def event_form(network: ConvertedNetwork, x: torch.Tensor) -> EventForm:
    """The form for runs on one image that is repeated for T steps.

    Args:
        x: an example [T, B, ...].

    With coding "sum" biases act in the first step alone, which no step of an engine is. A bias that reaches neurons once is a
    membrane from which they start, so each neuron's start takes what biases give it, and no layer keeps one.

    Raises: UnsupportedError for a network whose run has something else that the steps of an engine do not have.
    """
    _refuse(network)
    body = copy.deepcopy(network.body)
    if network.coding == "rate":
        return EventForm(Steps(body), "rate", network.skipped(len(x)), torch.zeros(()))
    offset = _move_biases(network, body, x[0, :1])
    return EventForm(Steps(body), "sum", 0, offset)


def _refuse(network: ConvertedNetwork) -> None:
    if network.preparation is not None:
        raise UnsupportedError(
            f"--engine event: a first run of {network.preparation.steps} steps sets masks and starts for each image anew "
            f"(recipes srp and cos), and the neurons of an event network start alike for all; {_INSTEAD}"
        )
    for node in network.body.graph.nodes:
        layer = network.body.get_submodule(str(node.target)) if node.op == "call_module" else None
        if isinstance(layer, SpikingRecurrent):
            raise UnsupportedError(
                f"--engine event: layer {node.target!r} (recipe rnn-morph) runs inner steps for every element of a sequence, "
                f"which the engine's clock does not have; {_INSTEAD}"
            )
        if isinstance(layer, Timed) and passes_maxima(layer) and network.coding == "sum":
            raise UnsupportedError(
                f"--engine event: layer {node.target!r} is a maximum pooling of sums over time, which the engine does not keep; "
                f"{_INSTEAD}, or train with average pooling"
            )
        if isinstance(layer, Timed) and not isinstance(layer, SpikingLayer) and not passes_maxima(layer):
            raise UnsupportedError(
                f"--engine event: layer {node.target!r} ({type(layer).__name__}, recipe td) sends real values, not events; "
                f"{_INSTEAD}"
            )


@torch.no_grad()
def _move_biases(network: ConvertedNetwork, body: fx.GraphModule, image: torch.Tensor) -> torch.Tensor:
    """Moves the biases of a body into the starts of its neurons; returns what they add to the output [1, classes]."""
    kinds = node_kinds(body.graph)
    for node in body.graph.nodes:
        numbers = node.target not in GROUPS and any(not isinstance(part, fx.Node) for part in node.args[:2])
        if node.target in ADDITIVE and (numbers or any(kinds[source] != "signal" for source in node.all_input_nodes)):
            raise UnsupportedError(
                f"--engine event: {call_name(node)!r} adds a constant; put it into a bias, or {_INSTEAD}"
            )
    currents = _Currents(network.body)
    offset: torch.Tensor = currents.run(torch.zeros_like(image))
    for name, current in currents.found.items():
        layer = body.get_submodule(name)
        assert isinstance(layer, SpikingLayer)
        layer.set_initial(layer.initial + current.squeeze(0))
    for module in body.modules():
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd):
            module.bias = None
        elif isinstance(module, ChannelAffine):
            module.shift = torch.zeros_like(module.shift)
    return offset


class _Currents(fx.Interpreter):
    """Runs a body whose neurons are silent; `found` holds the current of each layer of neurons, by its name."""

    def __init__(self, body: fx.GraphModule) -> None:
        super().__init__(body)
        self.found: dict[str, torch.Tensor] = {}

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not isinstance(self.fetch_attr(target), SpikingLayer):
            return super().call_module(target, args, kwargs)
        (self.found[str(target)],) = args
        return torch.zeros_like(args[0])
