"""The torch operators behind the spike-sparse layers: ``spikeloop::sparse_linear`` and ``spikeloop::sparse_conv2d``.

Each forward operator returns the output, the input's non-zero bits with their number in each row (about 1/32 of a
float32 input; kept for the backward) and a status of two integers: the number of non-zero entries (-1 if not counted)
and what was done (``SPARSE_ONES`` ...). The data decide what is done, inside the operator, so that torch.compile and
torch.export see one opaque call.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

SPARSE_ONES, SPARSE_VALUES, DENSE_DENSITY, DENSE_SHAPE = range(4)

CHUNK_ROWS = 512  # rows of the weight gradient whose block of columns is kept in cache
SPAN_BLOCKS = 8  # neighbouring blocks of columns that are copied together
TASKS_PER_THREAD = 4

Array = np.ndarray[Any, Any]


class ActiveLists(NamedTuple):
    """Row r of the input matrix is non-zero in the columns indices[starts[r]:stops[r]], and 0 elsewhere."""

    starts: Array
    stops: Array
    indices: Array
    values: Array  # one for each index; empty if all are 1


def _thread_count() -> int:
    import numba

    return min(numba.get_num_threads(), torch.get_num_threads())


def _words(bits: Tensor) -> Array:
    return bits.numpy().view(np.uint64)


def _count_active(matrix: Tensor, bits: Tensor) -> tuple[int, bool]:
    from snn.layers.sparse_lists import pack_bits

    others = np.empty(matrix.shape[0], np.int64)
    words = _words(bits)
    pack_bits(matrix.numpy(), words, others)
    return int(words[:, -1].sum()), bool(others.any())


def _row_bounds(bits: Tensor) -> Array:
    """Number of non-zero entries before each row, and in all."""
    bounds = np.zeros(bits.shape[0] + 1, np.int64)
    np.cumsum(bits.numpy()[:, -1], out=bounds[1:])
    return bounds


def _active_lists(matrix: Tensor, bits: Tensor, with_values: bool) -> ActiveLists:
    from snn.layers.sparse_lists import expand_bits

    bounds = _row_bounds(bits)
    indices = np.empty(bounds[-1], np.int32)
    expand_bits(_words(bits), bounds, indices)
    values = np.empty(0, matrix.numpy().dtype)
    if with_values:
        rows = np.repeat(np.arange(matrix.shape[0]), np.diff(bounds))
        values = matrix.numpy()[rows, indices]
    return ActiveLists(bounds[:-1], bounds[1:], indices, values)


class ColumnLists(NamedTuple):
    """Lists of rows per column, one set for each chunk of rows; see ``lists_by_column``."""

    pointers: Array
    rows: Array
    values: Array  # one for each row number; empty if all are 1


def _columns_of_matrix(matrix: Array, columns: int, bits: Tensor, with_values: bool, chunk_rows: int) -> ColumnLists:
    """`matrix` is read where its entries are wanted; the bits have the rest."""
    from snn.layers.sparse_lists import lists_from_bits

    bounds = _row_bounds(bits)
    pointers = np.empty((-(-bits.shape[0] // chunk_rows), columns + 1), np.int64)
    rows = np.empty(bounds[-1], np.int32)
    values = np.empty(bounds[-1] if with_values else 0, matrix.dtype)
    lists_from_bits(matrix, _words(bits), bounds[:-1:chunk_rows], chunk_rows, pointers, rows, values)
    return ColumnLists(pointers, rows, values)


def _columns_of_lists(lists: ActiveLists, columns: int, chunk_rows: int) -> ColumnLists:
    from snn.layers.sparse_lists import lists_by_column

    row_count = lists.starts.shape[0]
    bounds = np.zeros(row_count + 1, np.int64)
    np.cumsum(lists.stops - lists.starts, out=bounds[1:])
    pointers = np.empty((-(-row_count // chunk_rows), columns + 1), np.int64)
    rows = np.empty(bounds[-1], np.int32)
    entries = np.empty(bounds[-1] if lists.values.size else 0, np.int64)
    offsets = bounds[:-1:chunk_rows]
    lists_by_column(lists.starts, lists.stops, lists.indices, offsets, chunk_rows, pointers, rows, entries)
    return ColumnLists(pointers, rows, lists.values[entries])


def _forward(lists: ActiveLists, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The rows' outputs [rows, out] for weight [out, in]."""
    from snn.layers.sparse_sums import BLOCK_BYTES, forward_rows

    out_count, in_count = weight.shape
    block = BLOCK_BYTES // weight.element_size()
    block_count = -(-out_count // block)
    padded_bias = weight.new_zeros(block_count * block)
    if bias is not None:
        padded_bias[:out_count] = bias
    y = weight.new_empty(lists.starts.shape[0], out_count)
    threads = _thread_count()
    row_splits = max(1, -(-TASKS_PER_THREAD * threads // max(block_count, 1)))
    forward_rows(
        lists.starts,
        lists.stops,
        lists.indices,
        lists.values,
        lists.values.size > 0,
        weight.detach().contiguous().numpy(),
        padded_bias.numpy(),
        y.numpy(),
        weight.new_empty(threads, in_count, block).numpy(),
        weight.new_empty(threads, block).numpy(),
        row_splits,
    )
    return y


def _weight_gradient(lists: ColumnLists, grad: Tensor) -> Tensor:
    """grad^T @ input, [out, in], for the gradient [rows, out] of the rows' outputs."""
    from snn.layers.sparse_sums import BLOCK_BYTES, weight_gradient

    in_count = lists.pointers.shape[1] - 1
    out_count = grad.shape[1]
    block = BLOCK_BYTES // grad.element_size()
    span = min(SPAN_BLOCKS, -(-out_count // block))
    threads = _thread_count()
    in_splits = max(1, -(-threads * block * span // max(out_count, 1)))
    grad_weight = grad.new_empty(out_count, in_count)
    weight_gradient(
        lists.pointers,
        lists.rows,
        lists.values,
        lists.values.size > 0,
        grad.contiguous().numpy(),
        grad_weight.numpy(),
        grad.new_empty(threads, span, CHUNK_ROWS, block).numpy(),
        grad.new_empty(threads, span, in_count, block).numpy(),
        in_splits,
    )
    return grad_weight


def _decide(matrix: Tensor, bits: Tensor, max_density: float) -> tuple[int, int]:
    """(number of non-zero entries or -1, what to do)."""
    if max_density <= 0 or matrix.numel() == 0:
        bits.zero_()
        return -1, DENSE_SHAPE
    active, valued = _count_active(matrix, bits)
    if active > max_density * matrix.numel():
        return active, DENSE_DENSITY
    return active, SPARSE_VALUES if valued else SPARSE_ONES


def _words_per_row(columns: int) -> int:
    """One bit for each column, and a word for the number of ones."""
    return (columns + 63) // 64 + 1


@torch.library.custom_op("spikeloop::sparse_linear", mutates_args=(), device_types="cpu")
def sparse_linear(x: Tensor, weight: Tensor, bias: Tensor | None, max_density: float) -> tuple[Tensor, Tensor, Tensor]:
    """x [rows, in] @ weight^T + bias; sparse where at most max_density of x is not zero."""
    matrix = x.detach().contiguous()
    bits = x.new_empty(matrix.shape[0], _words_per_row(matrix.shape[1]), dtype=torch.int64)
    active, done = _decide(matrix, bits, max_density)
    if done in (SPARSE_ONES, SPARSE_VALUES):
        y = _forward(_active_lists(matrix, bits, done == SPARSE_VALUES), weight, bias)
    else:
        y = torch.nn.functional.linear(matrix, weight, bias)
    return y, bits, torch.tensor([active, done])


@sparse_linear.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor | None, max_density: float) -> tuple[Tensor, Tensor, Tensor]:
    bits = x.new_empty(x.shape[0], _words_per_row(x.shape[1]), dtype=torch.int64)
    return x.new_empty(x.shape[0], weight.shape[0]), bits, x.new_empty(2, dtype=torch.int64)


@torch.library.custom_op("spikeloop::sparse_linear_weight_gradient", mutates_args=(), device_types="cpu")
def sparse_linear_weight_gradient(
    grad: Tensor, x: Tensor | None, bits: Tensor, status: Tensor, in_count: int
) -> Tensor:
    """grad^T @ x, in the way the forward pass chose; x may be None where all its entries are 0 and 1."""
    done = int(status[1])
    if done in (SPARSE_ONES, SPARSE_VALUES):
        lists = _columns_of_matrix(_entries(x, grad), in_count, bits, done == SPARSE_VALUES, CHUNK_ROWS)
        return _weight_gradient(lists, grad.detach())
    assert x is not None
    return grad.t() @ x


def _entries(matrix: Tensor | None, like: Tensor) -> Array:
    """The entries of a matrix, or none where the bits say it all."""
    return (like.new_empty(0, 0) if matrix is None else matrix).detach().contiguous().numpy()


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


def conv2d_out_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Height and width of the output of a convolution."""
    return [(size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)]


def _group_lists(
    entries: Array,
    shape: Sequence[int],
    bits: Tensor,
    weight: Tensor,
    geometry: tuple[Sequence[int], Sequence[int], Sequence[int]],
    groups: int,
    with_values: bool,
) -> list[ActiveLists]:
    """For each group the active taps of every output pixel: the sparse form of torch.nn.functional.unfold(x).

    `shape` is that of x; `entries` is its matrix of rows of pixels, read where values are wanted.
    """
    from snn.layers.sparse_lists import unfold_lists

    stride, padding, dilation = geometry
    samples, channels, *size = shape
    kernel = weight.shape[2:]
    out_size = conv2d_out_size(size, kernel, stride, padding, dilation)
    pixels = size[0] * size[1]
    pointers, pixel_channels, values = _columns_of_matrix(entries, pixels, bits, with_values, channels // groups)
    taps = kernel[0] * kernel[1]
    row_count = samples * groups * out_size[0] * out_size[1]
    starts, stops = np.empty((2, row_count), np.int64)
    indices = np.empty(taps * pixel_channels.shape[0], np.int32)
    places = np.zeros(indices.shape[0] if with_values else 0, np.int64)
    pairs: list[Any] = [(int(a), int(b)) for a, b in (size, kernel, stride, padding, dilation, out_size)]
    unfold: Any = unfold_lists
    unfold(pointers, pixel_channels, *pairs, starts, stops, indices, places)
    values = values[places]
    starts, stops = (rows.reshape(samples, groups, -1) for rows in (starts, stops))
    return [ActiveLists(starts[:, g].reshape(-1), stops[:, g].reshape(-1), indices, values) for g in range(groups)]


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
    bits = x.new_empty(matrix.shape[0], _words_per_row(matrix.shape[1]), dtype=torch.int64)
    active, done = _decide(matrix, bits, max_density)
    if done in (SPARSE_ONES, SPARSE_VALUES):
        geometry = (stride, padding, dilation)
        lists = _group_lists(matrix.numpy(), x.shape, bits, weight, geometry, groups, done == SPARSE_VALUES)
        y = x.new_empty(
            samples, weight.shape[0], *conv2d_out_size((height, width), weight.shape[2:], stride, padding, dilation)
        )
        per_group = weight.shape[0] // groups
        for g in range(groups):
            part = slice(g * per_group, (g + 1) * per_group)
            rows = _forward(lists[g], weight[part].reshape(per_group, -1), None if bias is None else bias[part])
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
    bits = x.new_empty(samples * channels, _words_per_row(height * width), dtype=torch.int64)
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
    entries = _entries(None if x is None else x.flatten(0, 1).flatten(1), grad)
    lists = _group_lists(entries, shape, bits, weight, (stride, padding, dilation), groups, done == SPARSE_VALUES)
    grad_weight = torch.empty_like(weight, memory_format=torch.contiguous_format)
    per_group = weight.shape[0] // groups
    for g in range(groups):
        part = slice(g * per_group, (g + 1) * per_group)
        rows = grad.detach()[:, part].permute(0, 2, 3, 1).reshape(-1, per_group)
        columns = _columns_of_lists(lists[g], weight[0].numel(), CHUNK_ROWS)
        grad_weight[part] = _weight_gradient(columns, rows).view_as(grad_weight[part])
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
