"""Rewrites a graph of layers into a smaller one that computes the same sums.

Normalisation disappears into the weights before it, a convolution takes the average pooling after it into its kernel
and stride, reshapes of reshapes become one. Only the order of summation changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from neuromorphic.compiler.graph import Add, Affine, Conv, Delay, DelayedDense, Dense, Layer, LayerGraph, Pool, Take

Rule = Callable[[Layer, Layer], Layer | None]
"""(layer, the only layer it feeds) -> one layer that replaces both, or None."""


def folded(graph: LayerGraph, rules: Sequence[Rule] | None = None) -> LayerGraph:
    """The graph after the rules (all of them by default), applied until none fits."""
    rules = RULES if rules is None else rules
    layers, output = _without_copies(graph)
    changed = True
    while changed:
        changed = False
        current = LayerGraph(layers, output, graph.time_first)
        readers = current.consumers()
        for layer in current:
            if readers[layer.name] == [] or len(set(readers[layer.name])) > 1 or readers[layer.name] == [""]:
                continue
            after = layers[readers[layer.name][0]]
            if len(after.inputs) != 1 or layer.name in after.late or layer.late:
                continue
            merged = next((made for rule in rules if (made := rule(layer, after)) is not None), None)
            if merged is None:
                continue
            layers, output = _replaced(layers, output, layer, after, merged)
            changed = True
            break
    return LayerGraph(layers, output, graph.time_first)


def _without_copies(graph: LayerGraph) -> tuple[dict[str, Layer], str]:
    """The layers without those that hand on their only input as it is."""
    stands_for: dict[str, str] = {}
    layers: dict[str, Layer] = {}
    for name, layer in graph.layers.items():
        inputs = tuple(stands_for.get(source, source) for source in layer.inputs)
        late = frozenset(stands_for.get(source, source) for source in layer.late)
        copies = isinstance(layer.op, Take) and layer.op.index is None and len(inputs) == 1 and not late
        if copies and layer.shape == layers[inputs[0]].shape:
            stands_for[name] = inputs[0]
        else:
            layers[name] = replace(layer, inputs=inputs, late=late)
    return layers, stands_for.get(graph.output, graph.output)


def _replaced(
    layers: dict[str, Layer], output: str, first: Layer, second: Layer, merged: Layer
) -> tuple[dict[str, Layer], str]:
    """The layers with `merged` in the place of the two; what read the second reads it."""

    def renamed(name: str) -> str:
        return merged.name if name == second.name else name

    new: dict[str, Layer] = {}
    for name, layer in layers.items():
        if name == first.name:
            continue
        if name == second.name:
            new[merged.name] = merged
        else:
            late = frozenset(map(renamed, layer.late))
            new[name] = replace(layer, inputs=tuple(map(renamed, layer.inputs)), late=late)
    return new, renamed(output)


def _merged(
    first: Layer, second: Layer, op: Conv | Dense | DelayedDense | Affine | Take, name: str | None = None
) -> Layer:
    return replace(first, op=op, shape=second.shape, name=name or first.name)


def _affine_after_dense(first: Layer, second: Layer) -> Layer | None:
    if not isinstance(first.op, Dense | DelayedDense) or not isinstance(second.op, Affine):
        return None
    scale = second.op.scale
    bias = _shifted(first.op.bias, scale, second.op.shift)
    weight = first.op.weight.astype(np.float64) * scale[:, None]
    return _merged(first, second, replace(first.op, weight=weight, bias=bias))


def _affine_after_conv(first: Layer, second: Layer) -> Layer | None:
    if not isinstance(first.op, Conv) or not isinstance(second.op, Affine):
        return None
    channels = first.op.weight.shape[0]
    scales = second.op.scale.reshape(channels, -1)
    shifts = None if second.op.shift is None else second.op.shift.reshape(channels, -1)
    if (scales != scales[:, :1]).any() or (shifts is not None and (shifts != shifts[:, :1]).any()):
        return None  # not the same for every pixel
    scale = scales[:, 0]
    bias = _shifted(first.op.bias, scale, None if shifts is None else shifts[:, 0])
    weight = first.op.weight.astype(np.float64) * scale[:, None, None, None]
    return _merged(first, second, replace(first.op, weight=weight, bias=bias))


def _shifted(bias: np.ndarray | None, scale: np.ndarray, shift: np.ndarray | None) -> np.ndarray | None:
    if bias is None:
        return shift
    scaled = bias.astype(np.float64) * scale
    return scaled if shift is None else scaled + shift


def _affine_after_affine(first: Layer, second: Layer) -> Layer | None:
    if not isinstance(first.op, Affine) or not isinstance(second.op, Affine):
        return None
    shift = _shifted(first.op.shift, second.op.scale, second.op.shift)
    return _merged(first, second, Affine(first.op.scale * second.op.scale, shift))


def _pool_after_conv(first: Layer, second: Layer) -> Layer | None:
    """conv then sum over windows = one convolution: K'[u] = sum over p of K[u - p stride], stride' = stride * stride_p."""
    if not isinstance(first.op, Conv) or not isinstance(second.op, Pool):
        return None
    conv, pool = first.op, second.op
    if pool.padding != (0, 0) or conv.dilation != (1, 1):
        return None
    kernel = conv.weight.shape[2:]
    size = [k + (kp - 1) * s for k, kp, s in zip(kernel, pool.kernel, conv.stride, strict=True)]
    stride = (conv.stride[0] * pool.stride[0], conv.stride[1] * pool.stride[1])
    taps_now = [-(-k // s) for k, s in zip(kernel, conv.stride, strict=True)]
    taps_then = [-(-k // s) for k, s in zip(size, stride, strict=True)]
    if taps_then[0] * taps_then[1] > taps_now[0] * taps_now[1]:
        return None  # more work for each spike than the pooling costs
    weight = np.zeros((*conv.weight.shape[:2], *size))
    for y in range(pool.kernel[0]):
        for x in range(pool.kernel[1]):
            top, left = y * conv.stride[0], x * conv.stride[1]
            weight[:, :, top : top + kernel[0], left : left + kernel[1]] += conv.weight
    weight *= pool.factor
    whole = pool.factor * pool.kernel[0] * pool.kernel[1]
    bias = None if conv.bias is None else conv.bias.astype(np.float64) * whole
    return _merged(first, second, replace(conv, weight=weight, bias=bias, stride=stride))


def _take_after_take(first: Layer, second: Layer) -> Layer | None:
    if not isinstance(first.op, Take) or not isinstance(second.op, Take):
        return None
    if first.op.index is None:
        return _merged(first, second, Take(second.op.index))
    if second.op.index is None:
        return _merged(first, second, first.op)
    return _merged(first, second, Take(first.op.index[second.op.index]))


RULES: tuple[Rule, ...] = (
    _affine_after_dense,
    _affine_after_conv,
    _affine_after_affine,
    _pool_after_conv,
    _take_after_take,
)


def split_delays(graph: LayerGraph) -> LayerGraph:
    """The graph with every `DelayedDense` as a sum of dense layers behind one delay per distinct number of steps."""
    layers: dict[str, Layer] = {}
    for name, layer in graph.layers.items():
        op = layer.op
        if not isinstance(op, DelayedDense):
            layers[name] = layer
            continue
        (source,) = layer.inputs
        size = graph.layers[source].size
        parts: list[str] = []
        for count in np.unique(op.steps).tolist():
            before = source
            if count:
                before = f"{name}.delay{count}"
                delay = Delay(np.full(size, count, np.int64))
                layers[before] = Layer(before, delay, (source,), graph.layers[source].shape, where=layer.where)
            part = f"{name}.weight{count}"
            dense = Dense(np.where(op.steps == count, op.weight, 0.0), None if parts else op.bias)
            layers[part] = Layer(part, dense, (before,), layer.shape, where=layer.where)
            parts.append(part)
        layers[name] = Layer(name, Add(), tuple(parts), layer.shape, where=layer.where)
    return LayerGraph(layers, graph.output, graph.time_first)


NIR_RULES: tuple[Rule, ...] = tuple(rule for rule in RULES if rule is not _pool_after_conv)
"""Rules after which every layer still is one that NIR knows."""
