"""Numba kernels that add up weight rows and gradient rows. Imported on first use: importing Numba is slow.

One operation carries both directions: *sum the rows of a table that a list names*. In the forward pass the table is
the transposed weight and the list the active inputs of a row; in the weight gradient the table is the output gradient
and the list the rows in which an input was active. The table is cut into blocks of 128 bytes per row, copied so that a
block is contiguous: all rows of a block then stay in the L2 cache, and the sum stays in vector registers.

Every sum has a fixed order that does not depend on how the work is split, so the thread count never changes a bit.
``sparse_reference.py`` holds the readable version of each kernel.
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic as typed_intrinsic

Array = np.ndarray[Any, Any]
intrinsic: Any = typed_intrinsic  # for mypy: its annotation expects the typing context in every call

VECTOR_BYTES = 64
VECTOR_COUNT = 2
BLOCK_BYTES = VECTOR_BYTES * VECTOR_COUNT  # measured: two vectors beat 1, 4 and 8 at 1024 and 4096 inputs
UNROLL = 2
_INT64 = ir.IntType(64)
_INT32 = ir.IntType(32)


def _constant(value: int) -> Any:
    return ir.Constant(_INT64, value)


def _data_pointer(context: Any, builder: Any, array_type: Any, array: Any, offset: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [offset])


def _require_contiguous(*arrays: Any) -> None:
    if any(not isinstance(array, types.Array) or array.layout != "C" for array in arrays):
        raise TypeError(f"block intrinsics need C-contiguous arrays, got {arrays}")


class _GatherBuilder:
    """Writes the LLVM loop of ``gather_sum``; its sums stay in vector registers during the whole list."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        out, out_offset, init, init_offset, table, indices, values, self.start, self.stop, _ = arguments
        kinds = signature.args
        self.builder = builder
        self.element_bytes = kinds[0].dtype.bitwidth // 8
        self.lanes = VECTOR_BYTES // self.element_bytes
        self.vector = ir.VectorType(context.get_value_type(kinds[0].dtype), self.lanes)
        pointers = [
            _data_pointer(context, builder, kinds[k], array, offset)
            for k, array, offset in ((0, out, out_offset), (2, init, init_offset), (4, table, _constant(0)))
        ]
        self.out, self.init, self.table = (builder.bitcast(p, self.vector.as_pointer()) for p in pointers)
        self.indices = _data_pointer(context, builder, kinds[5], indices, _constant(0))
        self.values = _data_pointer(context, builder, kinds[6], values, _constant(0))

    def load(self, vectors: Any, k: int) -> Any:
        return self.builder.load(self.builder.gep(vectors, [_constant(k)]), align=self.element_bytes)

    def broadcast(self, scalar: Any) -> Any:
        undefined = ir.Constant(self.vector, ir.Undefined)
        single = self.builder.insert_element(undefined, scalar, ir.Constant(_INT32, 0))
        lanes = ir.Constant(ir.VectorType(_INT32, self.lanes), [0] * self.lanes)
        return self.builder.shuffle_vector(single, undefined, lanes)

    def add_entry(self, sums: list[Any], place: Any, scaled: bool) -> list[Any]:
        b = self.builder
        row = b.sext(b.load(b.gep(self.indices, [place])), _INT64)
        vectors = b.gep(self.table, [b.mul(row, _constant(VECTOR_COUNT))])
        terms = [self.load(vectors, k) for k in range(VECTOR_COUNT)]
        if scaled:
            factor = self.broadcast(b.load(b.gep(self.values, [place])))
            terms = [b.fmul(factor, term) for term in terms]
        return [b.fadd(total, term) for total, term in zip(sums, terms, strict=True)]

    def loop(self, sums: list[Any], first: Any, last: Any, step: int, scaled: bool) -> list[Any]:
        b = self.builder
        before = b.block
        head, body, after = (b.append_basic_block(f"gather.{name}") for name in ("head", "body", "after"))
        b.branch(head)
        b.position_at_end(head)
        place = b.phi(_INT64)
        running = [b.phi(self.vector) for _ in sums]
        b.cbranch(b.icmp_signed("<", place, last), body, after)
        b.position_at_end(body)
        total = list(running)
        for k in range(step):
            total = self.add_entry(total, b.add(place, _constant(k)), scaled)
        following = b.add(place, _constant(step))
        b.branch(head)
        for phi, initial, next_value in zip([place, *running], [first, *sums], [following, *total], strict=True):
            phi.add_incoming(initial, before)
            phi.add_incoming(next_value, body)
        b.position_at_end(after)
        return running

    def whole_list(self, scaled: bool) -> None:
        b = self.builder
        sums = [self.load(self.init, k) for k in range(VECTOR_COUNT)]
        middle = b.add(self.start, b.and_(b.sub(self.stop, self.start), _constant(-UNROLL)))
        sums = self.loop(sums, self.start, middle, UNROLL, scaled)
        sums = self.loop(sums, middle, self.stop, 1, scaled)
        for k, total in enumerate(sums):
            b.store(total, b.gep(self.out, [_constant(k)]), align=self.element_bytes)


