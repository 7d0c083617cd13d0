"""Numba kernels that list the active inputs. Imported on first use: importing Numba is slow.

The input is read once and reduced to one bit per entry. From the bits come the active columns of each row, from those
the active rows of each column (weight gradient) or the active taps of each output pixel (convolution). Everything is
ordered by position and independent of the thread count. ``sparse_reference.py`` holds the readable versions.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic as typed_intrinsic

Array = np.ndarray[Any, Any]
intrinsic: Any = typed_intrinsic  # for mypy: its annotation expects the typing context in every call

WORD_BITS = 64


@intrinsic
def nonzero_word(typing_context: Any, array: Any, offset: Any) -> Any:
    """(mask of the entries that are not 0, mask of those that are neither 0 nor 1) of 64 entries from ``offset`` on."""
    if not isinstance(array, types.Array) or array.layout != "C":
        raise TypeError(f"nonzero_word needs a C-contiguous array, got {array}")

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        vector = ir.VectorType(context.get_value_type(kind.dtype), WORD_BITS)
        data = context.make_array(kind)(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), vector.as_pointer())
        entries = builder.load(pointer, align=kind.dtype.bitwidth // 8)
        not_zero, not_one = (
            builder.bitcast(
                builder.fcmp_unordered("!=", entries, ir.Constant(vector, [value] * WORD_BITS)), ir.IntType(WORD_BITS)
            )
            for value in (0.0, 1.0)
        )
        return context.make_tuple(builder, signature.return_type, [not_zero, builder.and_(not_zero, not_one)])

    return types.UniTuple(types.uint64, 2)(array, types.intp), codegen


@intrinsic
def bit_count(typing_context: Any, word: Any) -> Any:
    """Number of ones in a 64-bit word."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.int64(types.uint64), codegen


@intrinsic
def lowest_bit(typing_context: Any, word: Any) -> Any:
    """Place of the lowest one of a 64-bit word; undefined for 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), codegen


@njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def pack_bits(x: Array, bits: Array, others: Array) -> None:  # pragma: no cover
    """bits[r, k]: mask of x[r, 64 k:64 k + 64] != 0; bits[r, -1]: number of its ones; others[r]: entries not 0 or 1."""
    width = x.shape[1]
    for r in prange(x.shape[0]):
        words = bits[r]
        active = 0
        other = 0
        for k in range(width // 64):
            mask, unusual = nonzero_word(x, r * width + 64 * k)
            words[k] = mask
            active += bit_count(mask)
            other += bit_count(unusual)
        if width % 64:
            mask = np.uint64(0)
            row = x[r]
            for i in range(width - width % 64, width):
                if row[i] != 0:
                    mask |= np.uint64(1) << np.uint64(i % 64)
                    other += row[i] != 1
            words[width // 64] = mask
            active += bit_count(mask)
        words[words.shape[0] - 1] = active
        others[r] = other


@njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def expand_bits(bits: Array, starts: Array, indices: Array) -> None:  # pragma: no cover
    """Write the places of the ones of row r to indices[starts[r]:], rising. The last word of a row is no mask."""
    for r in prange(bits.shape[0]):
        words = bits[r]
        place = starts[r]
        for k in range(words.shape[0] - 1):
            mask = words[k]
            while mask != np.uint64(0):
                indices[place] = 64 * k + lowest_bit(mask)
                place += 1
                mask &= mask - np.uint64(1)


@njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def lists_by_column(
    starts: Array,
    stops: Array,
    indices: Array,
    offsets: Array,
    chunk_rows: int,
    pointers: Array,
    rows: Array,
    entries: Array,
) -> None:  # pragma: no cover
    """Turn lists of columns per row into lists of rows per column, one set for each chunk of rows.

    Column i of chunk c holds rows[pointers[c, i]:pointers[c, i + 1]], numbered within the chunk and rising. entries, if
    not empty, receives the place in ``indices`` that each one came from. offsets[c]: number of entries before chunk c.
    """
    with_entries = entries.shape[0] > 0
    for c in prange(pointers.shape[0]):
        ends = pointers[c]
        ends[:] = 0
        first = c * chunk_rows
        last = min(first + chunk_rows, starts.shape[0])
        for r in range(first, last):
            for k in range(starts[r], stops[r]):
                ends[indices[k] + 1] += 1
        running = offsets[c]
        ends[0] = running
        for i in range(1, ends.shape[0]):
            count = ends[i]
            ends[i] = running
            running += count
        for r in range(first, last):
            for k in range(starts[r], stops[r]):
                place = ends[indices[k] + 1]
                ends[indices[k] + 1] = place + 1
                rows[place] = r - first
                if with_entries:
                    entries[place] = k


@njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def lists_from_bits(
    x: Array, bits: Array, offsets: Array, chunk_rows: int, pointers: Array, rows: Array, values: Array
) -> None:  # pragma: no cover
    """``lists_by_column`` straight from the bits of x; values, if not empty, receives the entries of x."""
    with_values = values.shape[0] > 0
    for c in prange(pointers.shape[0]):
        ends = pointers[c]
        ends[:] = 0
        first = c * chunk_rows
        last = min(first + chunk_rows, bits.shape[0])
        for r in range(first, last):
            words = bits[r]
            for k in range(words.shape[0] - 1):
                mask = words[k]
                while mask != np.uint64(0):
                    ends[64 * k + lowest_bit(mask) + 1] += 1
                    mask &= mask - np.uint64(1)
        running = offsets[c]
        ends[0] = running
        for i in range(1, ends.shape[0]):
            count = ends[i]
            ends[i] = running
            running += count
        for r in range(first, last):
            words = bits[r]
            for k in range(words.shape[0] - 1):
                mask = words[k]
                while mask != np.uint64(0):
                    i = 64 * k + lowest_bit(mask)
                    place = ends[i + 1]
                    ends[i + 1] = place + 1
                    rows[place] = r - first
                    if with_values:
                        values[place] = x[r, i]
                    mask &= mask - np.uint64(1)


@njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def unfold_lists(
    pointers: Array,
    channels: Array,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int],
    dilation: tuple[int, int],
    out_size: tuple[int, int],
    starts: Array,
    stops: Array,
    indices: Array,
    entries: Array,
) -> None:  # pragma: no cover
    """Lists of the active taps of each output pixel, from the active channels of each input pixel.

    Pixel p of sample s holds channels[pointers[s, p]:pointers[s, p + 1]]. Tap (channel, ky, kx) has the number
    (channel * kernel height + ky) * kernel width + kx, its column in the weight seen as a matrix. Sample s writes from
    place (taps * entries before s) on, which leaves gaps where a tap falls outside.
    """
    height, width = size
    taps = kernel[0] * kernel[1]
    pixels = out_size[0] * out_size[1]
    with_entries = entries.shape[0] > 0
    for s in prange(pointers.shape[0]):
        ends = pointers[s]
        place = taps * ends[0]
        for oy in range(out_size[0]):
            for ox in range(out_size[1]):
                row = s * pixels + oy * out_size[1] + ox
                starts[row] = place
                for ky in range(kernel[0]):
                    y = oy * stride[0] - padding[0] + ky * dilation[0]
                    if y < 0 or y >= height:
                        continue
                    for kx in range(kernel[1]):
                        x = ox * stride[1] - padding[1] + kx * dilation[1]
                        if x < 0 or x >= width:
                            continue
                        pixel = y * width + x
                        for k in range(ends[pixel], ends[pixel + 1]):
                            indices[place] = channels[k] * taps + ky * kernel[1] + kx
                            if with_entries:
                                entries[place] = k
                            place += 1
                stops[row] = place
