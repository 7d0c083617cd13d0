"""From a NIR graph to a torch module that trains, runs and compiles."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from neuromorphic.compiler.nir_build import build_node
from neuromorphic.compiler.nir_data import GraphData, read_graph
from neuromorphic.compiler.nir_layers import ElementDelay, Late
from neuromorphic.compiler.nir_neurons import Policy
from snn.errors import ShapeError, UnsupportedError
from snn.neurons import Neuron


class NIRNetwork(nn.Module):
    """A NIR graph as a torch module; made by `from_nir`.

    Inputs [T, B, ...] go through the nodes in an order in which each follows its sources. In a cycle, an edge back to
    an earlier node delivers what its source sent at the step before (zero at the first), and the network advances step
    by step.

    Attributes:
        names: NIR's name of each layer by its name among `layers`.
        policy: how the equations were made discrete.
        notes: what the import had to assume, one sentence each.
        input_shape: of one sample at one step.
    """

    time_first = True

    def __init__(self, graph: GraphData, policy: Policy, input_shape: Sequence[int] | None) -> None:
        super().__init__()
        self.policy = policy
        self.notes: list[str] = []
        inputs = [name for name, node in graph.nodes.items() if node.type == "Input"]
        outputs = [name for name, node in graph.nodes.items() if node.type == "Output"]
        if len(inputs) != 1 or len(outputs) != 1:
            raise UnsupportedError(f"NIR: one Input and one Output are supported, got {inputs} and {outputs}")
        self._input, self._output = inputs[0], outputs[0]
        self._order, late = execution_order(graph, inputs[0])
        self._sources = {name: graph.sources(name) for name in self._order}
        self._late = {name: sorted(source for source, target in late if target == name) for name in self._order}
        self.is_cyclic = bool(late)
        self.layers = nn.ModuleDict()
        self.late = nn.ModuleDict()
        self.names: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self.input_shape = _input_shape(graph, inputs[0], input_shape)
        self._build(graph, late)

    def _build(self, graph: GraphData, late: set[tuple[str, str]]) -> None:
        shapes = {self._input: self.input_shape}
        layers: dict[str, nn.Module | None] = {}
        waiting = [name for name in self._order if name != self._input]
        while waiting:  # a node that only gets late input has its shape from neurons that come after it
            name = next((name for name in waiting if any(source in shapes for source in self._sources[name])), None)
            if name is None:
                raise ValueError(f"NIR nodes {waiting} get no input")
            waiting.remove(name)
            shape = next(shapes[source] for source in self._sources[name] if source in shapes)
            node = graph.nodes[name]
            try:
                layers[name], shapes[name] = build_node(node, shape, self.policy, self.notes, name)
            except (ValueError, UnsupportedError) as error:
                raise type(error)(f"NIR node {name!r} ({node.type}): {error}") from error
        for name in self._order:
            found = [shapes[source] for source in self._sources.get(name, [])]
            if any(shape != found[0] for shape in found):
                raise ShapeError(f"NIR node {name!r}: its inputs have different shapes {found}")
            layer = layers.get(name)
            if layer is not None:
                self._keys[name] = key = _key(name, self.layers)
                self.names[key] = name
                self.layers[key] = layer
        for source, target in sorted(late):
            key = f"{self._keys[source]}__to__{_key(target, {})}"
            self.late[key] = Late(f"layers.{self._keys[source]}", shapes[source])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Output [T, B, ...] for x [T, B, *input_shape]."""
        if x.dim() != len(self.input_shape) + 2 or tuple(x.shape[2:]) != self.input_shape:
            raise ShapeError(f"NIRNetwork: input must be [T, B, *{self.input_shape}], got shape {tuple(x.shape)}")
        if not self.is_cyclic:
            return self._pass(x, None, None)
        states: dict[str, Any] = {}
        previous: dict[str, torch.Tensor] = {}
        return torch.cat([self._pass(x[t : t + 1], states, previous) for t in range(len(x))])

    def _pass(
        self, x: torch.Tensor, states: dict[str, Any] | None, previous: dict[str, torch.Tensor] | None
    ) -> torch.Tensor:
        values: dict[str, torch.Tensor] = {self._input: x}
        for name in self._order:
            if name == self._input:
                continue
            arriving = [self._arriving(source, name, values, previous, x) for source in self._sources[name]]
            value = arriving[0]
            for other in arriving[1:]:
                value = value + other
            values[name] = self._through(name, value, states)
        if previous is not None:
            previous.update(values)
        return values[self._output]

    def _arriving(
        self, source: str, name: str, values: dict[str, torch.Tensor], previous: dict[str, torch.Tensor] | None, x: torch.Tensor
    ) -> torch.Tensor:  # fmt: skip
        if source not in self._late[name]:
            return values[source]
        assert previous is not None
        late: torch.Tensor = self.late[f"{self._keys[source]}__to__{_key(name, {})}"](x, previous.get(source))
        return late

    def _through(self, name: str, value: torch.Tensor, states: dict[str, Any] | None) -> torch.Tensor:
        if name not in self._keys:
            return value
        layer: Any = self.layers[self._keys[name]]
        if isinstance(layer, nn.Conv1d | nn.Conv2d | nn.AvgPool2d):
            y: torch.Tensor = layer(value.flatten(0, 1)).unflatten(0, value.shape[:2])
            return y
        if states is not None and isinstance(layer, Neuron):
            y, states[name] = layer(value, state=states.get(name))
            return y
        if states is not None and isinstance(layer, ElementDelay):
            y, states[name] = layer(value, states.get(name)), layer.remembered(value, states.get(name))
            return y
        result: torch.Tensor = layer(value)
        return result


