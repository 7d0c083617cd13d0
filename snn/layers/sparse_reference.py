"""Readable versions of the spike-sparse kernels: plain loops over lists, the truth for the kernels."""

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pack_bits_reference(x: Array) -> tuple[Array, Array]:
    """Bits [rows, words + 1], their number in the last word, and the number of entries neither 0 nor 1 of each row."""
    bits = np.zeros((x.shape[0], -(-x.shape[1] // 64) + 1), np.uint64)
    for r, i in zip(*np.nonzero(x), strict=True):
        bits[r, i // 64] |= np.uint64(1) << np.uint64(i % 64)
    bits[:, -1] = (x != 0).sum(1)
    return bits, ((x != 0) & (x != 1)).sum(1)


def expand_bits_reference(bits: Array) -> list[list[int]]:
    """The places of the ones of each row; its last word is no mask."""
    return [[64 * k + b for k, word in enumerate(row[:-1]) for b in range(64) if int(word) >> b & 1] for row in bits]


def lists_by_column_reference(lists: list[list[int]], columns: int, chunk_rows: int) -> list[list[list[int]]]:
    """For each chunk of rows and each column: the rows, numbered within the chunk, whose list holds the column."""
    chunks = [lists[first : first + chunk_rows] for first in range(0, len(lists), chunk_rows)]
    return [[[r for r, row in enumerate(chunk) if i in row] for i in range(columns)] for chunk in chunks]


def unfold_lists_reference(
    active: Array,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
) -> list[list[int]]:
    """For each output pixel of active [samples, channels, height, width] the numbers of its active taps.

    They are ordered by kernel row, kernel column, channel.
    """
    samples, channels, *size = active.shape
    out_size = [(size[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)]
    lists = []
    for s, oy, ox in np.ndindex(samples, out_size[0], out_size[1]):
        taps = []
        for ky, kx, channel in np.ndindex(kernel[0], kernel[1], channels):
            y = oy * stride[0] - padding[0] + ky * dilation[0]
            x = ox * stride[1] - padding[1] + kx * dilation[1]
            if 0 <= y < size[0] and 0 <= x < size[1] and active[s, channel, y, x]:
                taps.append((channel * kernel[0] + ky) * kernel[1] + kx)
        lists.append(taps)
    return lists


def gather_sum_reference(init: Array, table: Array, indices: list[int], values: list[float]) -> Array:
    """init plus the named rows of the table, each times its value, one after the other."""
    total = init.copy()
    for index, value in zip(indices, values, strict=True):
        total += total.dtype.type(value) * table[index]
    return total


def forward_rows_reference(lists: list[list[int]], values: list[list[float]], weight: Array, bias: Array) -> Array:
    """y[r] = bias + sum of values[r][k] * weight[:, lists[r][k]]."""
    rows = [gather_sum_reference(bias, weight.T, indices, row) for indices, row in zip(lists, values, strict=True)]
    return np.array(rows, weight.dtype).reshape(len(lists), weight.shape[0])


def weight_gradient_reference(lists: list[list[int]], values: list[list[float]], grad: Array, in_count: int) -> Array:
    """grad_weight[:, i] = sum of values[r][k] * grad[r] over all r and k with lists[r][k] = i, in row order."""
    grad_weight = np.zeros((grad.shape[1], in_count), grad.dtype)
    for row, (indices, row_values) in enumerate(zip(lists, values, strict=True)):
        for index, value in zip(indices, row_values, strict=True):
            grad_weight[:, index] += grad.dtype.type(value) * grad[row]
    return grad_weight
