"""What one call of a torch layer amounts to: its geometry and its integers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from neuromorphic.energy.counts import Events
from neuromorphic.energy.fanout import FanOut, conv_fanout, events, linear_fanout, nonzeros, padding_pairs
from neuromorphic.energy.propagation import Tag, window_of
from neuromorphic.energy.records import Layout, Records, Rows

CONVOLUTIONS: Final = (
    nn.Conv1d,
    nn.Conv2d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
)
NORMS: Final = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)
AVERAGE_POOLS: Final = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)
ADAPTIVE_POOLS: Final = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)
MAX_POOLS: Final = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.MaxPool3d,
    nn.AdaptiveMaxPool1d,
    nn.AdaptiveMaxPool2d,
    nn.AdaptiveMaxPool3d,
)
ACTIVATIONS: Final = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softplus,
    nn.Hardtanh,
    nn.Hardswish,
    nn.Hardsigmoid,
    nn.PReLU,
)


@runtime_checkable
class CodedWeight(Protocol):
    """A layer that computes with other weights than it stores, such as quantised ones."""

    weight_bits: int

    def coded_weight(self) -> torch.Tensor:
        """The weights that the layer multiplies with, of the shape of `weight`."""
        ...


class FanOuts:
    """Fan-out maps by layer and input shape, made once."""

    def __init__(self) -> None:
        self._made: dict[Any, FanOut] = {}

    def get(self, key: Any, make: Callable[[], FanOut]) -> FanOut:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]


def weight_geometry(layer: nn.Module, weight: torch.Tensor, fanout: FanOut) -> dict[str, Any]:
    """The entries of a connection's geometry that its parameters decide."""
    bias = getattr(layer, "bias", None)
    bits = layer.weight_bits if isinstance(layer, CodedWeight) else weight.element_size() * 8
    return {
        "weight_shape": tuple(weight.shape),
        "weight_count": weight.numel(),
        "weight_nonzero_count": fanout.weights,
        "bias_count": bias.numel() if isinstance(bias, torch.Tensor) else 0,
        "weight_bits": int(bits),
    }


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The weights that a layer computes with."""
    weight = layer.coded_weight() if isinstance(layer, CodedWeight) else layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight.detach()


def count_linear(
    records: Records, maps: FanOuts, name: str, layer: nn.Linear, x: torch.Tensor, y: torch.Tensor, tag: Tag, at: Layout
) -> None:
    """Count one call of a linear layer; x [..., in], y [..., out]."""
    rows = at.rows(x.shape[:-1], name)
    weight = weight_of(layer)
    fanout = maps.get(("linear", name), lambda: linear_fanout(weight))
    count_matrix(records, name, fanout, weight_geometry(layer, weight, fanout), x, y.shape[-1], tag, rows)


def count_matrix(
    records: Records,
    name: str,
    fanout: FanOut,
    geometry: dict[str, Any],
    x: torch.Tensor,
    out_count: int,
    tag: Tag,
    rows: Rows,
) -> None:
    """Count the product of rows [R, in] with a weight [out, in]."""
    entries, products, nonzero = (rows.total(part) for part in events(x.reshape(-1, 1, x.shape[-1]), fanout))
    geometry = {
        "input_shape": (*rows.rest, x.shape[-1]),
        "output_shape": (*rows.rest, out_count),
        "dense_synops": fanout.dense * rows.extra,
        "dense_synops_padded": fanout.dense_padded * rows.extra,
        "weight_nonzero_count": fanout.weights,
        **geometry,
    }
    records.of(name, "linear", geometry).add(tag, synops=products, synops_nonzero=nonzero, input_events=entries)


def count_conv(
    records: Records,
    maps: FanOuts,
    name: str,
    layer: nn.modules.conv._ConvNd,
    x: torch.Tensor,
    y: torch.Tensor,
    tag: Tag,
    at: Layout,
) -> None:
    """Count one call of a convolution or transposed convolution; x [..., C, *size]."""
    axes = len(layer.kernel_size)
    rows = at.rows(x.shape[: -axes - 1], name, may_hold_tokens=False)
    weight = weight_of(layer)
    size, out = x.shape[-axes:], y.shape[-axes:]
    fanout = maps.get(("conv", name, tuple(size)), lambda: conv_fanout(layer, weight, size, out))
    found = events(x.reshape(-1, x.shape[-axes - 1], prod(size)), fanout)
    entries, products, nonzero = (rows.total(part) for part in found)
    geometry = {
        "input_shape": tuple(x.shape[-axes - 1 :]),
        "output_shape": tuple(y.shape[-axes - 1 :]),
        "kernel_size": tuple(layer.kernel_size),
        "stride": tuple(layer.stride),
        "padding": _padding(layer),
        "dilation": tuple(layer.dilation),
        "groups": layer.groups,
        "dense_synops": fanout.dense,
        "dense_synops_padded": fanout.dense_padded,
        **weight_geometry(layer, weight, fanout),
    }
    kind = "conv_transpose" if layer.transposed else "conv"
    records.of(name, kind, geometry).add(tag, synops=products, synops_nonzero=nonzero, input_events=entries)


def _padding(layer: nn.modules.conv._ConvNd) -> tuple[int, ...]:
    pairs = padding_pairs(layer)
    even = all(before == after for before, after in pairs)
    return tuple(before for before, _ in pairs) if even else tuple(side for pair in pairs for side in pair)


def count_norm(
    records: Records, name: str, layer: nn.Module, x: torch.Tensor, y: torch.Tensor, tag: Tag, at: Layout
) -> None:
    """Count one call of a normalisation: one multiplication and one addition per entry."""
    rows = sample_rows(layer, name, x, at)
    shape = tuple(x.shape[rows.axes :])
    per_step = prod(shape)
    parameters = sum(parameter.numel() for parameter in layer.parameters(recurse=False))
    geometry = {"input_shape": shape, "output_shape": shape, "weight_count": 0, "bias_count": parameters}
    records.of(name, "norm", geometry).add(tag, adds=rows.every(per_step), multiplies=rows.every(per_step))


def count_pool(
    records: Records, name: str, layer: nn.Module, x: torch.Tensor, y: torch.Tensor, tag: Tag, at: Layout
) -> int:
    """Count one call of a pooling layer and return how many entries one sum holds (1 for a maximum)."""
    rows = sample_rows(layer, name, x, at)
    shape, out = tuple(x.shape[rows.axes :]), tuple(y.shape[rows.axes :])
    sums = 1
    kernel: tuple[int, ...] = ()
    if isinstance(layer, AVERAGE_POOLS):
        kernel = _per_axis(layer.kernel_size, len(out) - 1)
        sums = prod(kernel)
    elif isinstance(layer, ADAPTIVE_POOLS):
        sums = window_of(x, y)
    geometry = {
        "input_shape": shape,
        "output_shape": out,
        "kernel_size": kernel or _per_axis(getattr(layer, "kernel_size", ()), len(out) - 1),
        "stride": _per_axis(getattr(layer, "stride", ()), len(out) - 1),
        "padding": _per_axis(getattr(layer, "padding", ()), len(out) - 1),
    }
    records.of(name, "pool", geometry).add(tag, adds=rows.every(prod(out) * (sums - 1)))
    return sums


def count_maxima(records: Records, name: str, x: torch.Tensor, y: torch.Tensor, tag: Tag, at: Layout) -> None:
    """Count one call of a maximum pooling of sums over time, x and y [T, B, ...] or [B, ...] of one step.

    Every event is added to its running sum, and every output that is not 0 is the difference of two maxima.
    """
    rows, out = (at.rows(part.shape[:2], name, may_hold_tokens=False) for part in (x, y))
    geometry = {"input_shape": tuple(x.shape[rows.axes :]), "output_shape": tuple(y.shape[out.axes :])}
    adds = nonzeros(x.contiguous(), rows.steps, rows.samples) + nonzeros(y.contiguous(), out.steps, out.samples)
    records.of(name, "pool", geometry).add(tag, adds=adds)


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, list | tuple) else (int(value),) * axes


def count_activation(records: Records, name: str, x: torch.Tensor, y: torch.Tensor, tag: Tag, at: Layout) -> None:
    """Count one call of an activation function; it does no synaptic operation and no addition."""
    rows = at.rows(x.shape[:-1], name)
    geometry = {"input_shape": tuple(x.shape[rows.axes :]), "output_shape": tuple(y.shape[rows.axes :])}
    records.of(name, "activation", geometry).add(tag, output_events=nonzeros(y, rows.steps, rows.samples))


def sample_rows(layer: nn.Module, name: str, x: torch.Tensor, at: Layout) -> Rows:
    """Steps and samples of the input of a layer whose samples have a channel axis."""
    if isinstance(layer, nn.LayerNorm):
        return at.rows(x.shape[:-1], name)
    all_steps = getattr(layer, "step_mode", "s") == "m"  # SpikingJelly's layers over [T, B, C, ...]
    return at.rows(x.shape[: 2 if all_steps else 1], name, may_hold_tokens=False)


def pairs(left: torch.Tensor, right: torch.Tensor) -> Events:
    """Products of a batched matrix product with both factors non-zero, int64 [batch].

    Args:
        left: [batch, m, k].
        right: [batch, k, n].
    """
    columns = left.detach().ne(0).sum(1).to(torch.int64)  # [batch, k]
    rows = right.detach().ne(0).sum(2).to(torch.int64)
    return np.asarray((columns * rows).sum(1).cpu().numpy(), dtype=np.int64)
