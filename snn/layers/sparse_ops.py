"""The torch operators behind the spike-sparse layers: ``spikeloop::sparse_linear`` and ``spikeloop::sparse_conv2d``.

Each forward operator returns the output, the input's non-zero bits with their number in each row (about 1/32 of a
float32 input; kept for the backward) and a status of two integers: the number of non-zero entries (-1 if not counted)
and what was done (``SPARSE_ONES`` ...). The data decide what is done, inside the operator, so that torch.compile and
torch.export see one opaque call.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from snn.layers.sparse_products import (
    CHUNK_ROWS,
    SPARSE_ONES,
    SPARSE_VALUES,
    active_lists,
    columns_of_lists,
    columns_of_matrix,
    conv2d_out_size,
    decide,
    entries_of,
    group_lists,
    row_sums,
    weight_gradient_of,
    words_per_row,
)


@torch.library.custom_op("spikeloop::sparse_linear", mutates_args=(), device_types="cpu")
def sparse_linear(x: Tensor, weight: Tensor, bias: Tensor | None, max_density: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [rows, in] @ weight^T + bias; sparse where at most max_density of x is not zero."""
    matrix = x.detach().contiguous()
    bits = x.new_empty(matrix.shape[0], words_per_row(matrix.shape[1]), dtype=torch.int64)
    active, done = decide(matrix, bits, max_density)
    if done in (SPARSE_ONES, SPARSE_VALUES):
        y = row_sums(active_lists(matrix, bits, done == SPARSE_VALUES), weight, bias)
    else:
        y = torch.nn.functional.linear(matrix, weight, bias)
    return y, bits, torch.tensor([active, done])


@sparse_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, max_density: float) -> tuple[Tensor, Tensor, Tensor]:
    bits = x.new_empty(x.shape[0], words_per_row(x.shape[1]), dtype=torch.int64)
    return x.new_empty(x.shape[0], weight.shape[0]), bits, x.new_empty(2, dtype=torch.int64)


@torch.library.custom_op("spikeloop::sparse_linear_weight_gradient", mutates_args=(), device_types="cpu")
def sparse_linear_weight_gradient(
    grad: Tensor, x: Tensor | None, bits: Tensor, status: Tensor, in_count: int
) -> Tensor:
    """grad^T @ x, in the way the forward pass chose; x may be None where all its entries are 0 and 1."""
    done = int(status[1])
    if done in (SPARSE_ONES, SPARSE_VALUES):
        lists = columns_of_matrix(entries_of(x, grad), in_count, bits, done == SPARSE_VALUES, CHUNK_ROWS)
        return weight_gradient_of(lists, grad.detach())
    assert x is not None
    return grad.t() @ x


@sparse_linear_weight_gradient.register_fake
def _(grad: Tensor, x: Tensor | None, bits: Tensor, status: Tensor, in_count: int) -> Tensor:
    return grad.new_empty(grad.shape[1], in_count)


def _save_linear(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, _ = inputs
    _, bits, status = output
    ctx.set_materialize_grads(False)
    ctx.has_bias = bias is not None
    ctx.save_for_backward(None if _bits_are_enough(status) else x, weight, bits, status)


def _bits_are_enough(status: Tensor) -> bool:
    """Whether the backward pass can do without the input; a compiled graph is fixed before the data are known."""
    return type(status) is Tensor and not torch.compiler.is_compiling() and int(status[1]) == SPARSE_ONES


def _linear_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return None, None, None, None
    x, weight, bits, status = ctx.saved_tensors
    needs_x, needs_weight, needs_bias, _ = ctx.needs_input_grad
    return (
        grad @ weight if needs_x else None,
        sparse_linear_weight_gradient(grad, x, bits, status, weight.shape[1]) if needs_weight else None,
        grad.sum(0) if needs_bias and ctx.has_bias else None,
        None,
    )


sparse_linear.register_autograd(_linear_backward, setup_context=_save_linear)


@torch.library.custom_op("spikeloop::sparse_conv2d", mutates_args=(), device_types="cpu")
def sparse_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    max_density: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """torch.nn.functional.conv2d for x [B, C, H, W]; sparse where at most max_density of x is not zero."""
    images = x.detach().contiguous()
    samples, channels, height, width = images.shape
    matrix = images.view(samples * channels, height * width)
    bits = x.new_empty(matrix.shape[0], words_per_row(matrix.shape[1]), dtype=torch.int64)
    active, done = decide(matrix, bits, max_density)
    if done in (SPARSE_ONES, SPARSE_VALUES):
        geometry = (stride, padding, dilation)
        lists = group_lists(matrix.numpy(), x.shape, bits, weight, geometry, groups, done == SPARSE_VALUES)
        y = x.new_empty(
            samples, weight.shape[0], *conv2d_out_size((height, width), weight.shape[2:], stride, padding, dilation)
        )
        per_group = weight.shape[0] // groups
        for g in range(groups):
            part = slice(g * per_group, (g + 1) * per_group)
            rows = row_sums(lists[g], weight[part].reshape(per_group, -1), None if bias is None else bias[part])
            y[:, part].flatten(2).copy_(rows.view(samples, -1, per_group).transpose(1, 2))
    else:
        y = torch.nn.functional.conv2d(images, weight, bias, stride, padding, dilation, groups).contiguous()
    return y, bits, torch.tensor([active, done])


@sparse_conv2d.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    max_density: float,
) -> tuple[Tensor, Tensor, Tensor]:
    samples, channels, height, width = x.shape
    bits = x.new_empty(samples * channels, words_per_row(height * width), dtype=torch.int64)
    size = conv2d_out_size((height, width), weight.shape[2:], stride, padding, dilation)
    return x.new_empty(samples, weight.shape[0], *size), bits, x.new_empty(2, dtype=torch.int64)


