"""A barrier between the worker threads of a run, for meetings every few microseconds.

Threads spin for a moment and then offer their core to others at each look, so a busy machine slows the run down by the
share it takes and not by whole time slices, as the spinning barriers of OpenMP do.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array

from neuromorphic.engine.kernels.views import njit_views

CELLS = 32  # int64: arrivals at 0, generation at 16, on separate cache lines
_GENERATION = 16
_SPINS = 2000
_CAN_YIELD = sys.platform != "win32"


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    kind = signature.args[0]
    array = make_array(kind)(context, builder, arguments[0])
    return cgutils.get_item_pointer(context, builder, kind, array, [arguments[1]])


@intrinsic
def _atomic_add(typing_context: Any, array: Any, index: Any, value: Any) -> Any:
    """array[index] += value at once for all threads; returns the value before."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _pointer(context, builder, signature, arguments), arguments[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), generate


@intrinsic
def _atomic_load(typing_context: Any, array: Any, index: Any) -> Any:
    """array[index], never a value kept from an earlier look."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_pointer(context, builder, signature, arguments), "seq_cst", 8)

    return types.int64(array, types.int64), generate


@intrinsic
def _offer_core(typing_context: Any) -> Any:
    """sched_yield of POSIX; nothing elsewhere."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if _CAN_YIELD:
            kind = ir.FunctionType(ir.IntType(32), [])
            builder.call(cgutils.get_or_insert_function(builder.module, kind, "sched_yield"), [])
        return context.get_dummy_value()

    return types.void(), generate


@njit_views
def meet(cells, threads):  # type: ignore[no-untyped-def]
    """Wait until all threads have called; cells [CELLS] int64 starts as zeros and is shared by them."""
    if threads == 1:
        return
    generation = _atomic_load(cells, np.int64(_GENERATION))
    if _atomic_add(cells, np.int64(0), np.int64(1)) == threads - 1:
        _atomic_add(cells, np.int64(0), np.int64(-threads))
        _atomic_add(cells, np.int64(_GENERATION), np.int64(1))
        return
    looks = 0
    while _atomic_load(cells, np.int64(_GENERATION)) == generation:
        looks += 1
        if looks > _SPINS:
            _offer_core()
