"""Runs a converted network over chunks of time: layers without memory on [T B, ...], those with memory on [T, B, ...].

What does not depend on any layer with memory is the same in every step of a constant input and is computed once.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from snn.conversion.functions import ADDITIVE, ChannelAffine
from snn.conversion.layers import Timed
from snn.conversion.source import call_name, node_kinds
from snn.errors import ShapeError

GROUPS = frozenset({torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack, torch.vstack})
"""Functions of a list of signals."""


class Execution:
    """The plan of a graph.

    Args:
        network: graph over layers, of which some are `Timed`.
        constant_input: True if the input is the same in every step.
    """

    def __init__(self, network: fx.GraphModule, constant_input: bool) -> None:
        self.network = network
        self.order = [node for node in network.graph.nodes if node.op not in ("placeholder", "output")]
        (self.input,) = (node for node in network.graph.nodes if node.op == "placeholder")
        (output,) = (node for node in network.graph.nodes if node.op == "output")
        self.output: fx.Node = output.args[0]
        self.kinds = node_kinds(network.graph)
        self.moving = self._moving(constant_input)
        self._last_reader = {source: node for node in self.order for source in node.all_input_nodes}
        self.constant_input = constant_input
        self.largest = 0  # elements of one step of the largest moving value, known after a first chunk
        self.last_step_sent = (
            True  # whether a layer with memory gave anything but zeros in the last step (moving input)
        )

    def _moving(self, constant_input: bool) -> set[fx.Node]:
        """Signals that may differ from step to step."""
        moving = set() if constant_input else {self.input}
        for node in self.order:
            if self.kinds[node] == "signal" and (
                isinstance(self.layer(node), Timed) or any(source in moving for source in node.all_input_nodes)
            ):
                moving.add(node)
        return moving

    def layer(self, node: fx.Node) -> nn.Module | None:
        """The layer that the node calls, or None."""
        return self.network.get_submodule(str(node.target)) if node.op == "call_module" else None

    def still(self, x: torch.Tensor) -> dict[fx.Node, Any]:
        """Values [B, ...] of all nodes that no layer with memory comes before."""
        values: dict[fx.Node, Any] = {self.input: x}
        for node in self.order:
            if node not in self.moving and all(source in values for source in node.all_input_nodes):
                args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = self._call(node, args, kwargs)
        return values

    def chunk(self, still: Mapping[fx.Node, Any], x: torch.Tensor | None, steps: int, driven: bool = True) -> Any:
        """The output [steps, B, ...] of the next steps.

        Args:
            still: what `still` returned; empty where the input moves.
            x: input [steps, B, ...] where it moves, else None.
            steps: number of steps.
            driven: False leaves out all biases.
        """
        batch = len(still[self.input]) if x is None else x.shape[1]
        values: dict[fx.Node, Any] = {} if x is None else {self.input: x.flatten(0, 1)}

        def repeated(node: fx.Node) -> torch.Tensor:
            value: torch.Tensor = still[node]
            return value.unsqueeze(0).expand(steps, *value.shape)

        def given(node: fx.Node) -> Any:
            if node not in values:
                if self.kinds[node] == "signal":
                    values[node] = repeated(node).flatten(0, 1)
                else:
                    args, kwargs = fx.map_arg((node.args, node.kwargs), shape_of)
                    values[node] = self._call(node, args, kwargs)
            return values[node]

        def shape_of(node: fx.Node) -> Any:
            if self.kinds[node] != "signal" or node in self.moving:
                return given(node)
            value = still[node]
            return value.new_empty(()).expand(steps * batch, *value.shape[1:])

        sent = False
        for node in self.order:
            if node not in self.moving:
                continue
            layer = self.layer(node)
            if isinstance(layer, Timed):
                sequences = [
                    values[source].unflatten(0, (steps, -1)) if source in self.moving else repeated(source)
                    for source in node.args
                ]
                self._check_batch(node, sequences, batch)
                sequence = layer(*sequences, over_time=True)
                result = sequence.flatten(0, 1)
                sent = sent or (not self.constant_input and bool(sequence[-1].any()))
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), given)
                result = self._call(node, args, kwargs) if driven else self._without_bias(node, layer, args, kwargs)
            values[node] = result
            if isinstance(result, torch.Tensor):
                self.largest = max(self.largest, result.numel() // steps)
            for source in node.all_input_nodes:
                if self._last_reader[source] is node and source is not self.output and self.kinds[source] == "signal":
                    values.pop(source, None)
        self.last_step_sent = sent
        output = given(self.output)
        if not isinstance(output, torch.Tensor) or output.dim() == 0 or len(output) != steps * batch:
            shape = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
            raise ShapeError(f"the network must return [B, ...] for a batch of {batch}, it returned {shape}")
        return output.unflatten(0, (steps, batch))

    def _check_batch(self, node: fx.Node, sequences: list[torch.Tensor], batch: int) -> None:
        for sequence in sequences:
            if sequence.shape[1] != batch:
                raise ShapeError(
                    f"layer {str(node.target)!r} (at {node.meta.get('where', '')}): its input has {sequence.shape[1]} "
                    f"rows for a batch of {batch}; the first dimension must stay the batch"
                )

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "get_attr":
            value: Any = self.network
            for part in str(node.target).split("."):
                value = getattr(value, part)
            return value
        try:
            if node.op == "call_module":
                return self.network.get_submodule(str(node.target))(*args, **kwargs)
            if node.op == "call_method":
                return getattr(args[0], str(node.target))(*args[1:], **kwargs)
            assert callable(node.target)
            return node.target(*args, **kwargs)
        except RuntimeError as error:
            where = node.meta.get("where", "")
            place = f"{call_name(node)!r}{f' (at {where})' if where else ''}"
            raise ShapeError(f"{place}: {error}") from error

    def _without_bias(self, node: fx.Node, layer: nn.Module | None, args: Any, kwargs: Any) -> Any:
        if layer is not None:
            return _unbiased(layer)(*args, **kwargs)
        if node.target in GROUPS:
            parts = [
                torch.zeros_like(value) if self.kinds[source] != "signal" else value
                for source, value in zip(node.args[0], args[0], strict=True)  # type: ignore[arg-type]
            ]
            return self._call(node, (parts, *args[1:]), kwargs)
        if node.target in ADDITIVE:
            operands = [
                value if isinstance(source, fx.Node) and self.kinds[source] == "signal" else _nothing(value)
                for source, value in zip(node.args[:2], args[:2], strict=True)
            ]
            return self._call(node, (*operands, *args[2:]), kwargs)
        return self._call(node, args, kwargs)


def _nothing(value: Any) -> Any:
    return torch.zeros_like(value) if isinstance(value, torch.Tensor) else 0.0


def _unbiased(layer: nn.Module) -> nn.Module:
    """The layer without what it adds to every input."""
    if isinstance(layer, ChannelAffine):
        return ChannelAffine(layer.scale, torch.zeros_like(layer.shift))
    if getattr(layer, "bias", None) is None or not isinstance(layer, nn.Linear | nn.modules.conv._ConvNd):
        return layer
    plain = copy.copy(layer)
    plain._parameters = {**layer._parameters, "bias": None}
    return plain