def from_nir(
    source: str | Path | Any,
    dt_ms: float,
    *,
    integration: str | None = None,
    input: str | None = None,
    reset: str | None = None,
    fires_at_threshold: bool | None = None,
    input_shape: Sequence[int] | None = None,
) -> NIRNetwork:
    """A torch module that computes what a NIR graph describes, at a step of `dt_ms`.

    NIR fixes equations in continuous time; what it leaves open is taken from the arguments, else from the file's metadata
    (which our own export writes), else from the defaults. `module.policy` and `module.notes` say what was taken.

    Args:
        source: path of a file, or a `nir.NIRGraph`.
        dt_ms: length of a step.
        integration, input, reset, fires_at_threshold: see `Policy`; default "euler", as NIR's own definition, "value",
            False.
        input_shape: of one sample at one step, where the file does not say or is wrong.
    Raises:
        FileNotFoundError, ValueError, ShapeError: a file or graph that cannot be used; the text names the node.
        UnsupportedError: a cycle without neurons, several inputs or outputs.
    """
    graph = read_graph(source)
    saved = {key: value.item() if isinstance(value, np.generic) else value for key, value in graph.metadata.items()}

    def choice(given: Any, key: str, default: Any) -> Any:
        return given if given is not None else saved.get(key, default)

    policy = Policy(
        dt=dt_ms * 1e-3,
        integration=str(choice(integration, "integration", "euler")),
        input=input,
        reset=str(choice(reset, "reset", "value")),
        fires_at_threshold=bool(choice(fires_at_threshold, "fires_at_threshold", False)),
    )
    overridden = any(item is not None for item in (integration, input, reset, fires_at_threshold))
    if overridden:
        for node in graph.nodes.values():
            node.metadata = {}
    return NIRNetwork(graph, policy, input_shape).eval()


def execution_order(graph: GraphData, first: str) -> tuple[list[str], set[tuple[str, str]]]:
    """Nodes in an order in which each follows its sources, and the edges that go back and carry the step before.

    The edges that go back are found from the input by a depth-first walk; one that starts at a node without memory is
    moved to the neurons that feed that node, since what it delivers is theirs of the step before.

    Raises:
        UnsupportedError: a cycle without neurons.
    """
    targets: dict[str, list[str]] = {name: [] for name in graph.nodes}
    for source, target in graph.edges:
        targets[source].append(target)
    late: set[tuple[str, str]] = set()
    state: dict[str, int] = {}
    starts = [first, *(name for name in graph.nodes if name != first)]
    for start in starts:
        if start in state:
            continue
        state[start] = 1
        stack = [(start, iter(targets[start]))]
        while stack:
            name, following = stack[-1]
            target = next(following, "")
            if not target:
                state[name] = 2
                stack.pop()
            elif state.get(target) == 1:
                late |= _at_neurons(graph, name, target)
            elif target not in state:
                state[target] = 1
                stack.append((target, iter(targets[target])))
    waiting = {name: {source for source in graph.sources(name) if (source, name) not in late} for name in graph.nodes}
    order: list[str] = []
    while waiting:
        ready = [name for name, sources in waiting.items() if not sources]
        if not ready:
            raise UnsupportedError(f"NIR: nodes {sorted(waiting)} form a cycle without neurons")
        order += ready
        for name in ready:
            del waiting[name]
        for sources in waiting.values():
            sources.difference_update(ready)
    return order, late


def _at_neurons(graph: GraphData, source: str, target: str) -> set[tuple[str, str]]:
    """The edges out of neurons through which `source` gets what it hands to `target`."""
    found: set[tuple[str, str]] = set()
    stack, seen = [(source, target)], set()
    while stack:
        name, after = stack.pop()
        if (name, after) in seen:
            continue
        seen.add((name, after))
        if graph.nodes[name].type in ("I", "LI", "IF", "LIF", "CubaLI", "CubaLIF"):
            found.add((name, after))
        elif name == target:
            raise UnsupportedError(f"NIR: a cycle through {source!r} and {target!r} has no neurons")
        else:
            before = graph.sources(name)
            stack += [(other, name) for other in before]
    return found


def _input_shape(graph: GraphData, name: str, given: Sequence[int] | None) -> tuple[int, ...]:
    if given is not None:
        return tuple(int(size) for size in given)
    stored = graph.nodes[name].fields.get("shape")
    if stored is None or np.size(stored) == 0 or not np.all(np.asarray(stored, float) > 0):
        raise ValueError("NIR: the file does not say the shape of its input; pass input_shape=")
    return tuple(int(size) for size in np.atleast_1d(stored))


def _key(name: str, taken: Any) -> str:
    key = "".join(letter if letter.isalnum() else "_" for letter in name) or "node"
    while key in taken:
        key += "_"
    return key
