"""The delayed sum with two taps on the CPU, and its event-driven form for whole delays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from snn.kernels import memory, threads

PIECE = 128  # inputs that lie in rows at once, a multiple of delay_taps.GROUP
PARTS = 4  # parts of the batch whose parameter gradients are summed apart, whatever the number of threads
EVENT_SHARE = 0.06  # non-zero inputs, counted over whole vectors, below which single events are faster


class _Chunks:
    """Samples side by side: pieces of the batch that fill one vector, and where a delay lies in their rows."""

    def __init__(self, x: torch.Tensor, max_delay: int) -> None:
        from snn.layers import delay_taps

        self.taps = delay_taps
        self.T, self.B = x.shape[:2]
        self.lanes = delay_taps.LANE_BYTES // x.element_size()
        self.weighted_shifts, self.shifted_products = delay_taps.KERNELS[self.lanes]
        self.count = -(-self.B // self.lanes)
        self.longest = min(max_delay, self.T)  # what is later than the last step adds nothing
        self.pad = self.longest + 1
        self.steps = self.T + self.pad
        self.name = str(x.dtype).removeprefix("torch.")

    def places(self, shift: np.ndarray) -> np.ndarray:
        """Start of each synapse's row [outputs, inputs, rounded up]: the row of its input in its piece, `shift` steps on."""
        inputs = np.arange(shift.shape[1]) % PIECE * self.steps
        return _widened((inputs + shift) * self.lanes, self.taps.GROUP)

    def sums(self, x: torch.Tensor, before: int, place: np.ndarray, near: np.ndarray, far: np.ndarray) -> torch.Tensor:
        """y [T, B, outputs] of `weighted_shifts` on x padded by `before` steps at its front, the others at its end."""
        outputs, given = place.shape[0], x.detach().contiguous().numpy()
        y = memory.empty((self.T, self.B, outputs), x.dtype)
        result, size, inputs = y.numpy(), self.T * self.lanes, x.shape[2]

        def work(k: int) -> None:
            row_values = PIECE * self.steps * self.lanes
            with memory.scratch(row_values + outputs * size, self.name) as scratch:
                rows, out = scratch[:row_values], scratch[row_values:]
                out[:] = 0
                for low in range(0, inputs, PIECE):
                    count = min(PIECE, inputs - low)
                    self.taps.pack(given, k * self.lanes, self.lanes, before, self.steps, low, count, rows)
                    part = slice(low, low + PIECE)
                    self.weighted_shifts(rows, place[:, part], near[:, part], far[:, part], out.reshape(outputs, size))
                self.taps.unpack(out, k * self.lanes, self.lanes, result)

        threads.run_each(work, self.count)
        return y

    def products(self, x: torch.Tensor, g: torch.Tensor, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """<x(t - l), g(t)> and <x(t - l - 1), g(t)> of each synapse, over time and batch."""
        given, arriving = x.detach().contiguous().numpy(), g.detach().contiguous().numpy()
        outputs, inputs = g.shape[2], x.shape[2]
        parts = min(PARTS, self.count)
        totals = np.zeros((parts, 2, outputs, inputs), given.dtype)
        size = self.T * self.lanes

        def work(part: int) -> None:
            row_values = PIECE * self.steps * self.lanes
            near, far = totals[part]
            with memory.scratch(row_values + outputs * size, self.name) as scratch:
                rows, arrived = scratch[:row_values], scratch[row_values:]
                for k in range(part, self.count, parts):
                    self.taps.pack(arriving, k * self.lanes, self.lanes, 0, self.T, 0, outputs, arrived)
                    g_rows = arrived.reshape(outputs, size)
                    for low in range(0, inputs, PIECE):
                        high = min(low + PIECE, inputs)
                        self.taps.pack(given, k * self.lanes, self.lanes, self.pad, self.steps, low, high - low, rows)
                        own = slice(low, high)
                        self.shifted_products(rows, place[:, own], g_rows, near[:, own], far[:, own])

        threads.run_each(work, parts)
        near, far = totals.sum(axis=0)
        return near, far


def _widened(values: np.ndarray, multiple: int) -> np.ndarray:
    """The last dimension rounded up to a multiple by repeating place 0 or adding weight 0."""
    missing = -values.shape[1] % multiple
    return np.ascontiguousarray(np.pad(values, ((0, 0), (0, missing))))


class TwoTap(torch.autograd.Function):
    """x [T, B, in], weight and delay [out, in] -> [T, B, out] by linear interpolation between whole delays, on the CPU."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int) -> torch.Tensor:
        ctx.save_for_backward(x, weight, delay)
        ctx.max_delay = max_delay
        chunks = _Chunks(x, max_delay)
        w, whole, rest = _split(weight, delay, chunks.longest)
        place = chunks.places(chunks.longest - whole)
        group = chunks.taps.GROUP
        return chunks.sums(x, chunks.pad, place, _widened(w * (1 - rest), group), _widened(w * rest, group))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, delay = ctx.saved_tensors
        chunks = _Chunks(x, ctx.max_delay)
        w, whole, rest = _split(weight, delay, chunks.longest)
        g_x = g_weight = g_delay = None
        if ctx.needs_input_grad[0]:
            group = chunks.taps.GROUP
            near, far = (_widened(np.ascontiguousarray(part.T), group) for part in (w * rest, w * (1 - rest)))
            g_x = chunks.sums(g, 0, chunks.places(whole.T), near, far)
        if ctx.needs_input_grad[1] or ctx.needs_input_grad[2]:
            near, far = chunks.products(x, g, chunks.places(chunks.longest - whole))
            g_weight = torch.from_numpy(near + rest * (far - near)).to(weight.dtype)
            g_delay = torch.from_numpy(w * (far - near)).to(delay.dtype)
        return g_x, g_weight, g_delay, None


def _split(weight: torch.Tensor, delay: torch.Tensor, longest: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights, whole parts (at most `longest`) and rests of the delays."""
    d = delay.detach().numpy()
    whole = np.floor(d)
    return weight.detach().numpy(), np.minimum(whole, longest).astype(np.int64), (d - whole).astype(d.dtype)


def whole_delays_forward(x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int) -> torch.Tensor:
    """The sum for whole delays on the CPU, without gradients: event by event where few inputs are not zero."""
    from snn.layers import delay_taps

    T, B, _ = x.shape
    lanes = delay_taps.LANE_BYTES // x.element_size()
    rows = -(-B // lanes) * lanes
    if int(torch.count_nonzero(x)) > EVENT_SHARE * x.numel() * rows / B:
        return TwoTap.apply(x, weight, delay, max_delay)
    outputs = weight.shape[0]
    place = (delay.t().long() * (B * outputs) + torch.arange(outputs)).contiguous().numpy()
    table = weight.detach().t().contiguous().numpy()
    given = x.detach().contiguous().numpy()
    y = torch.zeros(T + max_delay, B, outputs, dtype=x.dtype)
    flat = y.view(-1).numpy()
    share = -(-B // torch.get_num_threads())

    def work(k: int) -> None:
        delay_taps.scatter_events(given, table, place, k * share, min((k + 1) * share, B), flat)

    threads.run_each(work, -(-B // share))
    return y[:T]
