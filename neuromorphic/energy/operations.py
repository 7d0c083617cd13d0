"""Operations outside of layers: functional convolutions and products, attention products, sums, gates, pooling."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from neuromorphic.energy import torch_layers as layers
from neuromorphic.energy.counts import ANALOG, Signal
from neuromorphic.energy.fanout import linear_fanout, nonzeros
from neuromorphic.energy.propagation import Tag, joined, tag_of_result
from neuromorphic.energy.records import Rows
from snn.errors import UnsupportedError

if TYPE_CHECKING:
    from neuromorphic.energy.torch_counter import TorchCounter

_SUMS: Final = ("aten::add", "aten::add_", "aten::sub", "aten::sub_")
_PRODUCTS: Final = ("aten::mul", "aten::mul_", "aten::div", "aten::div_")
_POOLS: Final = ("aten::avg_pool1d", "aten::avg_pool2d", "aten::avg_pool3d", "aten::_adaptive_avg_pool2d")
_REDUCTIONS: Final = ("aten::sum", "aten::mean")
_MATRICES: Final = {
    "aten::mm": 0,
    "aten::addmm": 1,
    "aten::bmm": 0,
    "aten::baddbmm": 1,
    "aten::mv": 0,
    "aten::addmv": 1,
}
_HIDDEN: Final = (
    "aten::_native_multi_head_attention",
    "aten::_transformer_encoder_layer_fwd",
    "aten::lstm",
    "aten::gru",
)


def count_operation(counter: TorchCounter, name: str, arguments: tuple[Any, ...], out: Any) -> Tag | None:
    """Count one operation and return the tag of its result; None where nothing is counted.

    Raises: UnsupportedError for operations whose products cannot be seen.
    """
    if name in _MATRICES:
        return _product(counter, name, arguments[_MATRICES[name] :], out)
    if name in ("aten::convolution", "aten::_convolution"):
        return _convolution(counter, arguments, out)
    if name in _SUMS or name in _PRODUCTS:
        return _elementwise(counter, name, arguments, out)
    if name in _POOLS or name in _REDUCTIONS:
        return _reduction(counter, name, arguments, out)
    if name in _HIDDEN:
        raise UnsupportedError(f"count: {name} computes many layers in one call that cannot be seen into")
    return None


def _product(counter: TorchCounter, name: str, operands: tuple[Any, ...], out: torch.Tensor) -> Tag | None:
    left, right = operands[0], operands[1]
    a, b = counter.tags.get(left), counter.tags.get(right)
    if not a.is_activation and not b.is_activation:
        return None  # made from weights only: computed once, before inference
    if b.is_weight and left.dim() == 2:
        return _weighted(counter, left, right.t(), out, a)
    if a.is_weight and right.dim() == 2 and name in ("aten::mm", "aten::addmm"):
        return _weighted(counter, right.t(), left, out.t(), b)
    label = counter.label("matmul")
    left, right = _batched(left), _batched(right)
    rows = counter.layout.product_rows(len(left) if len(left) > 1 else left.shape[1], label)
    if len(left) == 1 and left.shape[1] > 1:
        # One matrix whose rows are the samples: each row is a product of its own.
        left = left.transpose(0, 1)
        right = right.expand(len(left), -1, -1)
    m, k, n = left.shape[1], left.shape[2], right.shape[2]
    found = rows.total(layers.pairs(left, right))
    dense = m * k * n * rows.extra
    geometry = {
        "input_shape": (*rows.rest, m, k),
        "weight_shape": (*rows.rest, k, n),
        "output_shape": (*rows.rest, m, n),
        "dense_synops": dense,
        "dense_synops_padded": dense,
    }
    tag = joined([a, b])
    signals = [signal for signal in (a.signal, b.signal) if signal is not None]
    spiking = [signal for signal in signals if signal.kind == "spikes"]
    # One spiking operand is enough: its spikes select what is added up.
    declared = min(spiking, key=lambda signal: signal.levels) if spiking else ANALOG
    counter.records.of(label, "matmul", geometry).add(
        Tag(declared, tag.sources),
        synops=found,
        synops_nonzero=found,
        input_events=nonzeros(left, rows.steps, rows.samples),
    )
    both_spike = len(spiking) == len(signals) == 2
    levels = prod(signal.levels for signal in spiking) * k
    signed = any(signal.signed for signal in spiking)
    return Tag(Signal("spikes", levels, signed) if both_spike else ANALOG, (label,))


def _batched(x: torch.Tensor) -> torch.Tensor:
    return x if x.dim() == 3 else x.unsqueeze(0) if x.dim() == 2 else x.unsqueeze(0).unsqueeze(-1)


def _weighted(counter: TorchCounter, x: torch.Tensor, weight: torch.Tensor, out: torch.Tensor, tag: Tag) -> Tag:
    """A matrix product with a parameter, rows [R, in] and weight [out, in]."""
    label = counter.label("linear")
    rows = counter.layout.product_rows(x.shape[0], label)
    rows = Rows(rows.steps, rows.samples, rows.rest if rows.extra > 1 else ())
    geometry = {
        "weight_shape": tuple(weight.shape),
        "weight_count": weight.numel(),
        "weight_bits": weight.element_size() * 8,
    }
    fanout = counter.maps.get(("linear", label), lambda: linear_fanout(weight.detach()))
    layers.count_matrix(counter.records, label, fanout, geometry, x, out.shape[-1], tag, rows)
    return Tag(ANALOG, (label,))


def _convolution(counter: TorchCounter, arguments: tuple[Any, ...], out: torch.Tensor) -> Tag | None:
    x, weight, bias, stride, padding, dilation, transposed, _, groups = arguments[:9]
    tag = counter.tags.get(x)
    if not tag.is_activation:
        return None
    if counter.tags.get(weight).is_activation:
        raise UnsupportedError("count: a convolution whose kernel is computed from the input is not supported")
    layer = _FunctionalConv(weight, bias, tuple(stride), tuple(padding), tuple(dilation), transposed, groups)
    label = counter.label("conv")
    layers.count_conv(counter.records, counter.maps, label, layer, x, out, tag, counter.layout)
    return Tag(ANALOG, (label,))


class _FunctionalConv(torch.nn.modules.conv._ConvNd):
    """The attributes of a convolution that was called as a function."""

    def __init__(
        self,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        stride: tuple[int, ...],
        padding: tuple[int, ...],
        dilation: tuple[int, ...],
        transposed: bool,
        groups: int,
    ) -> None:
        torch.nn.Module.__init__(self)
        self.weight, self.bias = weight, bias
        self.kernel_size = tuple(weight.shape[2:])
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.transposed, self.groups, self.padding_mode = transposed, groups, "zeros"


def _elementwise(counter: TorchCounter, name: str, arguments: tuple[Any, ...], out: torch.Tensor) -> Tag | None:
    operands = [x for x in arguments[:2] if isinstance(x, torch.Tensor)]
    tags = [counter.tags.get(x) for x in operands]
    if not any(tag.is_activation and tag.sources for tag in tags) or any(x.dim() == 0 for x in operands):
        return None
    if len(operands) < 2 or any(tag.signal is None and not tag.is_weight for tag in tags):
        return None  # a factor or offset that folds into what follows, or fresh zeros
    result = tag_of_result(counter.tags, name, arguments, out)
    leading = out.shape[:-1] if out.dim() > 1 else out.shape
    label = counter.label("add" if name in _SUMS else "mul")
    rows = counter.layout.rows(leading, label)
    shape = tuple(out.shape[rows.axes :])
    spiking = [tag.signal is not None and tag.signal.kind == "spikes" for tag in tags]
    if name in _SUMS and all(spiking):
        # A silent input adds nothing.
        adds = sum(nonzeros(x.expand_as(out).contiguous(), rows.steps, rows.samples) for x in operands)
    else:
        adds = rows.every(prod(shape) if name in _SUMS else 0)
    # A spike that gates another value selects it; nothing is multiplied.
    multiplies = rows.every(0 if name in _SUMS or any(spiking) else prod(shape))
    geometry = {"input_shape": shape, "output_shape": shape, "output_signal": result.signal or ANALOG}
    counter.records.of(label, "elementwise", geometry).add(
        joined(tags),
        adds=np.asarray(adds, dtype=np.int64),
        multiplies=multiplies,
    )
    return Tag(result.signal, (label,))


def _reduction(counter: TorchCounter, name: str, arguments: tuple[Any, ...], out: torch.Tensor) -> Tag | None:
    x = arguments[0]
    tag = counter.tags.get(x)
    if not tag.is_activation or not tag.sources:
        return None
    result = tag_of_result(counter.tags, name, arguments, out)
    label = counter.label("pool" if name in _POOLS else "sum")
    if name in _POOLS:
        rows = counter.layout.rows(x.shape[:1], label, may_hold_tokens=False)
        window = prod(arguments[1]) if name != "aten::_adaptive_avg_pool2d" else None
        shape = tuple(out.shape[1:])
        adds = rows.every(prod(shape) * (window - 1) if window else (x.numel() - out.numel()) // len(x))
    else:
        # The axis of time may be gone; the additions belong to each sample.
        rows = Rows(1, counter.layout.samples)
        shape = ()
        adds = rows.every(max(x.numel() - out.numel(), 0) // rows.samples)
    geometry = {
        "input_shape": tuple(x.shape[1:]) if name in _POOLS else (),
        "output_shape": shape,
        "output_signal": result.signal or ANALOG,
    }
    counter.records.of(label, "pool", geometry).add(tag, adds=adds)
    return Tag(result.signal, (label,))
