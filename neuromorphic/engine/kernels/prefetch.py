"""Asks for memory before it is needed."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from neuromorphic.engine.kernels.views import njit_views

STRIP = 16  # elements: a cache line of 4-byte numbers


@intrinsic
def _prefetch(typing_context: Any, array: Any, index: Any) -> Any:
    """Starts loading the cache line of array[index]; never faults."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kind = signature.args[0]
        view = make_array(kind)(context, builder, arguments[0])
        pointer = cgutils.get_item_pointer(context, builder, kind, view, [arguments[1]])
        byte = ir.IntType(8).as_pointer()
        word = ir.IntType(32)
        signature_ir = ir.FunctionType(ir.VoidType(), [byte, word, word, word])
        function = cgutils.get_or_insert_function(builder.module, signature_ir, "llvm.prefetch.p0i8")
        read, keep_in_second_level, data = word(0), word(2), word(1)
        builder.call(function, [builder.bitcast(pointer, byte), read, keep_in_second_level, data])
        return context.get_dummy_value()

    return types.void(array, types.int64), generate


@njit_views
def prefetch_strip(array, first):  # type: ignore[no-untyped-def]
    """Starts loading STRIP elements; ``first`` is a multiple of STRIP, and large arrays start on a cache line."""
    _prefetch(array, np.int64(first))
    if array.itemsize > 4:
        _prefetch(array, np.int64(first + STRIP // 2))


@njit_views
def prefetch_one(array, index):  # type: ignore[no-untyped-def]
    """Starts loading array[index]."""
    _prefetch(array, np.int64(index))
