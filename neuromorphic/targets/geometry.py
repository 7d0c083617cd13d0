"""What the mapper needs of a network: each connection with the neurons behind it, as a chip would hold them.

Pooling by averages is linear, so it is folded into the connection: behind a convolution of kernel k and stride s, pooling
by p makes a kernel of k + (p - 1) s at stride s p; in front of it, a kernel of k p at stride s p on the unpooled map.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from neuromorphic.energy.counts import INPUT, Counts, LayerCounts
from snn.errors import UnsupportedError

Pair = tuple[int, int]
Map = tuple[int, int, int]


@dataclass(frozen=True)
class PlacedLayer:
    """A connection and its neurons.

    Attributes:
        name: of the connection; neuron_name: of the neurons, "" for a read-out without state.
        linear: every input reaches every neuron.
        source: maps that feed it, (C, H, W) as their neurons lie, before any pooling.
        sources: names of the layers that feed it; "input" for the network's.
        size: (C, H, W) of its neurons.
        kernel, stride, padding, dilation: with pooling folded in; groups.
        pool: window of pooling in front, already part of `kernel`.
        own_kernel: kernel without folded pooling.
        weight_count: stored weights when all positions share them.
        family: "if", "lif", "cuba", "adaptive", "other"; "" without neurons.
        reset: "zero", "subtract" or "" where unknown.
        states: numbers per neuron.
        recurrent: the layer also feeds itself.
        analog: its input is not spikes.
        spikes_in, synops, spikes_out: per inference, mean over samples.
        steps: time steps of one inference.
        max_levels: largest magnitude of an output in spikes.
    """

    name: str
    neuron_name: str
    linear: bool
    source: Map
    sources: tuple[str, ...]
    size: Map
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int
    pool: Pair
    own_kernel: Pair
    weight_count: int
    family: str
    reset: str
    states: int
    recurrent: bool
    analog: bool
    spikes_in: float
    synops: float
    spikes_out: float
    steps: int
    max_levels: int

    @property
    def neurons(self) -> int:
        """Neurons, or outputs of a read-out."""
        return prod(self.size)

    @property
    def positions(self) -> int:
        """Positions of the map; 1 for a linear layer."""
        return self.size[1] * self.size[2]

    @property
    def fan_in(self) -> int:
        """Synapses of a neuron inside the map."""
        inputs = self.source[0] // self.groups
        return prod(self.source) if self.linear else inputs * prod(self.kernel)

    def inputs_of(self, first: int, last: int) -> np.ndarray:
        """For positions first..last-1 of the output map: how many of them each position of the source map reaches, [H, W]."""
        _, height, width = self.source
        reached = np.zeros((height, width), np.int64)
        if self.linear:
            reached[:] = 1
            return reached
        position = np.arange(first, last)
        row, column = position // self.size[2], position % self.size[2]
        for ky in range(self.kernel[0]):
            for kx in range(self.kernel[1]):
                y = row * self.stride[0] - self.padding[0] + ky * self.dilation[0]
                x = column * self.stride[1] - self.padding[1] + kx * self.dilation[1]
                inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
                np.add.at(reached, (y[inside], x[inside]), 1)
        return reached


_FAMILIES = {
    "IF": "if",
    "IFNode": "if",
    "LIF": "lif",
    "PLIF": "lif",
    "RecurrentLIF": "lif",
    "LIFNode": "lif",
    "ParametricLIFNode": "lif",
    "Leaky": "lif",
    "CubaLIF": "cuba",
    "CUBALIFNode": "cuba",
    "Synaptic": "cuba",
    "ALIF": "adaptive",
    "AdEx": "adaptive",
}


def placed_layers(counts: Counts) -> tuple[PlacedLayer, ...]:
    """The connections of a counted network, in order.

    Raises: UnsupportedError naming a layer that no chip of the data sheets holds (attention products, transposed
        convolutions, maxima, gates and sums of several layers in front of neurons).
    """
    for layer in counts.layers:
        if layer.kind in ("matmul", "conv_transpose", "activation"):
            raise UnsupportedError(f"map: {layer.name!r} ({layer.kind}) has no place on a core")
        if layer.kind == "elementwise" and len(layer.inputs) > 1:
            raise UnsupportedError(f"map: {layer.name!r} adds {', '.join(layer.inputs)}; sums of layers are not mapped")
        if layer.kind == "pool" and layer.total("adds") == 0 and prod(layer.kernel_size) > 1:
            raise UnsupportedError(f"map: {layer.name!r} takes maxima; chips pool by sums")
        if layer.kind == "event" and not layer.weight_shape:
            raise UnsupportedError(f"map: {layer.name!r} has no geometry; map the torch network or counts of it")
    return tuple(_placed(counts, layer) for layer in counts.connections)


def _as_map(shape: tuple[int, ...]) -> Map:
    if len(shape) == 3:
        return shape[0], shape[1], shape[2]
    return (shape[0], 1, shape[1]) if len(shape) == 2 else (prod(shape), 1, 1)


def _pair(values: tuple[int, ...], default: int) -> Pair:
    if len(values) == 2:
        return values[0], values[1]
    return (1 if default else 0, values[0]) if len(values) == 1 else (default, default)


def _times(a: Pair, b: Pair) -> Pair:
    return a[0] * b[0], a[1] * b[1]


def _placed(counts: Counts, layer: LayerCounts) -> PlacedLayer:
    neurons = layer if layer.neuron_count else counts.neurons_behind(layer)
    source, pool, names = _feeding(counts, layer)
    linear = layer.kind == "linear" or not layer.kernel_size
    own = _pair(layer.kernel_size, 1)
    if linear:
        own = (1, 1)
    stride, padding, dilation = _pair(layer.stride, 1), _pair(layer.padding, 0), _pair(layer.dilation, 1)
    behind = _pool_behind(counts, layer)
    kernel = own
    if behind != (1, 1):
        spans = [dilation[axis] * (own[axis] - 1) + 1 + (behind[axis] - 1) * stride[axis] for axis in (0, 1)]
        kernel, dilation = (spans[0], spans[1]), (1, 1)
    if pool != (1, 1) and dilation != (1, 1):
        raise UnsupportedError(f"map: {layer.name!r} is dilated behind pooling, which has no single kernel")
    size = _as_map(neurons.output_shape if neurons is not None else layer.output_shape)
    levels = neurons.output_signal.levels if neurons is not None else 0
    hard = None if neurons is None else neurons.hard_reset
    per = 1.0 / max(1, layer.samples)
    return PlacedLayer(
        name=layer.name,
        neuron_name=neurons.name if neurons is not None else "",
        linear=linear,
        source=source,
        sources=names,
        size=(prod(size), 1, 1) if linear else size,
        kernel=_times(kernel, pool),
        stride=_times(_times(stride, behind), pool),
        padding=_times(padding, pool),
        dilation=dilation,
        groups=layer.groups,
        pool=pool,
        own_kernel=own,
        weight_count=layer.weight_count,
        family=_FAMILIES.get(neurons.neuron_model, "other") if neurons is not None else "",
        reset="" if hard is None else "zero" if hard else "subtract",
        states=neurons.state_variables if neurons is not None else 0,
        recurrent=layer.recurrent or bool(neurons is not None and neurons.recurrent),
        analog=layer.input_signal.kind == "analog",
        spikes_in=layer.total("input_events") * per,
        synops=layer.total("synops") * per,
        spikes_out=neurons.total("output_events") * per if neurons is not None else 0.0,
        steps=counts.steps,
        max_levels=levels,
    )


def _feeding(counts: Counts, layer: LayerCounts) -> tuple[Map, Pair, tuple[str, ...]]:
    """The unpooled map in front of a connection, the pooling between, and the names of the layers that made it."""
    pool, shape, names = (1, 1), layer.input_shape, layer.inputs or (INPUT,)
    while len(names) == 1 and names[0] not in (INPUT, layer.name):
        before = counts[names[0]]
        if before.neuron_count or before.is_connection:
            shape = before.output_shape
            break
        if before.kind == "pool":
            pool = _times(pool, _window(before))
        shape, names = before.input_shape, before.inputs or (INPUT,)
    if names == (INPUT,) and counts.input_shape and prod(counts.input_shape) == prod(shape):
        shape = counts.input_shape
    return _as_map(shape), pool, tuple(names)


def _window(layer: LayerCounts) -> Pair:
    """Window of a pooling layer; that of adaptive pooling follows from its shapes."""
    if not layer.kernel_size:
        before, after = _as_map(layer.input_shape), _as_map(layer.output_shape)
        window = (before[1] // after[1], before[2] // after[2])
        if _times(window, (after[1], after[2])) != (before[1], before[2]):
            raise UnsupportedError(f"map: {layer.name!r} pools {layer.input_shape} with unequal windows")
        return window
    window = _pair(layer.kernel_size, 1)
    if _pair(layer.stride, 1) != window or any(layer.padding):
        raise UnsupportedError(f"map: {layer.name!r} pools with overlap or padding")
    return window


def _pool_behind(counts: Counts, layer: LayerCounts) -> Pair:
    pool, name = (1, 1), layer.name
    for other in counts.layers[counts.layers.index(layer) + 1 :]:
        if name not in other.inputs:
            continue
        if other.neuron_count or other.is_connection:
            break
        if other.kind == "pool":
            pool = _times(pool, _window(other))
        name = other.name
    return pool


def without_pooling(layer: PlacedLayer) -> PlacedLayer:
    """The layer as a chip with own sum pooling sees it: pooling in front is not part of the kernel."""
    if layer.pool == (1, 1):
        return layer
    (py, px), (channels, height, width) = layer.pool, layer.source

    def divided(values: Pair) -> Pair:
        return values[0] // py, values[1] // px

    return replace(
        layer,
        source=(channels, height // py, width // px),
        kernel=divided(layer.kernel) if not layer.linear else layer.kernel,
        stride=divided(layer.stride) if not layer.linear else layer.stride,
        padding=divided(layer.padding),
    )
