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
    MaxPool,
    Op,
    OverTime,
    Pool,
    Take,
    as_map,
)
from neuromorphic.compiler.kernels import machine as m
from neuromorphic.compiler.machine_source import Kind, kind_of
from neuromorphic.compiler.memory import Buffer, Memory, row
from neuromorphic.compiler.neurons import fires_binary, start_values
from snn.errors import UnsupportedError


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


def lower(graph: LayerGraph, dtype: str) -> Lowered:
    """Instructions and memory of a folded graph."""
    return _Lowering(graph, dtype).run()


class _Lowering:
    """Goes through the layers in order and emits instructions."""

    def __init__(self, graph: LayerGraph, dtype: str) -> None:
        self.graph = graph
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

    def run(self) -> Lowered:
        reduce = None
        for layer in self.graph:
            if isinstance(layer.op, OverTime):
                reduce = layer.op
                continue
            LOWERINGS[type(layer.op)](self, layer)
        output = self.graph.output
        if reduce is not None:
            output = self.graph.layers[output].inputs[0]
        instructions = self.filled + self.instructions
        return Lowered(self.memory, instructions, self.kinds, self.held, output, reduce, self.start)

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
            if _is_permutation(layer.op.index, source.size):
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
                if alone and isinstance(source.op, Dense | Conv) and _same(self.order(name), self.order(layer.name)):
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
        keeps = isinstance(reader.op, Affine) or (isinstance(reader.op, Take) and self._is_free(reader))
        return keeps and self._is_private(reader.name)

    def _is_free(self, layer: Layer) -> bool:
        """True for a reshape or permutation, which only changes the order's meaning."""
        if not isinstance(layer.op, Take) or len(layer.inputs) != 1:
            return False
        index = layer.op.index
        return index is None or _is_permutation(index, self.graph.layers[layer.inputs[0]].size)

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
            cache=self._cache(name, buffer.size), **self.memory.table(between(held.order, order)),
        )  # fmt: skip
        self.emit(name, values)

    def _cache(self, source: str, size: int) -> int:
        """Where what a repeated input sends is kept; -1 for a connection that does not come from the input."""
        while isinstance(self.graph.layers[source].op, Take | Pool) and len(self.graph.layers[source].inputs) == 1:
            source = self.graph.layers[source].inputs[0]
        is_input = isinstance(self.graph.layers[source].op, Input)
        return self.memory.state.put(np.zeros(size)) if is_input else -1

    def connect(self, layer: Layer, op: int, weights: np.ndarray, geometry: tuple[int, ...] = (), **more: int) -> None:
        """A connection from its only input; `weights` are laid out as the kernel reads them."""
        source = self.events(layer.inputs[0], layer.inputs[0] in layer.late)
        assert source.list is not None
        buffer = self.target(layer)
        cache = self._cache(layer.inputs[0], buffer.size)
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
    if _same(stored, wanted):
        return None
    size = len(stored) if stored is not None else len(wanted)  # type: ignore[arg-type]
    there = np.arange(size) if wanted is None else np.argsort(wanted)
    return there if stored is None else there[stored]


def _same(a: np.ndarray | None, b: np.ndarray | None) -> bool:
    if a is None or b is None:
        other = b if a is None else a
        return other is None or bool((other == np.arange(len(other))).all())
    return a is b or np.array_equal(a, b)


def _is_permutation(index: np.ndarray, size: int) -> bool:
    return len(index) == size and bool((np.bincount(index, minlength=size) == 1).all())


def _input(lowering: _Lowering, layer: Layer) -> None:
    number = lowering.memory.event_list(layer.size)
    order = lowering.order(layer.name)
    values = row(m.INPUT, target=number, size=layer.size, **lowering.memory.table(between(None, order)))
    lowering.held[layer.name] = Held(layer.size, order, list=number)
    lowering.emit(layer.name, values)


def _dense(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Dense)
    order = lowering.order(layer.inputs[0])
    columns = op.weight if order is None else op.weight[:, order]
    lowering.connect(layer, m.DENSE, np.ascontiguousarray(columns.T))
    if op.bias is not None:
        lowering.target(layer).base += op.bias


