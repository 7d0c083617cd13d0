"""`compile`: from a torch network to an event network that gives the same spikes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from neuromorphic.compiler.fold import folded
from neuromorphic.compiler.graph import LayerGraph
from neuromorphic.compiler.kernels import machine as m
from neuromorphic.compiler.lazy import LARGEST_SHARE, lazy_candidates
from neuromorphic.compiler.lower import lower
from neuromorphic.compiler.machine import Machine
from neuromorphic.compiler.network_input import NetworkInput, network_input
from neuromorphic.compiler.report import CompileReport, compile_report
from neuromorphic.compiler.trace import fresh_copy, layer_graph

if TYPE_CHECKING:
    from neuromorphic.compiler.check import CheckReport
    from neuromorphic.compiler.stream import EventStream
    from neuromorphic.energy.counts import LayerActivity

UPDATES = ("auto", "dense", "lazy")
DTYPES = {"float32": torch.float32, "float64": torch.float64}


class EventNetwork:
    """A network that works spike by spike; made by `compile`.

    Attributes:
        graph: its layers after folding.
        dtype: "float32" or "float64".
        lazy: layers of neurons that are updated only where something reaches them.
        input_shape, output_shape: of one sample at one step.
        report: layers, neurons, synapses, and events per layer of the example input.
    """

    def __init__(self, graph: LayerGraph, dtype: str, lazy: frozenset[str] = frozenset()) -> None:
        self.graph = graph
        self.dtype = dtype
        self.lazy = lazy
        self.machine = Machine(lower(graph, dtype, lazy), dtype)
        self.input_shape = graph.input.shape
        self.output_shape = graph.layers[graph.output].shape
        self.report: CompileReport = compile_report(graph, self.machine)
        self._probing: np.ndarray | None = None  # the program that also writes every layer of neurons

    def run(self, x: Any, steps: int | None = None) -> Any:
        """The network's output for whole sequences, each from a fresh state.

        Args:
            x: frames or spikes [T, B, ...], as torch tensor or NumPy array (a view that repeats one frame over time is
                computed once per layer of connections); or events of one sample as (steps, places) or (steps, places,
                values): integer arrays sorted by step, places flat in one step of the input.
            steps: number of steps, for events only.
        Returns: [T, B, ...] ([B, ...] where the network ends in a sum or mean over time), of the kind that x is; a
            torch tensor for events.
        Raises: ShapeError, TypeError or ValueError for an input that does not fit.
        """
        given = network_input(x, self.input_shape, self.machine.real, steps)
        out = np.empty((given.samples, given.steps, int(np.prod(self.output_shape, dtype=np.int64))), self.machine.real)
        for sample in range(given.samples):
            self.machine.reset()
            rows, events = given.sample(sample)
            self.machine.advance(given.steps, rows, events, out[sample])
        return self._shaped(out, given)

    def _shaped(self, out: np.ndarray, given: NetworkInput) -> Any:
        reduce = self.machine.lowered.reduce
        if reduce is not None:
            summed = out.mean(1) if reduce.mean else out.sum(1)
            y = summed.reshape(given.samples, *self.output_shape)
        else:
            y = out.swapaxes(0, 1).reshape(given.steps, given.samples, *self.output_shape)
        return y if given.is_numpy else torch.from_numpy(np.ascontiguousarray(y))

    def spikes(self, x: Any, steps: int | None = None) -> tuple[Any, dict[str, np.ndarray]]:
        """The output as `run` gives it, and what each layer of neurons sent, [T, B, ...] by layer name."""
        given = network_input(x, self.input_shape, self.machine.real, steps)
        layers = self.graph.neurons()
        size = int(np.prod(self.output_shape, dtype=np.int64))
        firsts = (np.cumsum([size, *(layer.size for layer in layers)])).tolist()
        columns = {layer.name: first for layer, first in zip(layers, firsts[:-1], strict=True)}
        if self._probing is None:
            _, with_layers = self.machine.with_outputs(columns)
            self._probing = np.concatenate([with_layers, self.machine.program[-1:]])
        program, width = self._probing, firsts[-1]
        out = np.empty((given.samples, given.steps, width), self.machine.real)
        for sample in range(given.samples):
            self.machine.reset()
            rows, events = given.sample(sample)
            self.machine.advance(given.steps, rows, events, out[sample], program)
        found = {}
        for layer in layers:
            part = out[:, :, columns[layer.name] : columns[layer.name] + layer.size]
            found[layer.name] = part.swapaxes(0, 1).reshape(given.steps, given.samples, *layer.shape)
        return self._shaped(np.ascontiguousarray(out[:, :, :size]), given), found

    def activity(self, x: Any, steps: int | None = None) -> list[LayerActivity]:
        """What each layer did: a connection (or sum of connections) together with the neurons behind it.

        Synaptic events are the additions that the event network makes, after folding: a convolution that has taken a
        pooling into its kernel counts once for each input spike and each pooled output it reaches.
        """
        from neuromorphic.compiler.activity import layer_activity

        counts = self._counts(network_input(x, self.input_shape, self.machine.real, steps))
        return layer_activity(self.graph, self.machine.names, self.machine.program, counts)

    def _counts(self, given: NetworkInput) -> np.ndarray:
        """Events and operations of each instruction, [T, B, instructions, 2]."""
        counts = np.zeros((given.samples, given.steps, len(self.machine.program), 2), np.int64)
        out = np.empty((given.steps, int(np.prod(self.output_shape, dtype=np.int64))), self.machine.real)
        for sample in range(given.samples):
            self.machine.reset()
            rows, events = given.sample(sample, whole=True)
            self.machine.advance(given.steps, rows, events, out, counts=counts[sample])
        return counts.swapaxes(0, 1)

    def updated_share(self, x: Any, steps: int | None = None) -> dict[str, float]:
        """Share of the neurons of each layer that are updated per step."""
        counts = self._counts(network_input(x, self.input_shape, self.machine.real, steps))
        found = {}
        for k, name in enumerate(self.machine.names):
            if self.machine.program[k, m.OP] >= m.NEURON:
                found[name] = float(counts[:, :, k, 1].mean()) / self.graph.layers[name].size
        return found

    def stream(self) -> EventStream:
        """A stream of its own, that takes events one at a time or in windows and keeps its state."""
        from neuromorphic.compiler.stream import EventStream

        return EventStream(Machine(self.machine.lowered, self.dtype), self.input_shape, self.output_shape)

    def check(self, module: nn.Module, x: Any) -> CheckReport:
        """Runs the torch network beside this one and compares the spikes of each layer; see `CheckReport`."""
        from neuromorphic.compiler.check import compare

        return compare(self, module, x)

    def __repr__(self) -> str:
        return f"EventNetwork({self.input_shape} -> {self.output_shape}, {self.dtype}, {self.report.summary()})"


def compile(
    module: nn.Module,
    example_input: torch.Tensor,
    dtype: str = "float32",
    *,
    time_first: bool | None = None,
    verify: bool = True,
    update: str = "auto",
) -> EventNetwork:
    """An event network that gives the same spikes as a trained torch network.

    Args:
        module: a network of ours or of SpikingJelly's layers, in any Python code around them.
        example_input: [T, B, ...] for a network over sequences, [B, ...] for one over single steps.
        dtype: arithmetic of the event network.
        update: "dense" updates all neurons at every step, "lazy" only pixels that something reached where a layer allows
            it (neurons that only decay, behind a convolution without bias); "auto" takes lazy updates for the layers of which
            less than 40 % are touched per step of the example.
        time_first: which of the two the network takes; None looks at the step mode of its neurons.
        verify: compare the outcome with torch on the example input, in float64 (a layer that was followed wrongly, for
            example because its Python code depends on the step, cannot pass).
    Raises:
        UnsupportedError: a layer or function that has no event form, by its name and the line of the network's code.
        ShapeError, TypeError: the example input does not fit the network.
        ValueError: `verify` found a difference; the text names the first layer.
    """
    if update not in UPDATES:
        raise ValueError(f"update must be one of {UPDATES}, got {update!r}")
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {tuple(DTYPES)}, got {dtype!r}")
    if not isinstance(module, nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got a {type(module).__name__}")
    if not isinstance(example_input, torch.Tensor) or not example_input.is_floating_point():
        got = (
            f"a {example_input.dtype} tensor" if isinstance(example_input, torch.Tensor) else repr(type(example_input))
        )
        raise TypeError(f"example_input must be a floating-point tensor, got {got}")
    start = time.perf_counter()
    graph = _graph(module, example_input, dtype, time_first)
    x = _sequence(example_input, graph.time_first)
    candidates = lazy_candidates(graph) if update != "dense" else frozenset()
    network = EventNetwork(graph, dtype, candidates)
    if candidates and update == "auto":
        touched = network.updated_share(x)
        lazy = frozenset(name for name in candidates if touched[name] < LARGEST_SHARE)
        network = network if lazy == candidates else EventNetwork(graph, dtype, lazy)
    network.report.seconds = time.perf_counter() - start
    if verify:
        double = network
        if dtype != "float64":
            double = EventNetwork(_graph(module, example_input, "float64", time_first), "float64", network.lazy)
        found = double.check(module, x)
        if not found.equal:
            raise ValueError(f"the event network differs from torch on the example input: {found.first_difference()}")
    network.report.note_events(network.activity(x))
    return network


def _graph(module: nn.Module, example_input: torch.Tensor, dtype: str, time_first: bool | None) -> LayerGraph:
    kind = DTYPES[dtype]
    return folded(layer_graph(fresh_copy(module).to(kind), example_input.to(kind), time_first))


def _sequence(example_input: torch.Tensor, time_first: bool) -> torch.Tensor:
    return example_input if time_first else example_input.unsqueeze(0)