@intrinsic
def gather_sum(
    typing_context: Any,
    out: Any,
    out_offset: Any,
    init: Any,
    init_offset: Any,
    table: Any,
    indices: Any,
    values: Any,
    start: Any,
    stop: Any,
    scaled: Any,
) -> Any:
    """out[out_offset:+block] = init[init_offset:+block] + sum over k in [start, stop) of values[k] * table[indices[k]].

    Arrays are contiguous, offsets count elements from their start, a table row is one block. Without ``scaled`` the
    values are taken as one and not read.
    """
    _require_contiguous(out, init, table, indices, values)
    place = types.intp
    signature = types.void(out, place, init, place, table, indices, values, place, place, types.boolean)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        gather = _GatherBuilder(context, builder, signature, arguments)
        with builder.if_else(arguments[-1]) as (then, otherwise):
            with then:
                gather.whole_list(scaled=True)
            with otherwise:
                gather.whole_list(scaled=False)
        return context.get_dummy_value()

    return signature, codegen


@intrinsic
def copy_block(typing_context: Any, out: Any, out_offset: Any, source: Any, source_offset: Any) -> Any:
    """out[out_offset:+block] = source[source_offset:+block]; a plain loop is not vectorised, for its index checks."""
    _require_contiguous(out, source)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        size = signature.args[0].dtype.bitwidth // 8
        vector = ir.VectorType(context.get_value_type(signature.args[0].dtype), BLOCK_BYTES // size)
        target, origin = (
            builder.bitcast(
                _data_pointer(context, builder, signature.args[k], arguments[k], arguments[k + 1]), vector.as_pointer()
            )
            for k in (0, 2)
        )
        builder.store(builder.load(origin, align=size), target, align=size)
        return context.get_dummy_value()

    return types.void(out, types.intp, source, types.intp), codegen


@njit(cache=True, error_model="numpy", nogil=True)
def pack_transposed(weight: Array, first: int, used: int, packed: Array) -> None:  # pragma: no cover
    """packed[i, j] = weight[first + j, i] for j < used, and 0 beyond.

    Four weight rows at once: the rows of a power-of-two width share L1 cache sets, and more would evict one another.
    """
    block = packed.shape[1]
    for j in range(0, used - used % 4, 4):
        row_0, row_1, row_2, row_3 = (
            weight[first + j],
            weight[first + j + 1],
            weight[first + j + 2],
            weight[first + j + 3],
        )
        for i in range(packed.shape[0]):
            packed[i, j] = row_0[i]
            packed[i, j + 1] = row_1[i]
            packed[i, j + 2] = row_2[i]
            packed[i, j + 3] = row_3[i]
    for j in range(used - used % 4, block):
        for i in range(packed.shape[0]):
            packed[i, j] = weight[first + j, i] if j < used else 0


@njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def forward_rows(
    starts: Array,
    stops: Array,
    indices: Array,
    values: Array,
    scaled: bool,
    weight: Array,
    bias: Array,
    y: Array,
    tables: Array,
    tails: Array,
    row_splits: int,
) -> None:  # pragma: no cover
    """y[r] = bias + sum over k in [starts[r], stops[r]) of values[k] * weight[:, indices[k]].

    bias is padded to whole blocks. Work space: tables [threads, inputs, block], tails [threads, block].
    """
    out_count = weight.shape[0]
    row_count = starts.shape[0]
    thread_count, _, block = tables.shape
    block_count = bias.shape[0] // block
    for t in prange(thread_count):
        packed = tables[t]
        tail = tails[t]
        for task in range(t, block_count * row_splits, thread_count):
            split = task // block_count
            first = (task % block_count) * block
            used = min(block, out_count - first)
            pack_transposed(weight, first, used, packed)
            for r in range(split * row_count // row_splits, (split + 1) * row_count // row_splits):
                if used == block:
                    place = r * out_count + first
                    gather_sum(y, place, bias, first, packed, indices, values, starts[r], stops[r], scaled)
                else:
                    gather_sum(tail, 0, bias, first, packed, indices, values, starts[r], stops[r], scaled)
                    row = y[r]
                    for j in range(used):
                        row[first + j] = tail[j]


@njit(cache=True, error_model="numpy", nogil=True)
def pack_rows(grad: Array, row_first: int, row_last: int, first: int, last: int, packed: Array) -> None:
    """packed[b, r, j] = grad[row_first + r, first + b * block + j], and 0 beyond column last."""  # pragma: no cover
    out_count = grad.shape[1]
    chunk_rows, block = packed.shape[1:]
    for r in range(row_last - row_first):
        for b in range((last - first + block - 1) // block):
            column = first + b * block
            if column + block <= last:
                copy_block(packed, (b * chunk_rows + r) * block, grad, (row_first + r) * out_count + column)
            else:
                for j in range(block):
                    packed[b, r, j] = grad[row_first + r, column + j] if column + j < last else 0


@njit(cache=True, error_model="numpy", nogil=True, parallel=True)
def weight_gradient(
    pointers: Array,
    rows: Array,
    values: Array,
    scaled: bool,
    grad: Array,
    grad_weight: Array,
    tables: Array,
    sums: Array,
    in_splits: int,
) -> None:  # pragma: no cover
    """grad_weight[:, i] = sum of values[k] * grad[row of k] over the lists of column i in all chunks, in row order.

    Lists as made by ``lists_by_column``. Work space: tables [threads, span, chunk_rows, block], sums [threads, span,
    inputs, block]; a thread takes ``span`` blocks of neighbouring columns together, so that it reads whole cache lines
    of each gradient row in one go.
    """
    row_count, out_count = grad.shape
    in_count = grad_weight.shape[1]
    thread_count, span, chunk_rows, block = tables.shape
    span_count = (out_count + span * block - 1) // (span * block)
    for t in prange(thread_count):
        packed = tables[t]
        for task in range(t, span_count * in_splits, thread_count):
            split = task // span_count
            in_first = split * in_count // in_splits
            in_last = (split + 1) * in_count // in_splits
            first = (task % span_count) * span * block
            last = min(first + span * block, out_count)
            blocks = (last - first + block - 1) // block
            for b in range(blocks):
                sums[t, b, in_first:in_last] = 0
            for c in range(pointers.shape[0]):
                ends = pointers[c]
                pack_rows(grad, c * chunk_rows, min((c + 1) * chunk_rows, row_count), first, last, packed)
                for b in range(blocks):
                    table = packed[b]
                    total = sums[t, b]
                    for i in range(in_first, in_last):
                        place = i * block
                        gather_sum(total, place, total, place, table, rows, values, ends[i], ends[i + 1], scaled)
            for column in range(first, last):
                total = sums[t, (column - first) // block]
                j = (column - first) % block
                target = grad_weight[column]
                for i in range(in_first, in_last):
                    target[i] = total[i, j]
