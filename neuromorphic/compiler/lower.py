"""One function for each operation of the graph: how it becomes instructions on flat memory."""

from __future__ import annotations

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
    Pool,
    Take,
    as_map,
)
from neuromorphic.compiler.kernels import machine as m
from neuromorphic.compiler.lazy import POWERS, decay_alone
from neuromorphic.compiler.lowering import (
    Functions,
    Held,
    Lowered,
    Lowering,
    between,
    channels_last,
    same_order,
)
from neuromorphic.compiler.machine_source import kind_of
from neuromorphic.compiler.memory import Buffer, row
from neuromorphic.compiler.neurons import start_values
from snn.errors import UnsupportedError


def _input(lowering: Lowering, layer: Layer) -> None:
    number = lowering.memory.event_list(layer.size)
    order = lowering.order(layer.name)
    values = row(m.INPUT, target=number, size=layer.size, **lowering.memory.table(between(None, order)))
    lowering.held[layer.name] = Held(layer.size, order, list=number)
    lowering.emit(layer.name, values)


def _dense(lowering: Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Dense)
    order = lowering.order(layer.inputs[0])
    columns = op.weight if order is None else op.weight[:, order]
    lowering.connect(layer, m.DENSE, np.ascontiguousarray(columns.T))
    if op.bias is not None:
        lowering.target(layer).base += op.bias


def _delayed_dense(lowering: Lowering, layer: Layer) -> None:
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


def _conv(lowering: Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Conv)
    source = _stored_channels_last(lowering, layer)
    C, _, W = as_map(lowering.graph.layers[layer.inputs[0]].shape)
    out_C, out_H, out_W = as_map(layer.shape)
    kernel = op.weight.shape[2:]
    geometry = (C, W, out_C, out_H, out_W, *kernel, *op.stride, *op.padding, *op.dilation, op.groups)
    if op.groups == 1 and op.dilation == (1, 1):
        weights, phases = by_phase(op.weight, op.stride)
        more = lowering.memory.table(phases) | lowering.marks(layer, out_H * out_W)
        lowering.connect(source, m.CONV, weights, geometry, **more)
    else:
        each = op.weight.shape[1]
        rows = [op.weight[c // each * (out_C // op.groups) :][: out_C // op.groups, c % each] for c in range(C)]
        weights = np.stack([np.moveaxis(own, 0, -1) for own in rows])  # [C, ky, kx, C_out / groups]
        lowering.connect(source, m.CONV_GENERAL, weights, geometry)
    if op.bias is not None:
        lowering.target(layer).base += np.tile(op.bias, out_H * out_W)


def by_phase(weight: np.ndarray, stride: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Weights [C_out, C_in, ky, kx] for `deliver_conv`: flat, and where each phase (y, x) begins."""
    parts, places, size = [], [], 0
    for phase_y in range(stride[0]):
        for phase_x in range(stride[1]):
            taps = weight[:, :, phase_y :: stride[0], phase_x :: stride[1]][:, :, ::-1, ::-1]
            places.append(size)
            parts.append(np.ascontiguousarray(taps.transpose(1, 2, 3, 0)).reshape(-1))
            size += parts[-1].size
    return np.concatenate(parts), np.array(places)


def _stored_channels_last(lowering: Lowering, layer: Layer) -> Layer:
    """The layer with its input stored with channels last, moved there if it is not."""
    name = layer.inputs[0]
    source = lowering.graph.layers[name]
    wanted = channels_last(source.shape)
    if same_order(lowering.order(name), wanted):
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


def _pool(lowering: Lowering, layer: Layer) -> None:
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
            cache=lowering.cache(layer.inputs[0], buffer.size)),
    )  # fmt: skip


def _max_pool(lowering: Lowering, layer: Layer) -> None:
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


def _affine(lowering: Lowering, layer: Layer) -> None:
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


def _copy_row(source: Buffer, target: Buffer, lowering: Lowering, places: np.ndarray | None) -> np.ndarray:
    return row(
        m.MOVE_BUFFER, source=source.place, target=target.place, size=source.size, extra=target.size,
        **lowering.memory.table(places),
    )  # fmt: skip


def _take(lowering: Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Take)
    order = lowering.order(layer.name)
    if lowering.is_free(layer):
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
    every = [lowering.held[name] for name in layer.inputs]
    tables = [part if own.order is None else part[own.order] for part, own in zip(parts, every, strict=True)]
    _merge(lowering, layer, tables, all(own.binary for own in every))


def _add(lowering: Lowering, layer: Layer) -> None:
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


def _merge(lowering: Lowering, layer: Layer, tables: list[np.ndarray | None], binary: bool) -> None:
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


def _delay(lowering: Lowering, layer: Layer) -> None:
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


def _fire(lowering: Lowering, layer: Layer) -> None:
    op = layer.op
    assert isinstance(op, Fire)
    memory, name = lowering.memory, layer.inputs[0]
    order = lowering.order(layer.name)
    kind = kind_of(op, layer.name in lowering.lazy)
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
    for start in start_values(op).values():
        own.append(memory.state.put(np.zeros(layer.size)))
        lowering.start[own[-1]] = np.broadcast_to(stored(start), layer.size)
    own += [memory.weights.put(stored(op.params[parameter])) for parameter in kind.step.values]
    own += [memory.weights.put(op.surrogate_values[key]) for key in kind.form.params]
    more = {}
    if kind.lazy:
        own += [memory.weights.put(float(decay_alone(op) or 0.0) ** np.arange(POWERS)), layer.shape[0]]
        pixels = layer.size // layer.shape[0]
        more = memory.table(np.zeros(pixels)) | {"marks": lowering.touched[layer.name], "marks_size": pixels}
        lowering.cleared.append((more["table"], pixels))
    held = lowering.held[layer.name]
    target = held.list if held.buffer is None else held.buffer.place
    assert target is not None
    values = row(
        m.NEURON + number, (int(kind.binary),), tuple(own), source=buffer.place, target=target, size=layer.size,
        weights=buffer.base_place, **more,
    )  # fmt: skip
    lowering.emit(layer.name, values)


LOWERINGS: Functions = {
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


def lower(graph: LayerGraph, dtype: str, lazy: frozenset[str] = frozenset()) -> Lowered:
    """Instructions and memory of a folded graph; `lazy` names the layers of neurons that are updated where touched."""
    return Lowering(graph, dtype, lazy).run(LOWERINGS)
