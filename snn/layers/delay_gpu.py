"""Triton kernels of delays between two whole steps. Imported on first use: importing Triton is slow.

As on the CPU a delay is a shift along a row: with the input transposed to [in, T * B], x[t - l] lies l * B places before
x[t]. A program owns a block of places of one output; there are no atomic additions, so results repeat bit for bit.
With TRITON_INTERPRET=1 set before this file is loaded the kernels run on CPU tensors, slowly, for tests.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch.autograd.function import once_differentiable

BLOCK = 256


# Triton's own tl.sum and tl.zeros are compiled functions that its interpreter cannot call once Triton has been imported
# without it.
@triton.jit
def _add(a, b):  # type: ignore[no-untyped-def]
    return a + b


@triton.jit
def weighted_shifts(rows, near, far, shift, out, row_count, inputs, step, direction: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """out[o, r] = sum_i near[o, i] rows[i, r + m] + far[o, i] rows[i, r + m'], m = direction shift[o, i] step.

    m' lies one step further in the same direction; rows are 0 outside [0, row_count).
    """
    o = tl.program_id(1)
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.full((BLOCK,), 0.0, out.dtype.element_ty)
    row = rows
    for i in range(inputs):
        synapse = o * inputs + i
        first = place + direction * tl.load(shift + synapse) * step
        second = first + direction * step
        x_first = tl.load(row + first, mask=(first >= 0) & (first < row_count), other=0.0)
        x_second = tl.load(row + second, mask=(second >= 0) & (second < row_count), other=0.0)
        row += row_count
        total += tl.load(near + synapse) * x_first + tl.load(far + synapse) * x_second
    tl.store(out + o.to(tl.int64) * row_count + place, total, mask=place < row_count)


@triton.jit
def shifted_products(rows, g, shift, near, far, row_count, inputs, step, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """near[o, i] = sum_r rows[i, r - shift[o, i] step] g[o, r], and far the same one step earlier."""
    i = tl.program_id(0)
    o = tl.program_id(1)
    synapse = o * inputs + i
    offset = tl.load(shift + synapse) * step
    row = rows + i.to(tl.int64) * row_count
    arriving = g + o.to(tl.int64) * row_count
    near_sum = tl.full((BLOCK,), 0.0, near.dtype.element_ty)
    far_sum = tl.full((BLOCK,), 0.0, near.dtype.element_ty)
    for low in range(0, row_count, BLOCK):
        place = low + tl.arange(0, BLOCK)
        inside = place < row_count
        g_place = tl.load(arriving + place, mask=inside, other=0.0)
        first = place - offset
        second = first - step
        near_sum += tl.load(row + first, mask=inside & (first >= 0), other=0.0) * g_place
        far_sum += tl.load(row + second, mask=inside & (second >= 0), other=0.0) * g_place
    tl.store(near + synapse, tl.reduce(near_sum, 0, _add))
    tl.store(far + synapse, tl.reduce(far_sum, 0, _add))


def _sums(x: torch.Tensor, near: torch.Tensor, far: torch.Tensor, shift: torch.Tensor, direction: int) -> torch.Tensor:
    """[T, B, outputs] of `weighted_shifts` on x [T, B, inputs]."""
    T, B, inputs = x.shape
    outputs = near.shape[0]
    rows = x.permute(2, 0, 1).contiguous()
    out = torch.empty((outputs, T, B), dtype=x.dtype, device=x.device)
    grid = (triton.cdiv(T * B, BLOCK), outputs)
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        weighted_shifts[grid](
            rows, near.contiguous(), far.contiguous(), shift.contiguous(), out, T * B, inputs, B, direction, BLOCK
        )
    return out.permute(1, 2, 0).contiguous()


class TwoTapOnGPU(torch.autograd.Function):
    """`snn.layers.delay_ops.TwoTap` on a CUDA device."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight, delay)
        whole = delay.detach().floor()
        rest = delay.detach() - whole
        return _sums(x.detach(), weight.detach() * (1 - rest), weight.detach() * rest, whole.int(), -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, delay = ctx.saved_tensors
        whole = delay.floor()
        rest = delay - whole
        shift = whole.int()
        g_x = g_weight = g_delay = None
        if ctx.needs_input_grad[0]:
            g_x = _sums(g, (weight * (1 - rest)).t(), (weight * rest).t(), shift.t(), 1)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            near, far = _products(x, g, shift)
            g_weight = near + rest * (far - near)
            g_delay = weight * (far - near)
        return g_x, g_weight, g_delay, None


def _products(x: torch.Tensor, g: torch.Tensor, shift: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    T, B, inputs = x.shape
    rows, arriving = (value.permute(2, 0, 1).contiguous() for value in (x, g))
    near, far = (torch.empty(shift.shape, dtype=x.dtype, device=x.device) for _ in (0, 1))
    with torch.cuda.device(x.device) if x.is_cuda else nullcontext():
        shifted_products[(inputs, shift.shape[0])](
            rows, arriving, shift.contiguous(), near, far, T * B, inputs, B, BLOCK
        )
    return near, far
