"""How each kind of torch module becomes a layer of the graph: one small function per kind, in a dictionary.

Each takes (module, shape of one sample's input at one step, name) and returns the operation and the shape of its output.
Adding a layer is adding one function and one line to `MODULES`.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, NamedTuple

import numpy as np
import torch
from spikingjelly.activation_based import layer as sj_layer
from torch import nn

from neuromorphic.compiler.graph import (
    Affine,
    Conv,
    Delay,
    DelayedDense,
    Dense,
    MaxPool,
    Op,
    Pair,
    Pool,
    Shape,
    Take,
    as_map,
    conv_size,
)
from neuromorphic.compiler.neurons import SPIKINGJELLY, fire
from neuromorphic.compiler.nir_layers import ElementDelay, Late, Scale, StackedLinear, SumPool2d
from snn.errors import ShapeError, UnsupportedError
from snn.layers.delay import DelayedLinear
from snn.neurons import Neuron


class Built(NamedTuple):
    """An operation and the shape of its output."""

    op: Op
    shape: Shape


Build = Callable[[Any, Shape, str], Built]


def numbers(tensor: torch.Tensor | None) -> np.ndarray | None:
    """A copy of the tensor's values."""
    return None if tensor is None else np.array(tensor.detach().cpu().numpy())


def pair(value: Any, spatial: int) -> Pair:
    """A setting of `spatial` axes as (vertical, horizontal); one axis is the horizontal one."""
    given = tuple(value) if isinstance(value, tuple | list) else (value,) * spatial
    return (int(given[0]), int(given[1])) if spatial == 2 else (0, int(given[0]))


def _linear(module: Any, shape: Shape, name: str) -> Built:
    if len(shape) != 1:
        raise UnsupportedError(
            f"layer {name!r}: Linear over the last of the dimensions {shape} is not supported; flatten first"
        )
    weight = numbers(module.weight)
    assert weight is not None
    return Built(Dense(weight, numbers(module.bias)), (weight.shape[0],))


def _delayed_linear(module: Any, shape: Shape, name: str) -> Built:
    if len(shape) != 1:
        raise ShapeError(f"layer {name!r}: one step of its input must have one dimension, got {shape}")
    weight, steps = numbers(module.weight), numbers(module.delays())
    assert weight is not None
    assert steps is not None
    whole = {"synaptic": steps, "axonal": steps[None], "dendritic": steps[..., None]}[module.kind]
    whole = np.broadcast_to(whole, weight.shape).astype(np.int64)
    return Built(DelayedDense(weight, whole, numbers(module.bias)), (weight.shape[0],))


def _conv(spatial: int) -> Build:
    def build(module: Any, shape: Shape, name: str) -> Built:
        if len(shape) != spatial + 1:
            raise ShapeError(f"layer {name!r}: one step of its input must have {spatial + 1} dimensions, got {shape}")
        if module.padding_mode != "zeros":
            raise UnsupportedError(f"layer {name!r}: padding_mode must be 'zeros', got {module.padding_mode!r}")
        weight = numbers(module.weight)
        assert weight is not None
        weight = weight if spatial == 2 else weight[:, :, None, :]
        one_axis = spatial == 1
        dilation = pair(module.dilation, spatial)
        dilation = (1, dilation[1]) if one_axis else dilation
        stride = pair(module.stride, spatial)
        stride = (1, stride[1]) if one_axis else stride
        padding = _conv_padding(module, spatial, name)
        _, H, W = as_map(shape)
        size = [
            conv_size(n, k, s, p, d)
            for n, k, s, p, d in zip((H, W), weight.shape[2:], stride, padding, dilation, strict=True)
        ]
        op = Conv(weight, numbers(module.bias), stride, padding, dilation, int(module.groups))
        return Built(op, (weight.shape[0], *(size[1:] if one_axis else size)))

    return build