def _delayed_dense(lowering: _Lowering, layer: Layer) -> None:
    """Every event adds to sums for the steps ahead; that of this step goes to the buffer."""
    op = layer.op
    assert isinstance(op, DelayedDense)
    order = lowering.order(layer.inputs[0])
    weight, steps = (op.weight, op.steps) if order is None else (op.weight[:, order], op.steps[:, order])
    source = lowering.events(layer.inputs[0], layer.inputs[0] in layer.late)
    assert source.list is not None
    buffer = lowering.target(layer)
    places = steps.T * layer.size + np.arange(layer.size)
    length = int(steps.max()) + 1
    values = row(
        m.DELAYED_DENSE, source=source.list, target=buffer.place, size=buffer.size, extra=length,
        weights=lowering.memory.weights.put(np.ascontiguousarray(weight.T) * source.gain), weights_size=weight.size,
        cache=lowering.memory.state.put(np.zeros(2 * length * layer.size)), **lowering.memory.table(places.reshape(-1)),
    )  # fmt: skip
    lowering.emit(layer.name, values)
    if op.bias is not None:
        buffer.base += op.bias


def _conv(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Conv)
    source = _stored_channels_last(lowering, layer)
    C, H, W = as_map(lowering.graph.layers[layer.inputs[0]].shape)
    out_C, out_H, out_W = as_map(layer.shape)
    kernel = op.weight.shape[2:]
    geometry = (C, W, out_C, out_H, out_W, *kernel, *op.stride, *op.padding, *op.dilation, op.groups)
    if op.groups == 1 and op.dilation == (1, 1):
        weights, phases = by_phase(op.weight, op.stride)
        lowering.connect(source, m.CONV, weights, geometry, **lowering.memory.table(phases))
    else:
        each = op.weight.shape[1]
        rows = [op.weight[c // each * (out_C // op.groups) :][: out_C // op.groups, c % each] for c in range(C)]
        weights = np.stack([np.moveaxis(own, 0, -1) for own in rows])  # [C, ky, kx, C_out / groups]
        lowering.connect(source, m.CONV_GENERAL, weights, geometry)
    if op.bias is not None:
        lowering.target(layer).base += np.tile(op.bias, out_H * out_W)


def by_phase(weight: np.ndarray, stride: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C_out, C_in, ky, kx] for `deliver_conv`: flat, and where each phase (y, x) begins."""
    out_C, in_C, kernel_y, kernel_x = weight.shape
    parts, places, size = [], [], 0
    for phase_y in range(stride[0]):
        for phase_x in range(stride[1]):
            taps = weight[:, :, phase_y :: stride[0], phase_x :: stride[1]][:, :, ::-1, ::-1]
            places.append(size)
            parts.append(np.ascontiguousarray(taps.transpose(1, 2, 3, 0)).reshape(-1))
            size += parts[-1].size
    return np.concatenate(parts), np.array(places)


def _stored_channels_last(lowering: _Lowering, layer: Layer) -> Layer:
    """The layer with its input stored with channels last, moved there if it is not."""
    name = layer.inputs[0]
    source = lowering.graph.layers[name]
    wanted = channels_last(source.shape)
    if _same(lowering.order(name), wanted):
        return layer
    moved = f"{name} (channels last) for {layer.name}"
    held = lowering.events(name, name in layer.late)
    assert held.list is not None
    number = lowering.memory.event_list(lowering.memory.lists[held.list])
    values = row(
        m.MOVE_LIST, source=held.list, target=number, gain=lowering.memory.one,
        **lowering.memory.table(between(held.order, wanted)),
    )  # fmt: skip
    lowering.emit(name, values)
    lowering.held[moved] = Held(held.size, wanted, list=number, gain=held.gain, binary=held.binary)
    lowering.orders[moved] = wanted
    lowering.graph.layers[moved] = Layer(moved, Take(), (name,), source.shape)
    late = frozenset({moved}) if name in layer.late else frozenset()
    return Layer(layer.name, layer.op, (moved,), layer.shape, late, layer.where)


def _pool(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Pool)
    placed = _stored_channels_last(lowering, layer)
    source = lowering.events(placed.inputs[0], placed.inputs[0] in placed.late)
    C, H, W = as_map(lowering.graph.layers[placed.inputs[0]].shape)
    _, out_H, out_W = as_map(layer.shape)
    apart = op.kernel == op.stride and op.padding == (0, 0)
    from_events = lowering.held[placed.inputs[0]].buffer is None
    if apart and from_events:  # every pixel has one window: the events only move there
        assert source.list is not None
        y, x, c = np.meshgrid(np.arange(H), np.arange(W), np.arange(C), indexing="ij")
        inside = (y // op.stride[0] < out_H) & (x // op.stride[1] < out_W)
        places = np.where(inside, (y // op.stride[0] * out_W + x // op.stride[1]) * C + c, -1).reshape(-1)
        number = lowering.memory.event_list(lowering.memory.lists[source.list])
        lowering.emit(
            layer.name,
            row(m.MOVE_LIST, source=source.list, target=number, gain=lowering.memory.one,
                **lowering.memory.table(places)),
        )  # fmt: skip
        lowering.held[layer.name] = Held(
            layer.size, lowering.order(layer.name), list=number, gain=source.gain * op.factor
        )
        return
    geometry = (C, W, C, out_H, out_W, *op.kernel, *op.stride, *op.padding)
    assert source.list is not None
    buffer = lowering.target(layer)
    gain = lowering.memory.weights.put(op.factor * source.gain)
    lowering.emit(
        layer.name,
        row(m.POOL, geometry, source=source.list, target=buffer.place, size=buffer.size, gain=gain,
            cache=lowering._cache(layer.inputs[0], buffer.size)),
    )  # fmt: skip


def _max_pool(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, MaxPool)
    layer = _stored_channels_last(lowering, layer)
    name = layer.inputs[0]
    C, H, W = as_map(lowering.graph.layers[name].shape)
    _, out_H, out_W = as_map(layer.shape)
    geometry = (C, W, H, out_H, out_W, *op.kernel, *op.stride, *op.padding, *op.dilation)
    held = lowering.held[name]
    if held.binary and held.list is not None:
        number = lowering.memory.event_list(layer.size)
        marks = lowering.memory.tables.put(np.zeros(layer.size, np.int64))
        values = row(m.MAX_POOL_LIST, geometry, source=held.list, target=number, marks=marks, marks_size=layer.size)
        lowering.held[layer.name] = Held(layer.size, lowering.order(layer.name), list=number, binary=True)
    else:
        source = lowering.dense(name)
        buffer = lowering.memory.buffer(layer.size)
        values = row(
            m.MAX_POOL_BUFFER, geometry, source=source.place, target=buffer.place, size=held.size, extra=layer.size
        )
        lowering.held[layer.name] = Held(layer.size, lowering.order(layer.name), buffer=buffer)
    lowering.emit(layer.name, values)


def _affine(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Affine)
    name = layer.inputs[0]
    source = lowering.held[name]
    order = source.order
    scale = op.scale if order is None else op.scale[order]
    shift = np.zeros(layer.size) if op.shift is None else op.shift
    shift = shift if order is None else shift[order]
    if source.buffer is None:
        assert source.list is not None
        buffer = lowering.new_buffer(layer)
        buffer.base += shift
        values = row(
            m.DIAGONAL, source=source.list, target=buffer.place, size=buffer.size, gain=lowering.memory.weights.put(source.gain),
            weights=lowering.memory.weights.put(scale), weights_size=layer.size,
        )  # fmt: skip
    else:
        buffer = source.buffer
        if not buffer.private:
            buffer = lowering.new_buffer(layer)
            lowering.emit(layer.name, _copy_row(source.buffer, buffer, lowering, None))
        values = row(
            m.AFFINE_BUFFER, source=buffer.place, size=buffer.size, weights=lowering.memory.weights.put(scale),
            extra=lowering.memory.weights.put(shift),
        )  # fmt: skip
    lowering.emit(layer.name, values)
    lowering.held[layer.name] = Held(layer.size, order, buffer=buffer)


def _copy_row(source: Buffer, target: Buffer, lowering: _Lowering, places: np.ndarray | None) -> np.ndarray:
    return row(
        m.MOVE_BUFFER, source=source.place, target=target.place, size=source.size, extra=target.size,
        **lowering.memory.table(places),
    )  # fmt: skip


def _take(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Take)
    order = lowering.order(layer.name)
    if lowering._is_free(layer):
        held = lowering.held[layer.inputs[0]]
        lowering.held[layer.name] = Held(held.size, order, held.list, held.gain, held.buffer, held.binary)
        return
    sizes = [lowering.graph.layers[name].size for name in layer.inputs]
    index = np.arange(sum(sizes)) if op.index is None else op.index
    if len(index) != len(np.unique(index)):
        raise UnsupportedError(f"layer {layer}: an element that is taken twice is not supported")
    places = np.full(sum(sizes), -1)
    places[index] = np.arange(len(index)) if order is None else np.argsort(order)
    parts = np.split(places, np.cumsum(sizes)[:-1])
    held = [lowering.held[name] for name in layer.inputs]
    tables = [part if own.order is None else part[own.order] for part, own in zip(parts, held, strict=True)]
    _merge(lowering, layer, tables, all(own.binary for own in held))


def _add(lowering: _Lowering, layer: Layer) -> None:
    order = lowering.order(layer.name)
    rest = [name for name in layer.inputs if lowering.shared.get(name) != layer.name]
    if layer.name in lowering.held or any(lowering.held[name].buffer is not None for name in rest):
        buffer = lowering.target(layer)
        for name in rest:
            held = lowering.held[name]
            if held.buffer is not None:
                places = between(held.order, order)
                lowering.emit(layer.name, _copy_row(held.buffer, buffer, lowering, places))
            else:
                lowering.add_events(name, held, buffer, order)
        return
    tables = [between(lowering.held[name].order, order) for name in rest]
    _merge(lowering, layer, tables, False)


def _merge(lowering: _Lowering, layer: Layer, tables: list[np.ndarray | None], binary: bool) -> None:
    """All inputs at their places in one event list, or in one buffer where one of them is dense."""
    held = [lowering.held[name] for name in layer.inputs]
    order = lowering.order(layer.name)
    if any(own.buffer is not None and own.list is None for own in held):
        buffer = lowering.target(layer)
        for name, places in zip(layer.inputs, tables, strict=True):
            lowering.emit(layer.name, _copy_row(lowering.dense(name), buffer, lowering, places))
        return
    number = lowering.memory.event_list(sum(lowering.memory.lists[own.list] for own in held if own.list is not None))
    for position, (own, places) in enumerate(zip(held, tables, strict=True)):
        assert own.list is not None
        gain = lowering.memory.weights.put(own.gain)
        values = row(
            m.MOVE_LIST, source=own.list, target=number, gain=gain, extra=int(position > 0),
            **lowering.memory.table(places),
        )  # fmt: skip
        lowering.emit(layer.name, values)
    lowering.held[layer.name] = Held(layer.size, order, list=number, binary=binary)


def _delay(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Delay)
    source = lowering.events(layer.inputs[0], layer.inputs[0] in layer.late)
    held = lowering.held[layer.name]
    assert source.list is not None
    assert held.list is not None
    steps = op.steps if source.order is None else op.steps[source.order]
    length = int(steps.max()) + 1
    held.gain = source.gain
    ring = lowering.memory.state.put(np.zeros(length * layer.size))
    values = row(
        m.DELAY, source=source.list, target=held.list, size=layer.size, extra=length, weights=ring,
        **lowering.memory.table(steps),
    )  # fmt: skip
    lowering.emit(layer.name, values)


def _fire(lowering: _Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Fire)
    memory, name = lowering.memory, layer.inputs[0]
    order = lowering.order(layer.name)
    kind = kind_of(op)
    number = next((k for k, known in enumerate(lowering.kinds) if known.key == kind.key), len(lowering.kinds))
    if number == len(lowering.kinds):
        lowering.kinds.append(kind)
    source = lowering.held[name]
    buffer = source.buffer
    if buffer is None or not buffer.private:
        buffer = memory.buffer(layer.size)
        if source.buffer is None:
            lowering.add_events(name, source, buffer, order)
        else:
            lowering.emit(layer.name, _copy_row(source.buffer, buffer, lowering, None))

    def stored(value: Any) -> Any:
        return value if np.ndim(value) == 0 or order is None else np.asarray(value)[order]

    own = []
    for state, start in start_values(op).items():
        own.append(memory.state.put(np.zeros(layer.size)))
        lowering.start[own[-1]] = np.broadcast_to(stored(start), layer.size)
        del state
    for parameter in kind.step.values:
        own.append(memory.weights.put(stored(op.params[parameter])))
    own += [memory.weights.put(op.surrogate_values[key]) for key in kind.form.params]
    held = lowering.held[layer.name]
    target = held.list if held.buffer is None else held.buffer.place
    assert target is not None
    values = row(
        m.NEURON + number, (int(kind.binary),), tuple(own), source=buffer.place, target=target, size=layer.size,
        weights=buffer.base_place,
    )  # fmt: skip
    lowering.emit(layer.name, values)


LOWERINGS: dict[type[Op], Callable[[_Lowering, Layer], None]] = {
    Input: _input,
    Dense: _dense,
    DelayedDense: _delayed_dense,
    Conv: _conv,
    Pool: _pool,
    MaxPool: _max_pool,
    Affine: _affine,
    Take: _take,
    Add: _add,
    Delay: _delay,
    Fire: _fire,
}
"""One function per operation; a new operation is one function and one line here."""
