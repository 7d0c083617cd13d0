"""The delayed sum with Gaussian taps, as real matrix products at single frequencies, on any device.

A sum over K taps of S outputs is a product at each of (S + K - 1) / 2 + 1 frequencies. Every step is a matrix product: to
the frequencies, over the inputs, and back, so the cost per synapse does not grow with K. Samples, inputs and long
sequences are taken in pieces, so that the kernels over time of a few inputs exist at a time, in buffers used again.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from snn.layers.delay_reference import NORM_FLOOR

SEGMENT = 104  # outputs that are made at once; longer sequences are cut
SAMPLES = 64
INPUTS = 64
SMALLEST = 1e-30  # taps below are 0: products with numbers near the smallest that exist are very slow


@functools.lru_cache(maxsize=16)
def _transforms(outputs: int, taps: int, dtype: torch.dtype, device: torch.device) -> tuple[torch.Tensor, ...]:
    """Matrices that turn a sum over taps into products at single frequencies, three real ones per frequency.

    With N = outputs + taps - 1:  sum_n k[n] x[t - n]  =  synthesis @ ((analysis @ x) * (spectrum @ k))  for the last
    `outputs` steps of a window x of N steps: the discrete Fourier transform, with the complex product
    (a + ib)(c + id) made of ac, bd and (a + b)(c + d).
    """
    length = outputs + taps - 1
    frequency = torch.arange(length // 2 + 1, dtype=torch.float64)
    angle = 2 * math.pi / length * frequency[:, None] * torch.arange(length)
    cos, sin = torch.cos(angle), torch.sin(angle)
    analysis = torch.cat([cos, -sin, cos - sin])
    inverse = torch.full((len(frequency), 1), 2.0 / length, dtype=torch.float64)
    inverse[0] = 1.0 / length
    if length % 2 == 0:
        inverse[-1] = 1.0 / length
    real, imaginary = (inverse * part[:, taps - 1 :] for part in (cos, -sin))
    synthesis = torch.cat([real - imaginary, -real - imaginary, imaginary])
    parts = (analysis, analysis.t(), analysis[:, :taps], analysis[:, :taps].t(), synthesis.t(), synthesis)
    return tuple(part.to(dtype).to(device).contiguous() for part in parts)


class _Buffers:
    """Scratch tensors by name, used again by every piece."""

    def __init__(self, like: torch.Tensor) -> None:
        self.like = like
        self.known: dict[str, torch.Tensor] = {}

    def take(self, name: str, *shape: int) -> torch.Tensor:
        """An uninitialised tensor; the one of that name that was taken before is gone."""
        size = math.prod(shape)
        if name not in self.known or self.known[name].numel() < size:
            self.known[name] = self.like.new_empty(size)
        return self.known[name][:size].view(shape)


class _Plan:
    """Sizes and matrices of one call, and its elementary operations on buffers."""

    def __init__(self, x: torch.Tensor, max_delay: int, sigma: float) -> None:
        self.T, self.taps, self.sigma = len(x), max_delay + 1, sigma
        self.outputs = -(-self.T // -(-self.T // SEGMENT))
        matrices = _transforms(self.outputs, self.taps, x.dtype, x.device)
        self.analysis, self.analysis_t, self.spectrum, self.spectrum_t, self.synthesis, self.synthesis_t = matrices
        self.parts = len(self.analysis)
        self.buffers = _Buffers(x)

    def starts(self) -> range:
        """First output of each segment."""
        return range(0, self.T, self.outputs)

    def window(self, start: int) -> tuple[slice, slice]:
        """Steps of x that a segment reads, and their columns in `analysis`."""
        first, last = max(0, start - self.taps + 1), min(start + self.outputs, self.T)
        shift = self.taps - 1 - start
        return slice(first, last), slice(first + shift, last + shift)

    def inputs(self, x: torch.Tensor, start: int) -> torch.Tensor:
        """[3 F, B, N] of a piece x [T, B, N]."""
        steps, columns = self.window(start)
        values = self.buffers.take("window", steps.stop - steps.start, *x.shape[1:]).copy_(x[steps])
        out = self.buffers.take("inputs", self.parts, *x.shape[1:])
        torch.mm(self.analysis[:, columns], values.flatten(1), out=out.flatten(1))
        return out

    def add_input_gradient(self, g: torch.Tensor, start: int, total: torch.Tensor) -> None:
        """Adds what belongs to g [3 F, B, N] to the piece total [T, B, N]."""
        steps, columns = self.window(start)
        out = self.buffers.take("window", steps.stop - steps.start, *total.shape[1:])
        torch.mm(self.analysis_t[columns], g.flatten(1), out=out.flatten(1))
        total[steps] += out

    def output(self, sums: torch.Tensor, start: int, y: torch.Tensor) -> None:
        """Writes the outputs of sums [3 F, B, out] to the piece y [T, B, out]."""
        count = min(self.outputs, self.T - start)
        out = self.buffers.take("outputs", count, *y.shape[1:])
        y[start : start + count] = torch.mm(self.synthesis[:count], sums.flatten(1), out=out.flatten(1)).view(out.shape)

    def output_gradient(self, g: torch.Tensor, start: int) -> torch.Tensor:
        """[3 F, B, out] of the piece g [T, B, out]."""
        count = min(self.outputs, self.T - start)
        values = self.buffers.take("outputs", count, *g.shape[1:]).copy_(g[start : start + count])
        out = self.buffers.take("sums", self.parts, *g.shape[1:])
        torch.mm(self.synthesis_t[:, :count], values.flatten(1), out=out.flatten(1))
        return out

    def shares(self, delay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised Gaussian taps of delays [N, out], and d log e_n / d delay, both [taps, N, out]."""
        steps = torch.arange(self.taps, dtype=delay.dtype, device=delay.device).view(-1, 1, 1)
        slope = self.buffers.take("slope", self.taps, *delay.shape)
        share = self.buffers.take("share", self.taps, *delay.shape)
        torch.sub(steps, delay, out=slope).div_(self.sigma)
        torch.mul(slope, slope, out=share).mul_(-0.5).exp_()
        torch.threshold_(share, SMALLEST, 0.0)
        share.div_(share.sum(0).add_(NORM_FLOOR))
        return share, slope.div_(self.sigma)

    def kernel(self, share: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """[3 F, N, out] of the taps times weights [N, out]."""
        taps = torch.mul(share, weight, out=self.buffers.take("taps", *share.shape))
        out = self.buffers.take("kernel", self.parts, *weight.shape)
        torch.mm(self.spectrum, taps.flatten(1), out=out.flatten(1))
        return out


def _pieces(count: int, size: int) -> Iterator[slice]:
    return (slice(first, min(first + size, count)) for first in range(0, count, size))


class Gaussian(torch.autograd.Function):
    """x [T, B, in], weight and delay [out, in] -> [T, B, out] with Gaussian taps of width sigma."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, delay)
        ctx.max_delay, ctx.sigma = max_delay, sigma
        plan = _Plan(x, max_delay, sigma)
        y = x.new_empty(*x.shape[:2], weight.shape[0])
        for samples in _pieces(x.shape[1], SAMPLES):
            piece = x[:, samples]
            sums = plan.buffers.take("sums", len(plan.starts()), plan.parts, piece.shape[1], weight.shape[0]).zero_()
            for inputs in _pieces(x.shape[2], INPUTS):
                share, _ = plan.shares(delay[:, inputs].t())
                kernel = plan.kernel(share, weight[:, inputs].t())
                for own, start in zip(sums, plan.starts(), strict=True):
                    own.baddbmm_(plan.inputs(piece[:, :, inputs], start), kernel)
            for own, start in zip(sums, plan.starts(), strict=True):
                plan.output(own, start, y[:, samples])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, delay = ctx.saved_tensors
        plan = _Plan(x, ctx.max_delay, ctx.sigma)
        g_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        g_weight, g_delay = torch.zeros_like(weight), torch.zeros_like(delay)
        for samples in _pieces(x.shape[1], SAMPLES):
            for start in plan.starts():
                arrived = plan.output_gradient(g[:, samples], start)
                for inputs in _pieces(x.shape[2], INPUTS):
                    w = weight[:, inputs].t()
                    share, slope = plan.shares(delay[:, inputs].t())
                    if g_x is not None:
                        g_inputs = plan.buffers.take("inputs", plan.parts, arrived.shape[1], len(w))
                        torch.bmm(arrived, plan.kernel(share, w).transpose(1, 2), out=g_inputs)
                        plan.add_input_gradient(g_inputs, start, g_x[:, samples, inputs])
                    seen = plan.inputs(x[:, samples, inputs], start)
                    g_kernel = plan.buffers.take("kernel", plan.parts, *w.shape)
                    torch.bmm(seen.transpose(1, 2), arrived, out=g_kernel)
                    g_share = plan.buffers.take("taps", *share.shape)
                    torch.mm(plan.spectrum_t, g_kernel.flatten(1), out=g_share.flatten(1))
                    g_w = g_share.mul_(share).sum(0)
                    mean = share.mul_(slope).sum(0)
                    g_weight[:, inputs] += g_w.t()
                    g_delay[:, inputs] += (w * (g_share.mul_(slope).sum(0) - mean * g_w)).t()
        return g_x, g_weight, g_delay, None, None
