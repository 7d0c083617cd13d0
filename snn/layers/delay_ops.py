"""Autograd functions of the delayed sums: two taps on the CPU, and any kernel as products at a few frequencies."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from snn.kernels import memory, threads
from snn.layers.delay_reference import NORM_FLOOR

PARTS = 8  # parts of the batch whose parameter gradients are summed apart, whatever the number of threads
SEGMENT = 104  # steps whose sums are made at once; longer sequences are cut
INPUT_BLOCK = 64  # inputs whose kernels over time exist at once
EVENT_SHARE = 0.06  # non-zero inputs, counted over whole vectors, below which single events are faster


def _in_parallel(work: Any, count: int) -> None:
    """Calls work(k) for k < count on torch's threads."""

    def run(pieces: Iterable[tuple[int, int]]) -> None:
        for k, _ in pieces:
            work(k)

    threads.run(run, [(k, k + 1) for k in range(count)], torch.get_num_threads())


class _Chunks:
    """Samples side by side: pieces of the batch that fill one vector, and where a delay lies in their rows."""

    def __init__(self, x: torch.Tensor, max_delay: int) -> None:
        from snn.layers import delay_taps

        self.taps = delay_taps
        self.T, self.B = x.shape[:2]
        self.lanes = delay_taps.LANE_BYTES // x.element_size()
        self.count = -(-self.B // self.lanes)
        self.longest = min(max_delay, self.T)  # what is later than the last step adds nothing
        self.pad = self.longest + 1
        self.steps = self.T + self.pad
        self.name = str(x.dtype).removeprefix("torch.")

    def places(self, shift: np.ndarray) -> np.ndarray:
        """Start of each synapse's row [outputs, inputs, rounded up]: the row of its input, `shift` steps on."""
        inputs = np.arange(shift.shape[1]) * self.steps
        return _widened((inputs + shift) * self.lanes, self.taps.GROUP)

    def sums(self, x: torch.Tensor, before: int, place: np.ndarray, near: np.ndarray, far: np.ndarray) -> torch.Tensor:
        """y [T, B, outputs] of `weighted_shifts` on x padded by `before` steps at its front, the others at its end."""
        outputs, given = place.shape[0], x.detach().contiguous().numpy()
        y = memory.empty((self.T, self.B, outputs), x.dtype)
        result, size = y.numpy(), self.T * self.lanes

        def work(k: int) -> None:
            row_values = given.shape[2] * self.steps * self.lanes
            with memory.scratch(row_values + outputs * size, self.name) as scratch:
                rows, out = scratch[:row_values], scratch[row_values:]
                self.taps.pack(given, k * self.lanes, self.lanes, before, self.steps, rows)
                self.taps.weighted_shifts(rows, place, near, far, self.lanes, out.reshape(outputs, size))
                self.taps.unpack(out, k * self.lanes, self.lanes, result)

        _in_parallel(work, self.count)
        return y

    def products(self, x: torch.Tensor, g: torch.Tensor, place: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """<x(t - l), g(t)> and <x(t - l - 1), g(t)> of each synapse, over time and batch."""
        given, arriving = x.detach().contiguous().numpy(), g.detach().contiguous().numpy()
        outputs, inputs = g.shape[2], x.shape[2]
        parts = min(PARTS, self.count)
        totals = np.zeros((parts, 2, outputs, inputs), given.dtype)
        size = self.T * self.lanes

        def work(part: int) -> None:
            row_values = inputs * self.steps * self.lanes
            with memory.scratch(row_values + outputs * size, self.name) as scratch:
                rows, arrived = scratch[:row_values], scratch[row_values:]
                for k in range(part, self.count, parts):
                    self.taps.pack(given, k * self.lanes, self.lanes, self.pad, self.steps, rows)
                    self.taps.pack(arriving, k * self.lanes, self.lanes, 0, self.T, arrived)
                    near, far = totals[part]
                    self.taps.shifted_products(
                        rows, place[:, :inputs], arrived.reshape(outputs, size), self.lanes, near, far
                    )

        _in_parallel(work, parts)
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

    _in_parallel(work, -(-B // share))
    return y[:T]


@functools.lru_cache(maxsize=16)
def _transforms(outputs: int, taps: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Matrices that turn a sum over taps into products at single frequencies, three real ones per frequency.

    With N = outputs + taps - 1:  sum_n k[n] x[t - n]  =  synthesis @ ((analysis @ x) * (spectrum @ k))  for the last
    `outputs` steps of a window x of N steps: the discrete Fourier transform, with the complex product
    (a + ib)(c + id) made of ac, bd and (a + b)(c + d).
    """
    length = outputs + taps - 1
    frequency = torch.arange(length // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi / length
    cos = torch.cos(angle * frequency[:, None] * torch.arange(length))
    sin = torch.sin(angle * frequency[:, None] * torch.arange(length))
    analysis = torch.cat([cos, -sin, cos - sin])
    inverse = torch.full((len(frequency), 1), 2.0 / length, dtype=torch.float64)
    inverse[0] = 1.0 / length
    if length % 2 == 0:
        inverse[-1] = 1.0 / length
    real, imaginary = (inverse * part[:, taps - 1 :] for part in (cos, -sin))
    synthesis = torch.cat([real - imaginary, -real - imaginary, imaginary]).t()
    return tuple(part.to(dtype).to(device).contiguous() for part in (analysis, analysis[:, :taps], synthesis))


class _Windows:
    """A sequence [T, B, N] in segments of at most SEGMENT outputs, each with the max_delay steps before it."""

    def __init__(self, x: torch.Tensor, max_delay: int) -> None:
        self.T = len(x)
        self.taps = max_delay + 1
        segments = -(-self.T // SEGMENT)
        self.outputs = -(-self.T // segments)
        self.starts = range(0, self.T, self.outputs)
        self.analysis, self.spectrum, self.synthesis = _transforms(self.outputs, self.taps, x.dtype, x.device)

    def inputs(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """Transform [3 F, B, N] of the window whose outputs begin at `start`."""
        first, last = max(0, start - self.taps + 1), min(start + self.outputs, self.T)
        columns = slice(first - start + self.taps - 1, last - start + self.taps - 1)
        return (self.analysis[:, columns] @ x[first:last].flatten(1)).unflatten(1, x.shape[1:])

    def add_input_gradient(self, g: torch.Tensor, start: int, total: torch.Tensor) -> None:
        """The transpose of `inputs`, added to total [T, B, N]."""
        first, last = max(0, start - self.taps + 1), min(start + self.outputs, self.T)
        columns = slice(first - start + self.taps - 1, last - start + self.taps - 1)
        total[first:last] += (self.analysis[:, columns].t() @ g.flatten(1)).unflatten(1, g.shape[1:])

    def output(self, products: torch.Tensor, start: int, y: torch.Tensor) -> None:
        """Writes the outputs of a window to y [T, B, out]."""
        count = min(self.outputs, self.T - start)
        y[start : start + count] = (self.synthesis[:count] @ products.flatten(1)).unflatten(1, products.shape[1:])

    def output_gradient(self, g: torch.Tensor, start: int) -> torch.Tensor:
        """The transpose of `output`, [3 F, B, out]."""
        count = min(self.outputs, self.T - start)
        part = g[start : start + count]
        return (self.synthesis[:count].t() @ part.flatten(1)).unflatten(1, part.shape[1:])


class Gaussian(torch.autograd.Function):
    """x [T, B, in], weight and delay [out, in] -> [T, B, out] with Gaussian taps of width sigma, on any device.

    The kernels over time of INPUT_BLOCK inputs exist at a time, and again in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, delay)
        ctx.max_delay, ctx.sigma = max_delay, sigma
        windows = _Windows(x, max_delay)
        y = x.new_empty(*x.shape[:2], weight.shape[0])
        sums = [x.new_zeros(len(windows.analysis), x.shape[1], weight.shape[0]) for _ in windows.starts]
        for block in _blocks(x.shape[2]):
            shares, _ = _shares(delay[:, block].t(), max_delay, sigma)
            kernel = _spectrum(windows, shares * weight[:, block].t())
            for start, total in zip(windows.starts, sums, strict=True):
                total.baddbmm_(windows.inputs(x[:, :, block], start), kernel)
        for start, total in zip(windows.starts, sums, strict=True):
            windows.output(total, start, y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, delay = ctx.saved_tensors
        windows = _Windows(x, ctx.max_delay)
        arrived = [windows.output_gradient(g, start) for start in windows.starts]
        g_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        g_weight, g_delay = torch.empty_like(weight), torch.empty_like(delay)
        for block in _blocks(x.shape[2]):
            w = weight[:, block].t()
            shares, slope = _shares(delay[:, block].t(), ctx.max_delay, ctx.sigma)
            if g_x is not None:
                kernel = _spectrum(windows, shares * w).transpose(1, 2)
                part = torch.zeros_like(x[:, :, block])
                for start, g_window in zip(windows.starts, arrived, strict=True):
                    windows.add_input_gradient(g_window @ kernel, start, part)
                g_x[:, :, block] = part
            g_kernel = x.new_zeros(len(windows.analysis), *w.shape)
            for start, g_window in zip(windows.starts, arrived, strict=True):
                g_kernel.baddbmm_(windows.inputs(x[:, :, block], start).transpose(1, 2), g_window)
            g_shares = (windows.spectrum.t() @ g_kernel.flatten(1)).view(shares.shape).mul_(shares)
            g_w = g_shares.sum(0)
            g_weight[:, block] = g_w.t()
            mean = (shares * slope).sum(0)
            g_delay[:, block] = (w * (g_shares.mul_(slope).sum(0) - mean * g_w)).t()
        return g_x, g_weight, g_delay, None, None


def _blocks(inputs: int) -> list[slice]:
    return [slice(first, min(first + INPUT_BLOCK, inputs)) for first in range(0, inputs, INPUT_BLOCK)]


def _spectrum(windows: _Windows, kernel: torch.Tensor) -> torch.Tensor:
    return (windows.spectrum @ kernel.flatten(1)).view(-1, *kernel.shape[1:])


def _shares(delay: torch.Tensor, max_delay: int, sigma: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised Gaussian taps [max_delay + 1, in, out], and d log e_n / d delay."""
    steps = torch.arange(max_delay + 1, dtype=delay.dtype, device=delay.device).view(-1, 1, 1)
    distance = (steps - delay) / sigma
    bump = torch.exp(-0.5 * distance * distance)
    return bump.div_(NORM_FLOOR + bump.sum(0)), distance.div_(sigma)
