"""What the sparse operators do: count, decide, list what is active, and add up rows by these lists."""

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


def active_lists(matrix: Tensor, bits: Tensor, with_values: bool) -> ActiveLists:
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


def columns_of_matrix(matrix: Array, columns: int, bits: Tensor, with_values: bool, chunk_rows: int) -> ColumnLists:
    """`matrix` is read where its entries are wanted; the bits have the rest."""
    from snn.layers.sparse_lists import lists_from_bits

    bounds = _row_bounds(bits)
    pointers = np.empty((-(-bits.shape[0] // chunk_rows), columns + 1), np.int64)
    rows = np.empty(bounds[-1], np.int32)
    values = np.empty(bounds[-1] if with_values else 0, matrix.dtype)
    lists_from_bits(matrix, _words(bits), bounds[:-1:chunk_rows], chunk_rows, pointers, rows, values)
    return ColumnLists(pointers, rows, values)


def columns_of_lists(lists: ActiveLists, columns: int, chunk_rows: int) -> ColumnLists:
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


def row_sums(lists: ActiveLists, weight: Tensor, bias: Tensor | None) -> Tensor:
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


def weight_gradient_of(lists: ColumnLists, grad: Tensor) -> Tensor:
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


def decide(matrix: Tensor, bits: Tensor, max_density: float) -> tuple[int, int]:
    """(number of non-zero entries or -1, what to do)."""
    if max_density <= 0 or matrix.numel() == 0:
        bits.zero_()
        return -1, DENSE_SHAPE
    active, valued = _count_active(matrix, bits)
    if active > max_density * matrix.numel():
        return active, DENSE_DENSITY
    return active, SPARSE_VALUES if valued else SPARSE_ONES


def words_per_row(columns: int) -> int:
    """One bit for each column, and a word for the number of ones."""
    return (columns + 63) // 64 + 1


def entries_of(matrix: Tensor | None, like: Tensor) -> Array:
    """The entries of a matrix, or none where the bits say it all."""
    return (like.new_empty(0, 0) if matrix is None else matrix).detach().contiguous().numpy()


def conv2d_out_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> list[int]:
    """Height and width of the output of a convolution."""
    return [(size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)]


def group_lists(
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
    pointers, pixel_channels, values = columns_of_matrix(entries, pixels, bits, with_values, channels // groups)
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