def _conv_padding(module: Any, spatial: int, name: str) -> Pair:
    if isinstance(module.padding, str):
        reach = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        if module.padding == "valid":
            return (0, 0)
        if any(r % 2 for r in reach):
            raise UnsupportedError(
                f"layer {name!r}: padding 'same' of a kernel {tuple(module.kernel_size)} is not the same on both sides"
            )
        return pair(tuple(r // 2 for r in reach), spatial)
    return pair(module.padding, spatial)


def _window(module: Any, shape: Shape, spatial: int, name: str) -> tuple[Pair, Pair, Pair]:
    if len(shape) != spatial + 1:
        raise ShapeError(f"layer {name!r}: one step of its input must have {spatial + 1} dimensions, got {shape}")
    if module.ceil_mode:
        raise UnsupportedError(f"layer {name!r}: ceil_mode is not supported")
    kernel = pair(module.kernel_size, spatial)
    stride = kernel if module.stride is None else pair(module.stride, spatial)
    if spatial == 1:
        kernel, stride = (1, kernel[1]), (1, stride[1])
    return kernel, stride, pair(module.padding, spatial)


def pooled(shape: Shape, kernel: Pair, stride: Pair, padding: Pair, dilation: Pair = (1, 1)) -> Shape:
    """Shape after pooling windows over the last axes."""
    C, H, W = as_map(shape)
    size = [conv_size(n, k, s, p, d) for n, k, s, p, d in zip((H, W), kernel, stride, padding, dilation, strict=True)]
    return (C, *size) if len(shape) == 3 else (C, size[1])


def _average_pool(spatial: int) -> Build:
    def build(module: Any, shape: Shape, name: str) -> Built:
        kernel, stride, padding = _window(module, shape, spatial, name)
        if any(padding) and not module.count_include_pad:
            raise UnsupportedError(f"layer {name!r}: count_include_pad=False with padding is not supported")
        divisor = getattr(module, "divisor_override", None) or prod(kernel)
        return Built(Pool(kernel, stride, padding, 1.0 / divisor), pooled(shape, kernel, stride, padding))

    return build


def _adaptive_average_pool(spatial: int) -> Build:
    def build(module: Any, shape: Shape, name: str) -> Built:
        if len(shape) != spatial + 1:
            raise ShapeError(f"layer {name!r}: one step of its input must have {spatial + 1} dimensions, got {shape}")
        given = module.output_size if isinstance(module.output_size, tuple) else (module.output_size,) * spatial
        wanted = [n if size is None else size for n, size in zip(shape[1:], given, strict=True)]
        if any(n % size for n, size in zip(shape[1:], wanted, strict=True)):
            raise UnsupportedError(f"layer {name!r}: output {tuple(wanted)} does not divide the input {shape[1:]}")
        kernel = tuple(n // size for n, size in zip(shape[1:], wanted, strict=True))
        whole = (1, *kernel) if spatial == 1 else kernel
        window = (whole[0], whole[1])
        return Built(Pool(window, window, (0, 0), 1.0 / prod(window)), pooled(shape, window, window, (0, 0)))

    return build


def _max_pool(spatial: int) -> Build:
    def build(module: Any, shape: Shape, name: str) -> Built:
        kernel, stride, padding = _window(module, shape, spatial, name)
        if module.return_indices:
            raise UnsupportedError(f"layer {name!r}: return_indices is not supported")
        dilation = pair(module.dilation, spatial)
        dilation = (1, dilation[1]) if spatial == 1 else dilation
        op = MaxPool(kernel, stride, padding, dilation)
        return Built(op, pooled(shape, kernel, stride, padding, dilation))

    return build


def _batch_norm(module: Any, shape: Shape, name: str) -> Built:
    if module.running_mean is None:
        raise UnsupportedError(f"layer {name!r}: batch normalisation without running statistics depends on the batch")
    mean, variance = module.running_mean.double(), module.running_var.double()
    scale = 1.0 / torch.sqrt(variance + module.eps)
    if module.weight is not None:
        scale = scale * module.weight.detach().double()
    shift = -mean * scale
    if module.bias is not None:
        shift = shift + module.bias.detach().double()
    return Built(per_channel(scale.cpu().numpy(), shift.cpu().numpy(), shape), shape)


def per_channel(scale: np.ndarray, shift: np.ndarray, shape: Shape) -> Affine:
    """The affine map with one scale and shift per entry of the first dimension."""
    inner = prod(shape[1:])
    return Affine(np.repeat(scale, inner), np.repeat(shift, inner))


def _delay(module: Any, shape: Shape, name: str) -> Built:
    return Built(Delay(np.full(prod(shape), module.delay_steps, np.int64)), shape)


def _element_delay(module: Any, shape: Shape, name: str) -> Built:
    return Built(Delay(module.steps.broadcast_to(shape).reshape(-1).numpy().copy()), shape)


def _scale(module: Any, shape: Shape, name: str) -> Built:
    return Built(Affine(module.scale.double().broadcast_to(shape).reshape(-1).numpy().copy()), shape)


def _sum_pool(module: Any, shape: Shape, name: str) -> Built:
    op = Pool(module.kernel_size, module.stride, module.padding, 1.0)
    return Built(op, pooled(shape, op.kernel, op.stride, op.padding))


def _stacked_linear(module: Any, shape: Shape, name: str) -> Built:
    weight = numbers(module.weight)
    assert weight is not None
    *lead, outputs, inputs = weight.shape
    count = prod(lead)
    whole = np.zeros((count, outputs, count, inputs), weight.dtype)
    whole[np.arange(count), :, np.arange(count)] = weight.reshape(count, outputs, inputs)
    bias = None if module.bias is None else np.broadcast_to(numbers(module.bias), (*lead, outputs)).reshape(-1)  # type: ignore[arg-type]
    return Built(Dense(whole.reshape(count * outputs, count * inputs), bias), (*lead, outputs))


def _late(module: Any, shape: Shape, name: str) -> Built:
    return Built(Take(), module.shape)


def _unchanged(module: Any, shape: Shape, name: str) -> Built:
    return Built(Take(), shape)


MODULES: dict[type[nn.Module], Build] = {
    nn.Linear: _linear,
    DelayedLinear: _delayed_linear,
    nn.Conv1d: _conv(1),
    nn.Conv2d: _conv(2),
    nn.AvgPool1d: _average_pool(1),
    nn.AvgPool2d: _average_pool(2),
    nn.AdaptiveAvgPool1d: _adaptive_average_pool(1),
    nn.AdaptiveAvgPool2d: _adaptive_average_pool(2),
    nn.MaxPool1d: _max_pool(1),
    nn.MaxPool2d: _max_pool(2),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
    nn.Identity: _unchanged,
    nn.Dropout: _unchanged,
    nn.Dropout1d: _unchanged,
    nn.Dropout2d: _unchanged,
    sj_layer.Dropout: _unchanged,
    sj_layer.Dropout2d: _unchanged,
    sj_layer.Delay: _delay,
    ElementDelay: _element_delay,
    Scale: _scale,
    SumPool2d: _sum_pool,
    StackedLinear: _stacked_linear,
    Late: _late,
}
"""Modules by class; see `builder` for which subclasses count as their base."""


def builder(module: nn.Module) -> Build | None:
    """The function that turns this module into a layer, or None."""
    if isinstance(module, Neuron) or type(module) in SPIKINGJELLY:
        return lambda module, shape, name: Built(fire(module, shape, name), shape)
    kind = type(module)
    if kind in MODULES:
        return MODULES[kind]
    for base in kind.__mro__:
        # SpikingJelly's wrappers keep the name of torch's class; its others, and anybody's, may compute something else.
        same = kind.__module__.startswith("spikingjelly.") and kind.__name__ == base.__name__
        if base in MODULES and (same or kind.__module__.startswith("snn.")):
            return MODULES[base]
    return None


def linear_form(module: nn.Module, shape: Shape, name: str) -> Built:
    """The layer of a feedback connection: a Linear or a convolution.

    Raises:
        UnsupportedError: the module is neither; the text names it.
    """
    build = builder(module)
    built = None if build is None else build(module, shape, name)
    if built is None or not isinstance(built.op, Dense | Conv):
        raise UnsupportedError(f"layer {name!r}: feedback through a {type(module).__name__} is not supported")
    if built.shape != shape:
        raise ShapeError(f"layer {name!r}: feedback must return the neurons' shape {shape}, it returns {built.shape}")
    return built
