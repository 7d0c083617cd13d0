"""Which layer each function call of a network stands for: one line per function, and how its arguments are read."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from snn.errors import UnsupportedError


class Product(nn.Module):
    """Elementwise product of two signals."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a * b


class Quotient(nn.Module):
    """Elementwise quotient of two signals."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a / b


class MatrixProduct(nn.Module):
    """Matrix product of two signals."""

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a @ b


class DotProductAttention(nn.Module):
    """softmax(q k' scale) v of three signals, without mask or causal.

    Args:
        is_causal: True hides later positions.
        scale: factor before the softmax; None takes 1 / sqrt(size of a query).
    """

    def __init__(self, is_causal: bool = False, scale: float | None = None) -> None:
        super().__init__()
        self.is_causal = is_causal
        self.scale = scale

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal, scale=self.scale)


class ChannelAffine(nn.Module):
    """scale x + shift with one value per channel (the second dimension): batch normalisation that stands alone.

    Args:
        scale, shift: [C].
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, scale: torch.Tensor, shift: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("shift", shift)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shape = (-1, *(1 for _ in range(x.dim() - 2)))
        return x * self.scale.view(shape) + self.shift.view(shape)


class LayerForm(NamedTuple):
    """How a function becomes a layer.

    Attributes:
        build: takes the function's arguments by name, without its signals, and returns the layer; None stands for the
            identity.
        names: the function's arguments in order; the first `signals` of them are signals of the network.
        signals: how many.
        defaults: arguments that `build` needs and a call may leave out.
    """

    build: Callable[..., nn.Module | None]
    names: tuple[str, ...]
    signals: int = 1
    defaults: Mapping[str, Any] = {}


def _hardtanh(min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> nn.Module:
    return bounded(min_val, max_val)


def bounded(lowest: Any, highest: Any) -> nn.Module:
    """The layer of clamp(x, lowest, highest).

    Raises:
        UnsupportedError: a bound is a tensor or missing below.
    """
    if any(not isinstance(bound, int | float | None) for bound in (lowest, highest)):
        raise UnsupportedError("its bounds must be numbers")
    if lowest == 0 and highest is None:
        return nn.ReLU()
    if lowest is None or highest is None:
        raise UnsupportedError("it must be bounded below by 0, or on both sides")
    return nn.Hardtanh(float(lowest), float(highest))


def _clamp(min: Any = None, max: Any = None) -> nn.Module:
    return bounded(min, max)


def _pool(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    return lambda **settings: kind(**settings)


def _dropout(p: float = 0.5, training: bool = False, inplace: bool = False) -> None:
    if training and p > 0:
        raise UnsupportedError("it drops values in evaluation too; pass training=self.training")


def _softmax(kind: type[nn.Module]) -> Callable[..., nn.Module]:
    def build(dim: int | None = None, dtype: Any = None, _stacklevel: int = 3) -> nn.Module:
        if dim is None:
            raise UnsupportedError("it must name its dimension")
        return kind(dim=dim)

    return build


def _linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    return _with_weights(layer, weight, bias)


def _conv(kind: Any) -> Callable[..., nn.Module]:
    def build(
        weight: torch.Tensor,
        bias: torch.Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
    ) -> nn.Module:
        out, per_group, *size = weight.shape
        layer = kind(
            per_group * groups, out, tuple(size), stride, padding, dilation, groups, bias is not None, device="meta"
        )
        return _with_weights(layer, weight, bias)

    return build


def _with_weights(layer: Any, weight: torch.Tensor, bias: torch.Tensor | None) -> nn.Module:
    layer.weight = nn.Parameter(weight.detach(), requires_grad=False)
    layer.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
    made: nn.Module = layer
    return made


def _layer_norm(
    normalized_shape: Sequence[int],
    weight: torch.Tensor | None = None,
    bias: torch.Tensor | None = None,
    eps: float = 1e-5,
) -> nn.Module:
    layer = nn.LayerNorm(list(normalized_shape), eps, elementwise_affine=False)
    return _with_weights(layer, weight, bias) if weight is not None else layer


def _attention(
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> nn.Module:
    if attn_mask is not None or dropout_p or enable_gqa:
        raise UnsupportedError("attn_mask, dropout_p and enable_gqa are not supported")
    return DotProductAttention(is_causal, scale)


def _plain(kind: Callable[..., nn.Module]) -> Callable[..., nn.Module]:
    def build(inplace: bool = False, **settings: Any) -> nn.Module:
        return kind(**settings)

    return build


_X = ("input",)
_AVG = (*_X, "kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
_MAX = (*_X, "kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_RELU = LayerForm(_plain(nn.ReLU), (*_X, "inplace"))
_CLAMP = LayerForm(_clamp, (*_X, "min", "max"))
_SOFTMAX = LayerForm(_softmax(nn.Softmax), (*_X, "dim", "dtype"))
_LOG_SOFTMAX = LayerForm(_softmax(nn.LogSoftmax), (*_X, "dim", "dtype"))
_DROPOUT = LayerForm(_dropout, (*_X, "p", "training", "inplace"))
_TORCH_DROPOUT = LayerForm(_dropout, (*_X, "p", "train"))
_MATMUL = LayerForm(lambda: MatrixProduct(), ("input", "other"), 2)
_CONV = (*_X, "weight", "bias", "stride", "padding", "dilation", "groups")
_TANH = LayerForm(lambda: nn.Tanh(), _X)
_SIGMOID = LayerForm(lambda: nn.Sigmoid(), _X)

LAYER_OF: dict[Any, LayerForm] = {
    F.relu: _RELU, F.relu_: _RELU, torch.relu: _RELU, torch.relu_: _RELU, "relu": _RELU, "relu_": _RELU,
    F.relu6: LayerForm(_plain(nn.ReLU6), (*_X, "inplace")),
    F.hardtanh: LayerForm(_hardtanh, (*_X, "min_val", "max_val", "inplace")),
    torch.clamp: _CLAMP, torch.clip: _CLAMP, "clamp": _CLAMP, "clamp_": _CLAMP, "clip": _CLAMP, "clip_": _CLAMP,
    torch.clamp_min: LayerForm(_clamp, (*_X, "min")), "clamp_min": LayerForm(_clamp, (*_X, "min")),
    "clamp_min_": LayerForm(_clamp, (*_X, "min")),
    F.gelu: LayerForm(_plain(nn.GELU), (*_X, "approximate")),
    F.silu: LayerForm(_plain(nn.SiLU), (*_X, "inplace")),
    F.leaky_relu: LayerForm(_plain(nn.LeakyReLU), (*_X, "negative_slope", "inplace")),
    F.elu: LayerForm(_plain(nn.ELU), (*_X, "alpha", "inplace")),
    F.softplus: LayerForm(_plain(nn.Softplus), (*_X, "beta", "threshold")),
    F.hardswish: LayerForm(_plain(nn.Hardswish), (*_X, "inplace")),
    F.hardsigmoid: LayerForm(_plain(nn.Hardsigmoid), (*_X, "inplace")),
    F.mish: LayerForm(_plain(nn.Mish), (*_X, "inplace")),
    torch.tanh: _TANH, F.tanh: _TANH, "tanh": _TANH, torch.sigmoid: _SIGMOID, F.sigmoid: _SIGMOID, "sigmoid": _SIGMOID,
    F.softmax: LayerForm(_softmax(nn.Softmax), (*_X, "dim", "_stacklevel", "dtype")), torch.softmax: _SOFTMAX,
    "softmax": _SOFTMAX, torch.log_softmax: _LOG_SOFTMAX, "log_softmax": _LOG_SOFTMAX,
    F.log_softmax: LayerForm(_softmax(nn.LogSoftmax), (*_X, "dim", "_stacklevel", "dtype")),
    F.dropout: _DROPOUT, F.dropout1d: _DROPOUT, F.dropout2d: _DROPOUT, F.dropout3d: _DROPOUT,
    F.alpha_dropout: _DROPOUT, torch.dropout: _TORCH_DROPOUT,
    F.avg_pool1d: LayerForm(_pool(nn.AvgPool1d), _AVG[:6]),
    F.avg_pool2d: LayerForm(_pool(nn.AvgPool2d), _AVG), F.avg_pool3d: LayerForm(_pool(nn.AvgPool3d), _AVG),
    F.max_pool1d: LayerForm(_pool(nn.MaxPool1d), _MAX), torch.max_pool1d: LayerForm(_pool(nn.MaxPool1d), _MAX[:6]),
    F.max_pool2d: LayerForm(_pool(nn.MaxPool2d), _MAX), torch.max_pool2d: LayerForm(_pool(nn.MaxPool2d), _MAX[:6]),
    F.max_pool3d: LayerForm(_pool(nn.MaxPool3d), _MAX), torch.max_pool3d: LayerForm(_pool(nn.MaxPool3d), _MAX[:6]),
    F.adaptive_avg_pool1d: LayerForm(_pool(nn.AdaptiveAvgPool1d), (*_X, "output_size")),
    F.adaptive_avg_pool2d: LayerForm(_pool(nn.AdaptiveAvgPool2d), (*_X, "output_size")),
    F.adaptive_avg_pool3d: LayerForm(_pool(nn.AdaptiveAvgPool3d), (*_X, "output_size")),
    F.adaptive_max_pool1d: LayerForm(_pool(nn.AdaptiveMaxPool1d), (*_X, "output_size", "return_indices")),
    F.adaptive_max_pool2d: LayerForm(_pool(nn.AdaptiveMaxPool2d), (*_X, "output_size", "return_indices")),
    F.adaptive_max_pool3d: LayerForm(_pool(nn.AdaptiveMaxPool3d), (*_X, "output_size", "return_indices")),
    F.layer_norm: LayerForm(_layer_norm, (*_X, "normalized_shape", "weight", "bias", "eps")),
    F.linear: LayerForm(_linear, (*_X, "weight", "bias")),
    F.conv1d: LayerForm(_conv(nn.Conv1d), _CONV),
    F.conv2d: LayerForm(_conv(nn.Conv2d), _CONV),
    F.conv3d: LayerForm(_conv(nn.Conv3d), _CONV),
    F.scaled_dot_product_attention: LayerForm(
        _attention, ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa"), 3
    ),
    torch.matmul: _MATMUL, torch.bmm: _MATMUL, torch.mm: _MATMUL, operator.matmul: _MATMUL,
    "matmul": _MATMUL, "bmm": _MATMUL, "mm": _MATMUL,
}  # fmt: skip
"""Functions and names of tensor methods that stand for a layer."""

PRODUCTS: frozenset[Any] = frozenset(
    {operator.mul, operator.imul, torch.mul, torch.multiply, "mul", "mul_", "multiply"}
)
QUOTIENTS: frozenset[Any] = frozenset(
    {operator.truediv, operator.itruediv, torch.div, torch.true_divide, "div", "div_"}
)

SIZES: frozenset[Any] = frozenset(
    {"size", "dim", "numel", "ndimension", "element_size", "get_device", "type", "stride"}
)
"""Tensor methods that only ask for sizes and the like; so do the attributes below."""
SIZE_ATTRIBUTES = frozenset({"shape", "ndim", "device", "dtype", "is_cuda"})

ADDITIVE: frozenset[Any] = frozenset(
    {operator.add, operator.sub, operator.iadd, operator.isub, torch.add, torch.sub, torch.subtract, torch.rsub}
    | {torch.cat, torch.concat, torch.concatenate, torch.stack, torch.hstack, torch.vstack}
    | {"add", "add_", "sub", "sub_", "subtract", "__radd__", "__rsub__"}
)
"""Functions in which a constant operand is a bias."""

LINEAR: frozenset[Any] = frozenset(
    PRODUCTS
    | QUOTIENTS
    | {operator.neg, torch.neg, "neg", operator.getitem, torch.flatten, torch.reshape, torch.permute, torch.transpose}
    | {torch.swapaxes, torch.movedim, torch.squeeze, torch.unsqueeze, torch.unflatten, torch.chunk, torch.split}
    | {torch.unbind, torch.flip, torch.roll, torch.narrow, torch.select, torch.mean, torch.sum, torch.pixel_shuffle}
    | {F.interpolate, F.upsample, F.pixel_shuffle, F.pixel_unshuffle, torch.tensor_split, torch.index_select}
    | {"flatten", "view", "reshape", "permute", "transpose", "swapaxes", "movedim", "squeeze", "unsqueeze", "unflatten"}
    | {"chunk", "split", "unbind", "flip", "roll", "narrow", "select", "mean", "sum", "contiguous", "clone", "detach"}
    | {"to", "float", "double", "type_as", "expand", "expand_as", "view_as", "reshape_as", "t", "tensor_split", "mT"}
    | {"repeat", "index_select", "ravel", torch.ravel, torch.clone, torch.detach, torch.repeat_interleave}
)
"""Functions that are linear in their one signal: sums over steps pass through them unchanged."""