def _dense_conv2d_gradients(
    grad: Tensor, x: Tensor, weight: Tensor, geometry: tuple[list[int], list[int], list[int]], groups: int, which: int
) -> Tensor:
    stride, padding, dilation = geometry
    mask = [k == which for k in range(3)]
    results = torch.ops.aten.convolution_backward(
        grad, x, weight, None, stride, padding, dilation, False, [0, 0], groups, mask
    )
    return results[which]


@torch.library.custom_op("spikeloop::sparse_conv2d_weight_gradient", mutates_args=(), device_types="cpu")
def sparse_conv2d_weight_gradient(
    grad: Tensor,
    x: Tensor | None,
    shape: Sequence[int],
    weight: Tensor,
    bits: Tensor,
    status: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """The weight gradient of conv2d, in the way the forward pass chose. Of weight only the shape is used.

    `shape` is that of x, which may be None where all its entries are 0 and 1.
    """
    done = int(status[1])
    if done not in (SPARSE_ONES, SPARSE_VALUES):
        assert x is not None
        geometry = (list(stride), list(padding), list(dilation))
        return _dense_conv2d_gradients(grad, x, weight, geometry, groups, 1).contiguous()
    entries = entries_of(None if x is None else x.flatten(0, 1).flatten(1), grad)
    lists = group_lists(entries, shape, bits, weight, (stride, padding, dilation), groups, done == SPARSE_VALUES)
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    per_group = weight.shape[0] // groups
    for g in range(groups):
        part = slice(g * per_group, (g + 1) * per_group)
        rows = grad.detach()[:, part].permute(0, 2, 3, 1).reshape(-1, per_group)
        columns = columns_of_lists(lists[g], weight[0].numel(), CHUNK_ROWS)
        grad_weight[part] = weight_gradient_of(columns, rows).view_as(grad_weight[part])
    return grad_weight


@sparse_conv2d_weight_gradient.register_fake
def _(
    grad: Tensor,
    x: Tensor | None,
    shape: Sequence[int],
    weight: Tensor,
    bits: Tensor,
    status: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


def _save_conv2d(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, stride, padding, dilation, groups, _ = inputs
    _, bits, status = output
    ctx.set_materialize_grads(False)
    ctx.has_bias = bias is not None
    ctx.geometry, ctx.groups, ctx.shape = (list(stride), list(padding), list(dilation)), groups, x.shape
    ctx.save_for_backward(None if _bits_are_enough(status) else x, weight, bits, status)


def _conv2d_backward(ctx: Any, grad: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 8
    x, weight, bits, status = ctx.saved_tensors
    needs_x, needs_weight, needs_bias = ctx.needs_input_grad[:3]
    grad_x = None
    if needs_x:  # of x only the shape is used there
        like = grad.new_empty(1).expand(ctx.shape) if x is None else x
        grad_x = _dense_conv2d_gradients(grad, like, weight, ctx.geometry, ctx.groups, 0)
    grad_weight = (
        sparse_conv2d_weight_gradient(grad, x, ctx.shape, weight, bits, status, *ctx.geometry, ctx.groups)
        if needs_weight
        else None
    )
    grad_bias = grad.sum((0, 2, 3)) if needs_bias and ctx.has_bias else None
    return grad_x, grad_weight, grad_bias, None, None, None, None, None


sparse_conv2d.register_autograd(_conv2d_backward, setup_context=_save_conv2d)
