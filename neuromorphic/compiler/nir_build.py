"""One torch layer for each type of NIR node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
import torch
from torch import nn

from neuromorphic.compiler.graph import Shape, conv_size
from neuromorphic.compiler.nir_data import NEURONS, PORT, NodeData
from neuromorphic.compiler.nir_layers import ElementDelay, Scale, StackedLinear, SumPool2d
from neuromorphic.compiler.nir_neurons import NIRNeuron, Policy
from neuromorphic.compiler.nir_own import own_neuron
from snn.errors import ShapeError

Made = tuple[nn.Module | None, Shape]
Make = Callable[[NodeData, Shape, Policy], Made]


def build_node(node: NodeData, shape: Shape, policy: Policy, notes: list[str], name: str) -> Made:
    """The layer of a node and its output's shape; what had to be assumed is added to `notes`.

    Raises:
        ValueError, ShapeError, UnsupportedError: the node does not fit its input or cannot be built.
    """
    if node.type in NEURONS:
        return _neuron(node, shape, policy, notes, name)
    return NODES[node.type](node, shape, policy)


def shape_after(
    size: tuple[int, int], kernel: Any, stride: Any, padding: Any, dilation: Any = (1, 1)
) -> tuple[int, int]:
    """Spatial size after a window operation."""
    found = [conv_size(*numbers) for numbers in zip(size, kernel, stride, padding, dilation, strict=True)]
    return found[0], found[1]


def _tensor(value: Any) -> torch.Tensor:
    array = np.asarray(value)
    return torch.from_numpy(np.ascontiguousarray(array if array.dtype.kind == "f" else array.astype(np.float32)))


def _pair(value: Any) -> tuple[int, int]:
    flat = [int(number) for number in np.atleast_1d(value)]
    return (flat[0], flat[-1])


def _neuron(node: NodeData, shape: Shape, policy: Policy, notes: list[str], name: str) -> Made:
    own_shape = next(iter(node.fields.values())).shape
    if own_shape != shape:
        if prod(own_shape) == 1:
            notes.append(f"{name!r}: one value of each parameter stands for all neurons {shape}")
        elif prod(own_shape) != prod(shape):
            raise ShapeError(f"parameters have shape {own_shape}, the input has {shape}")
        else:
            notes.append(f"{name!r}: parameters of shape {own_shape} are read as {shape}")
        single = prod(own_shape) == 1
        fields = {
            key: np.broadcast_to(value.reshape(()), shape).copy() if single else value.reshape(shape)
            for key, value in node.fields.items()
        }
        node = replace(node, fields=fields)
    same = own_neuron(node, policy.dt, shape)
    if same is not None:
        return same, shape
    kept = {key: item.item() if isinstance(item, np.generic) else item for key, item in node.metadata.items()}
    own = {key: kept[key] for key in ("integration", "reset", "fires_at_threshold", "input") if key in kept}
    own = {key: bool(value) if key == "fires_at_threshold" else str(value) for key, value in own.items()}
    chosen = replace(policy, **own)
    parameters = {key: _tensor(value) for key, value in node.fields.items()}
    layer = NIRNeuron(node.type, parameters, chosen)
    notes.append(f"{name!r}: {node.type} with integration {chosen.integration!r}, reset {chosen.reset!r}")
    return layer, shape


def _port(node: NodeData, shape: Shape, policy: Policy) -> Made:
    return None, shape


def _affine(node: NodeData, shape: Shape, policy: Policy) -> Made:
    weight = _tensor(node.fields["weight"])
    bias = _tensor(node.fields["bias"]) if "bias" in node.fields else None
    expected = (*weight.shape[:-2], weight.shape[-1])
    if shape != expected:
        raise ShapeError(f"weight {tuple(weight.shape)} takes features {expected}, the input has {shape}")
    if weight.dim() > 2:
        return StackedLinear(weight, bias), tuple(weight.shape[:-1])
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias is not None, dtype=weight.dtype)
    _fill(layer, weight, bias)
    return layer, (weight.shape[0],)


def _fill(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)


def _scale(node: NodeData, shape: Shape, policy: Policy) -> Made:
    scale = _tensor(node.fields["scale"])
    if scale.numel() > 1 and tuple(scale.shape) != shape:
        raise ShapeError(f"scale has shape {tuple(scale.shape)}, the input {shape}")
    return Scale(scale.expand(shape).clone() if scale.dim() == 0 or scale.numel() == 1 else scale), shape


def _conv(spatial: int) -> Make:
    def make(node: NodeData, shape: Shape, policy: Policy) -> Made:
        weight, bias = _tensor(node.fields["weight"]), _tensor(node.fields["bias"])
        groups = int(node.fields["groups"])
        if len(shape) != spatial + 1 or shape[0] != weight.shape[1] * groups:
            raise ShapeError(
                f"weight {tuple(weight.shape)} in {groups} groups takes {weight.shape[1] * groups} channels and "
                f"{spatial} axes, the input has {shape}"
            )
        kind: Any = nn.Conv1d if spatial == 1 else nn.Conv2d
        numbers: Callable[[Any], Any] = (lambda value: int(np.atleast_1d(value)[0])) if spatial == 1 else _pair
        padding = node.fields["padding"]
        layer: Any = kind(
            shape[0],
            weight.shape[0],
            tuple(weight.shape[2:]),
            stride=numbers(node.fields["stride"]),
            padding=padding if isinstance(padding, str) else numbers(padding),
            dilation=numbers(node.fields["dilation"]),
            groups=groups,
            dtype=weight.dtype,
        )
        _fill(layer, weight, bias)
        with torch.no_grad():
            out = layer(torch.zeros(1, *shape, dtype=weight.dtype)).shape[1:]
        return layer, tuple(out)

    return make


def _pool(average: bool) -> Make:
    def make(node: NodeData, shape: Shape, policy: Policy) -> Made:
        if len(shape) != 3:
            raise ShapeError(f"pooling takes (C, H, W), the input has {shape}")
        kernel, stride, padding = (_pair(node.fields[key]) for key in ("kernel_size", "stride", "padding"))
        out = shape_after((shape[1], shape[2]), kernel, stride, padding)
        layer = nn.AvgPool2d(kernel, stride, padding) if average else SumPool2d(kernel, stride, padding)
        return layer, (shape[0], *out)

    return make


def _delay(node: NodeData, shape: Shape, policy: Policy) -> Made:
    delay = np.broadcast_to(np.asarray(node.fields["delay"], float), shape)
    steps = delay / policy.dt
    if (delay < 0).any() or (np.abs(steps - np.rint(steps)) > 1e-6 * np.maximum(1.0, steps)).any():
        raise ValueError(f"delays must be whole steps of {policy.dt:g} s, got {np.unique(delay)[:4]} s")
    return ElementDelay(torch.from_numpy(np.rint(steps).astype(np.int64))), shape


def _flatten(node: NodeData, shape: Shape, policy: Policy) -> Made:
    start, end = int(node.fields["start_dim"]), int(node.fields["end_dim"])
    first, last = start % len(shape) if start < 0 else start, end % len(shape) if end < 0 else end
    if not 0 <= first <= last < len(shape):
        raise ShapeError(f"dimensions {start} to {end} cannot be flattened in {shape}")
    out = (*shape[:first], prod(shape[first : last + 1]), *shape[last + 1 :])
    return nn.Flatten(first + 2, last + 2), out


NODES: dict[str, Make] = {
    PORT: _port,
    "Output": _port,
    "Affine": _affine,
    "Linear": _affine,
    "Scale": _scale,
    "Conv1d": _conv(1),
    "Conv2d": _conv(2),
    "SumPool2d": _pool(average=False),
    "AvgPool2d": _pool(average=True),
    "Delay": _delay,
    "Flatten": _flatten,
}
"""One function for each type of node without state; neurons are built by `NIRNeuron`."""
