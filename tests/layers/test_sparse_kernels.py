"""Each Numba kernel of the spike-sparse layers against its readable reference."""

import numpy as np
import pytest

from snn.layers import sparse_lists, sparse_reference, sparse_sums

DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
WIDTHS = pytest.mark.parametrize("columns", [1, 63, 64, 65, 200])


def matrix(rows, columns, dtype=np.float64, density=0.1, graded=False, seed=0):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=(rows, columns)) if graded else np.ones((rows, columns))
    return (values * (generator.random((rows, columns)) < density)).astype(dtype)


def flat_lists(lists):
    """(starts, stops, indices) of lists of integers."""
    bounds = np.cumsum([0, *map(len, lists)]).astype(np.int64)
    return bounds[:-1], bounds[1:], np.array([i for row in lists for i in row], np.int32)


def nonzero_lists(x):
    return [np.flatnonzero(row).tolist() for row in x]


@DTYPES
@WIDTHS
def test_pack_bits(dtype, columns):
    x = matrix(20, columns, dtype, graded=True)
    x[::2] = x[::2] != 0
    x[5, -1], x[6, 0] = np.nan, -0.0
    bits = np.full((20, -(-columns // 64) + 1), 2**64 - 1, np.uint64)
    others = np.full(20, -1)
    sparse_lists.pack_bits(x, bits, others)
    expected_bits, expected_others = sparse_reference.pack_bits_reference(x)
    assert np.array_equal(bits, expected_bits)
    assert np.array_equal(others, expected_others)


@WIDTHS
def test_expand_bits(columns):
    x = matrix(20, columns)
    bits, _ = sparse_reference.pack_bits_reference(x)
    starts, _, expected = flat_lists(sparse_reference.expand_bits_reference(bits))
    assert np.array_equal(expected, np.nonzero(x)[1])
    indices = np.full(expected.shape, -1, np.int32)
    sparse_lists.expand_bits(bits, starts, indices)
    assert np.array_equal(indices, expected)


@pytest.mark.parametrize("chunk_rows", [1, 7, 50])
def test_lists_by_column(chunk_rows):
    x = matrix(33, 20)
    lists = nonzero_lists(x)
    starts, stops, indices = flat_lists(lists)
    chunks = -(-33 // chunk_rows)
    pointers = np.full((chunks, 21), -1)
    rows, entries = np.full(indices.shape, -1, np.int32), np.full(indices.shape, -1)
    offsets = starts[::chunk_rows]
    sparse_lists.lists_by_column(starts, stops, indices, offsets, chunk_rows, pointers, rows, entries)
    got = [[rows[p[i] : p[i + 1]].tolist() for i in range(20)] for p in pointers]
    assert got == sparse_reference.lists_by_column_reference(lists, 20, chunk_rows)
    by_entry = [
        (c * chunk_rows + rows[k], i) for c, p in enumerate(pointers) for i in range(20) for k in range(p[i], p[i + 1])
    ]
    assert [np.searchsorted(stops, entry, side="right") for entry in entries] == [row for row, _ in by_entry]
    assert indices[entries].tolist() == [i for _, i in by_entry]


@DTYPES
@WIDTHS
@pytest.mark.parametrize("chunk_rows", [1, 7, 50])
def test_lists_from_bits(dtype, columns, chunk_rows):
    x = matrix(33, columns, dtype, graded=True)
    bits, _ = sparse_reference.pack_bits_reference(x)
    lists = sparse_reference.expand_bits_reference(bits)
    starts, _, indices = flat_lists(lists)
    pointers = np.full((-(-33 // chunk_rows), columns + 1), -1)
    rows, values = np.full(indices.shape, -1, np.int32), np.full(indices.shape, np.nan, dtype)
    sparse_lists.lists_from_bits(x, bits, starts[::chunk_rows], chunk_rows, pointers, rows, values)
    got = [[rows[p[i] : p[i + 1]].tolist() for i in range(columns)] for p in pointers]
    assert got == sparse_reference.lists_by_column_reference(lists, columns, chunk_rows)
    chunks = [x[first : first + chunk_rows].T for first in range(0, 33, chunk_rows)]
    assert np.array_equal(values, np.concatenate([chunk[chunk != 0] for chunk in chunks]))


@pytest.mark.parametrize("geometry", [((3, 3), (1, 1), (1, 1), (1, 1)), ((2, 3), (2, 1), (0, 2), (1, 2))])
def test_unfold_lists(geometry):
    kernel, stride, padding, dilation = geometry
    samples, channels, height, width = 2, 3, 6, 5
    active = matrix(samples * channels, height * width, density=0.3)
    by_pixel = sparse_reference.lists_by_column_reference(nonzero_lists(active), height * width, channels)
    starts, stops, pixel_channels = flat_lists([pixel for sample in by_pixel for pixel in sample])
    pointers = np.stack([np.append(starts, stops[-1])[s * 30 : s * 30 + 31] for s in range(samples)])
    expected = sparse_reference.unfold_lists_reference(
        active.reshape(samples, channels, height, width), kernel, stride, padding, dilation
    )
    out_size = tuple(
        ((height, width)[d] + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1) // stride[d] + 1 for d in (0, 1)
    )
    assert len(expected) == samples * out_size[0] * out_size[1]
    starts, stops = np.full((2, len(expected)), -1)
    indices = np.full(kernel[0] * kernel[1] * pixel_channels.size, -1, np.int32)
    entries = np.full(indices.shape, -1)
    sparse_lists.unfold_lists(
        pointers, pixel_channels, (height, width), kernel, stride, padding, dilation, out_size,
        starts, stops, indices, entries,
    )  # fmt: skip
    assert [indices[a:b].tolist() for a, b in zip(starts, stops, strict=True)] == expected
    assert all(
        (pixel_channels[entries[a:b]] == indices[a:b] // (kernel[0] * kernel[1])).all()
        for a, b in zip(starts, stops, strict=True)
    )


@DTYPES
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("out_count", [5, 32, 100])
def test_forward_rows(dtype, graded, out_count):
    x = matrix(40, 70, dtype, graded=graded)
    lists = nonzero_lists(x)
    generator = np.random.default_rng(1)
    weight = generator.normal(size=(out_count, 70)).astype(dtype)
    bias = generator.normal(size=out_count).astype(dtype)
    values = [row[row != 0].tolist() for row in x]
    expected = sparse_reference.forward_rows_reference(lists, values, weight, bias)
    np.testing.assert_allclose(expected, x @ weight.T + bias, rtol=1e-4, atol=1e-4)
    block = sparse_sums.BLOCK_BYTES // np.dtype(dtype).itemsize
    blocks = -(-out_count // block)
    for threads, row_splits in ((1, 1), (3, 2)):
        y = np.full((40, out_count), np.nan, dtype)
        sparse_sums.forward_rows(
            *flat_lists(lists),
            x[x != 0] if graded else np.empty(0, dtype),
            graded,
            weight,
            np.pad(bias, (0, blocks * block - out_count)),
            y,
            np.full((threads, 70, block), np.nan, dtype),
            np.full((threads, block), np.nan, dtype),
            row_splits,
        )
        assert np.array_equal(y, expected)  # the same order of additions


@DTYPES
@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("out_count", [5, 32, 100])
def test_weight_gradient(dtype, graded, out_count):
    x = matrix(40, 70, dtype, graded=graded)
    grad = np.random.default_rng(1).normal(size=(40, out_count)).astype(dtype)
    values = [row[row != 0].tolist() for row in x]
    expected = sparse_reference.weight_gradient_reference(nonzero_lists(x), values, grad, 70)
    np.testing.assert_allclose(expected, grad.T @ x, rtol=1e-4, atol=1e-4)
    chunk_rows = 16
    columns = sparse_reference.lists_by_column_reference(nonzero_lists(x), 70, chunk_rows)
    starts, stops, rows = flat_lists([column for chunk in columns for column in chunk])
    bounds = np.append(starts, stops[-1])
    pointers = np.stack([bounds[c * 70 : c * 70 + 71] for c in range(len(columns))])
    in_order = [
        x[c * chunk_rows + r, i] for c, chunk in enumerate(columns) for i, column in enumerate(chunk) for r in column
    ]
    block = sparse_sums.BLOCK_BYTES // np.dtype(dtype).itemsize
    for threads, span, in_splits in ((1, 1, 1), (3, 2, 4)):
        grad_weight = np.full((out_count, 70), np.nan, dtype)
        sparse_sums.weight_gradient(
            pointers,
            rows,
            np.array(in_order if graded else [], dtype),
            graded,
            grad,
            grad_weight,
            np.full((threads, span, chunk_rows, block), np.nan, dtype),
            np.full((threads, span, 70, block), np.nan, dtype),
            in_splits,
        )
        assert np.array_equal(grad_weight, expected)  # the same order of additions
