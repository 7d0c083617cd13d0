"""From the graph of layers to instructions on flat memory.

A layer's value is held as an event list (places of non-zero entries), as a dense buffer, or both, made when first
needed. Connections add what events send into the buffer of what they feed; several connections into one sum share its
buffer. Values are stored in any order that suits the layer (feature maps with channels last); `order` says which.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from neuromorphic.compiler.graph import (
    Add,
    Affine,
    Conv,
    Delay,
    DelayedDense,
    Dense,
    Fire,
    Input,
    Layer,
    LayerGraph,
    Op,
    OverTime,
    Pool,
    Take,
)
from neuromorphic.compiler.kernels import machine as m
from neuromorphic.compiler.machine_source import Kind
from neuromorphic.compiler.memory import Buffer, Memory, row
from neuromorphic.compiler.neurons import fires_binary


@dataclass
class Held:
    """How a layer's value is held.

    Attributes:
        size: features.
        order: torch's flat place of each stored place; None where they are the same.
        list: number of the event list, None if there is none yet.
        gain: every event of the list counts for its value times this.
        buffer: the dense values, None if there are none yet.
        binary: every entry is 0 or 1 and the list holds it once.
    """

    size: int
    order: np.ndarray | None
    list: int | None = None
    gain: float = 1.0
    buffer: Buffer | None = None
    binary: bool = False


@dataclass
class Instruction:
    """A row of the program and the layer that it belongs to."""

    row: np.ndarray
    layer: str


@dataclass
class Lowered:
    """The result: memory, instructions, kinds of neurons, and how each layer of interest is held."""

    memory: Memory
    instructions: list[Instruction]
    kinds: list[Kind]
    held: dict[str, Held]
    output: str
    reduce: OverTime | None
    start: dict[int, Any] = field(default_factory=dict)  # place in the state -> starting values there
    cleared: list[tuple[int, int]] = field(
        default_factory=list
    )  # (place, size) in the tables, zero before the first step


Functions = dict[type[Op], Callable[["Lowering", Layer], None]]


class Lowering:
    """Goes through the layers in order and emits instructions."""

    def __init__(self, graph: LayerGraph, dtype: str, lazy: frozenset[str]) -> None:
        self.lazy = lazy
        self.touched: dict[str, int] = {}  # lazy layer -> place of the marks of its pixels
        self.cleared: list[tuple[int, int]] = []
        self.graph = LayerGraph(dict(graph.layers), graph.output, graph.time_first)  # moved values join its layers
        self.memory = Memory(dtype)
        self.readers = graph.consumers()
        self.instructions: list[Instruction] = []
        self.filled: list[Instruction] = []  # buffers that go back to their base when a step begins
        self.kinds: list[Kind] = []
        self.held: dict[str, Held] = {}
        self.orders: dict[str, np.ndarray | None] = {}
        self.start: dict[int, Any] = {}
        self.shared = self._shared_buffers()
        for layer in graph:
            if isinstance(layer.op, Fire | Delay):  # their values of the step before may be read first
                self._hold_state(layer)

    def run(self, functions: Functions) -> Lowered:
        """Applies the function of each layer's operation, in order."""
        reduce = None
        for layer in list(self.graph):
            if isinstance(layer.op, OverTime):
                reduce = layer.op
                continue
            functions[type(layer.op)](self, layer)
        output = self.graph.output
        if reduce is not None:
            output = self.graph.layers[output].inputs[0]
        instructions = self.filled + self.instructions
        return Lowered(self.memory, instructions, self.kinds, self.held, output, reduce, self.start, self.cleared)

    # What is stored where.

    def order(self, name: str) -> np.ndarray | None:
        """Torch's flat place of each stored place of a layer."""
        if name not in self.orders:
            self.orders[name] = self._find_order(self.graph.layers[name])
        return self.orders[name]

    def _find_order(self, layer: Layer) -> np.ndarray | None:
        forward = [name for name in layer.inputs if name not in layer.late]
        if isinstance(layer.op, Take) and len(layer.inputs) == 1:
            before = self.order(layer.inputs[0])
            if layer.op.index is None:
                return before
            source = self.graph.layers[layer.inputs[0]]
            if is_permutation(layer.op.index, source.size):
                inverse = np.argsort(layer.op.index)
                return inverse if before is None else inverse[before]
        if isinstance(layer.op, Fire | Affine | Delay | OverTime | Add):
            return self.order(forward[0]) if forward else None
        return None if isinstance(layer.op, Dense | DelayedDense) else channels_last(layer.shape)

    def _shared_buffers(self) -> dict[str, str]:
        """Connection -> the sum into whose buffer it adds."""
        shared: dict[str, str] = {}
        for layer in self.graph:
            if not isinstance(layer.op, Add):
                continue
            for name in layer.inputs:
                source = self.graph.layers[name]
                alone = self.readers[name] == [layer.name] and name not in layer.late
                if (
                    alone
                    and isinstance(source.op, Dense | Conv)
                    and same_order(self.order(name), self.order(layer.name))
                ):
                    shared[name] = layer.name
        return shared

    def _hold_state(self, layer: Layer) -> None:
        held = Held(layer.size, self.order(layer.name))
        if isinstance(layer.op, Delay):
            held.list = self.memory.event_list(layer.size)
        elif isinstance(layer.op, Fire) and fires_binary(layer.op):
            held.list, held.binary = self.memory.event_list(layer.size), True
        else:
            held.buffer = self.memory.buffer(layer.size)
        self.held[layer.name] = held

    def emit(self, layer: str, values: np.ndarray) -> None:
        """Appends an instruction."""
        self.instructions.append(Instruction(values, layer))

    def new_buffer(self, layer: Layer) -> Buffer:
        """The buffer of a layer; it returns to its base at every step, unless its only reader, neurons, does that."""
        buffer = self.memory.buffer(layer.size)
        buffer.private = self._is_private(layer.name)
        if not buffer.private:
            self.filled.append(Instruction(self._fill_row(buffer), layer.name))
        return buffer

    def _fill_row(self, buffer: Buffer) -> np.ndarray:
        return row(m.FILL, target=buffer.place, size=buffer.size, weights=buffer.base_place)

    def _is_private(self, name: str) -> bool:
        """True where one layer of neurons alone reads this layer, perhaps through others that work in its buffer."""
        readers = self.readers[name]
        if len(readers) != 1 or readers[0] == "":
            return False
        reader = self.graph.layers[readers[0]]
        if name in reader.late:
            return False
        if isinstance(reader.op, Fire):
            return True
        keeps = isinstance(reader.op, Affine) or (isinstance(reader.op, Take) and self.is_free(reader))
        return keeps and self._is_private(reader.name)

    def is_free(self, layer: Layer) -> bool:
        """True for a reshape or permutation, which only changes the order's meaning."""
        if not isinstance(layer.op, Take) or len(layer.inputs) != 1:
            return False
        index = layer.op.index
        return index is None or is_permutation(index, self.graph.layers[layer.inputs[0]].size)

    def target(self, layer: Layer) -> Buffer:
        """The buffer that a connection adds to: its own, or that of the sum it belongs to."""
        name = self.shared.get(layer.name, layer.name)
        if name not in self.held:
            owner = self.graph.layers[name]
            self.held[name] = Held(owner.size, self.order(name), buffer=self.new_buffer(owner))
        buffer = self.held[name].buffer
        assert buffer is not None
        return buffer

    def events(self, name: str, late: bool = False) -> Held:
        """The value of a layer with an event list, made by looking through its dense values where there is none."""
        held = self.held[name]
        if held.list is not None:
            return held
        assert held.buffer is not None
        number = self.memory.event_list(held.size)
        self.emit(name, row(m.SCAN, source=held.buffer.place, target=number, size=held.size))
        found = Held(held.size, held.order, list=number)
        if not late:
            held.list = number
        return found

    def dense(self, name: str) -> Buffer:
        """The dense values of a layer, summed up from its events where there are none."""
        held = self.held[name]
        if held.buffer is None:
            held.buffer = self.memory.buffer(held.size)
            self.filled.append(Instruction(self._fill_row(held.buffer), name))
            self.add_events(name, held, held.buffer, held.order)
        return held.buffer

    def add_events(self, name: str, held: Held, buffer: Buffer, order: np.ndarray | None) -> None:
        """Adds the events of a layer to a buffer that is stored in another order."""
        assert held.list is not None
        values = row(
            m.DIAGONAL, source=held.list, target=buffer.place, size=buffer.size, gain=self.memory.weights.put(held.gain),
            cache=self.cache(name, buffer.size), **self.memory.table(between(held.order, order)),
        )  # fmt: skip
        self.emit(name, values)

    def cache(self, source: str, size: int) -> int:
        """Where what a repeated input sends is kept; -1 for a connection that does not come from the input."""
        while isinstance(self.graph.layers[source].op, Take | Pool) and len(self.graph.layers[source].inputs) == 1:
            source = self.graph.layers[source].inputs[0]
        is_input = isinstance(self.graph.layers[source].op, Input)
        return self.memory.state.put(np.zeros(size)) if is_input else -1

    def marks(self, layer: Layer, pixels: int) -> dict[str, int]:
        """Columns that make a convolution list the pixels it reaches, where lazy neurons read it."""
        reader = self.readers[layer.name][0]
        if reader not in self.lazy:
            return {}
        place = self.memory.tables.put(np.zeros(2 * pixels + 1, np.int64))
        self.cleared.append((place, 2 * pixels + 1))
        self.touched[reader] = place
        return {"marks": place, "marks_size": pixels}

    def connect(self, layer: Layer, op: int, weights: np.ndarray, geometry: tuple[int, ...] = (), **more: int) -> None:
        """A connection from its only input; `weights` are laid out as the kernel reads them."""
        source = self.events(layer.inputs[0], layer.inputs[0] in layer.late)
        assert source.list is not None
        buffer = self.target(layer)
        cache = self.cache(layer.inputs[0], buffer.size) if "marks" not in more else -1
        place = self.memory.weights.put(weights * source.gain)
        values = row(
            op, geometry, source=source.list, target=buffer.place, size=buffer.size, weights=place,
            weights_size=weights.size, cache=cache, **more,
        )  # fmt: skip
        self.emit(layer.name, values)


def channels_last(shape: tuple[int, ...]) -> np.ndarray | None:
    """The order of a feature map stored with channels last; None for other shapes and single channels."""
    if len(shape) not in (2, 3) or shape[0] == 1:
        return None
    C = shape[0]
    flat = np.arange(int(np.prod(shape))).reshape(C, -1)
    return np.ascontiguousarray(flat.T).reshape(-1)


def between(stored: np.ndarray | None, wanted: np.ndarray | None) -> np.ndarray | None:
    """For each place in one order its place in another; None where they are the same."""
    if same_order(stored, wanted):
        return None
    size = len(stored) if stored is not None else len(wanted)  # type: ignore[arg-type]
    there = np.arange(size) if wanted is None else np.argsort(wanted)
    return there if stored is None else there[stored]


def same_order(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        other = b if a is None else a
        return other is None or bool((other == np.arange(len(other))).all())
    return a is b or np.array_equal(a, b)


def is_permutation(index: np.ndarray, size: int) -> bool:
    return len(index) == size and bool((np.bincount(index, minlength=size) == 1).all())
