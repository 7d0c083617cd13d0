"""The delayed sum with Gaussian taps, as real matrix products at single frequencies, on any device.

A sum over K taps of S outputs is a product at each of (S + K - 1) / 2 + 1 frequencies. Every step is a matrix product: to
the frequencies, over the inputs, and back, so the cost per synapse does not grow with K. Samples, inputs and long
sequences are taken in pieces, so that the kernels over time of a few inputs exist at a time, in buffers used again. On
the CPU the pieces are shared out among threads: most are too small for threads within one operation.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from snn.kernels import threads
from snn.layers.delay_reference import NORM_FLOOR

SEGMENT = 104  # outputs that are made at once; longer sequences are cut
SAMPLES, INPUTS, OUTPUTS = 64, 64, 64  # twice the samples are a quarter faster and need half as much memory again
SMALLEST = 1e-30  # taps below are 0: products with numbers near the smallest that exist are very slow
LOWEST = -70.0  # exponents below end there, below SMALLEST, for the same reason


class _Transforms(NamedTuple):
    """Discrete Fourier transform of N = outputs + taps - 1 steps at F = N // 2 + 1 frequencies, for real numbers.

    A cosine does not tell step n from step N - n, a sine only by the sign. So the transform takes sums and differences of
    such pairs (H = N // 2 + 1 and H - 1 of them or one less), and its matrices have a quarter of the entries.
    """

    cosine: torch.Tensor  # [F, H]: cos of 2 pi f n / N
    sine: torch.Tensor  # [F, H]: -sin
    even: torch.Tensor  # [H, F]: the inverse of the real parts
    odd: torch.Tensor  # [H, F]: of the imaginary parts
    spectrum: torch.Tensor  # [2 F, taps]: both parts of the transform of a kernel
    mirror: torch.Tensor  # steps N - 1, N - 2, ... H: the partners of 1, 2, ...


@functools.lru_cache(maxsize=16)
def _transforms(outputs: int, taps: int, dtype: torch.dtype, device: torch.device) -> _Transforms:
    length = outputs + taps - 1
    half = length // 2 + 1
    frequency = torch.arange(half, dtype=torch.float64)
    angle = 2 * math.pi / length * frequency[:, None] * torch.arange(length)
    cosine, sine = torch.cos(angle), -torch.sin(angle)
    inverse = torch.full((half, 1), 2.0 / length, dtype=torch.float64)
    inverse[0] = 1.0 / length
    if length % 2 == 0:
        inverse[-1] = 1.0 / length
    taken = torch.cat([cosine[:, :taps], sine[:, :taps]])
    inverses = [(inverse * part)[:, :half].t() for part in (cosine, sine)]
    parts = [cosine[:, :half], sine[:, :half], *inverses, taken]
    forward, backward, even, odd, spectrum = (part.to(dtype).to(device).contiguous() for part in parts)
    mirror = torch.arange(length - 1, half - 1, -1, device=device)
    return _Transforms(forward, backward, even, odd, spectrum, mirror)


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
    """Sizes and matrices of one call, and its elementary operations on buffers.

    A complex product (a + ib)(c + id) is made of three real ones, ac, bd and (a + b)(c + d): "three parts" are a, b and
    a + b, or these products.
    """

    def __init__(self, x: torch.Tensor, max_delay: int, sigma: float) -> None:
        self.T, self.taps, self.sigma = len(x), max_delay + 1, sigma
        self.outputs = -(-self.T // -(-self.T // SEGMENT))
        self.length = self.outputs + max_delay
        self.matrices = _transforms(self.outputs, self.taps, x.dtype, x.device)
        self.frequencies = len(self.matrices.cosine)
        self.parts = 3 * self.frequencies
        self.pairs = len(self.matrices.mirror)
        self.buffers = _Buffers(x)

    def starts(self) -> range:
        """First output of each segment."""
        return range(0, self.T, self.outputs)

    def window(self, start: int) -> tuple[slice, slice]:
        """Steps of x that a segment reads, and their places among its `length` steps."""
        first, last = max(0, start - self.taps + 1), min(start + self.outputs, self.T)
        shift = self.taps - 1 - start
        return slice(first, last), slice(first + shift, last + shift)

    def folded(self, values: torch.Tensor, places: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums and differences of mirrored steps, [H, B, N] each; values lie at `places`, elsewhere are zeros."""
        steps = self.buffers.take("steps", self.length, *values.shape[1:])
        steps[: places.start] = 0
        steps[places.stop :] = 0
        steps[places] = values
        later = self.buffers.take("later", self.pairs, *values.shape[1:])
        torch.index_select(steps, 0, self.matrices.mirror, out=later)
        low, paired = steps[: self.frequencies], slice(1, 1 + self.pairs)
        difference = self.buffers.take("difference", *low.shape)
        difference[:1] = 0
        difference[1 + self.pairs :] = 0
        torch.sub(low[paired], later, out=difference[paired])
        low[paired] += later
        return low, difference

    def unfolded(self, even: torch.Tensor, odd: torch.Tensor, places: slice) -> torch.Tensor:
        """The steps at `places` whose sums and differences with their mirrored steps are 2 even and 2 odd."""
        steps = self.buffers.take("steps", self.length, *even.shape[1:])
        torch.add(even, odd, out=steps[: self.frequencies])
        paired = slice(1, 1 + self.pairs)
        later = torch.sub(even[paired], odd[paired], out=odd[paired])
        steps.index_copy_(0, self.matrices.mirror, later)
        return steps[places]

    def inputs(self, x: torch.Tensor, start: int, out: torch.Tensor) -> None:
        """Writes three parts [3 F, B, N] of the transform of a piece x [T, B, N]."""
        steps, places = self.window(start)
        total, difference = self.folded(x[steps], places)
        a, b, both = out.split(self.frequencies)
        torch.mm(self.matrices.cosine, total.flatten(1), out=a.flatten(1))
        torch.mm(self.matrices.sine, difference.flatten(1), out=b.flatten(1))
        torch.add(a, b, out=both)

    def add_input_gradient(self, g: torch.Tensor, start: int, total: torch.Tensor) -> None:
        """Adds what belongs to g [3 F, B, N], which it changes, to the piece total [T, B, N]."""
        steps, places = self.window(start)
        a, b, both = g.split(self.frequencies)
        even = self.buffers.take("even", *a.shape)
        odd = self.buffers.take("difference", *a.shape)
        torch.mm(self.matrices.cosine.t(), a.add_(both).flatten(1), out=even.flatten(1))
        torch.mm(self.matrices.sine.t(), b.add_(both).flatten(1), out=odd.flatten(1))
        total[steps] += self.unfolded(even, odd, places)

    def output(self, sums: torch.Tensor, start: int, y: torch.Tensor) -> None:
        """Writes the outputs of three products [3 F, B, out] to the piece y [T, B, out]."""
        count = min(self.outputs, self.T - start)
        ac, bd, both = sums.split(self.frequencies)
        part, even, odd = (self.buffers.take(name, *ac.shape) for name in ("part", "even", "difference"))
        torch.mm(self.matrices.even, torch.sub(ac, bd, out=part).flatten(1), out=even.flatten(1))
        torch.mm(self.matrices.odd, torch.sub(both, ac, out=part).sub_(bd).flatten(1), out=odd.flatten(1))
        y[start : start + count] = self.unfolded(even, odd, slice(self.taps - 1, self.taps - 1 + count))

    def output_gradient(self, g: torch.Tensor, start: int, out: torch.Tensor) -> None:
        """Writes the gradient [3 F, B, out] of the three products, of the piece g [T, B, out]."""
        count = min(self.outputs, self.T - start)
        total, difference = self.folded(g[start : start + count], slice(self.taps - 1, self.taps - 1 + count))
        real, imaginary = (self.buffers.take(name, *total.shape) for name in ("even", "part"))
        torch.mm(self.matrices.even.t(), total.flatten(1), out=real.flatten(1))
        torch.mm(self.matrices.odd.t(), difference.flatten(1), out=imaginary.flatten(1))
        ac, bd, both = out.split(self.frequencies)
        both.copy_(imaginary)
        torch.sub(real, imaginary, out=ac)
        torch.add(real, imaginary, out=bd).neg_()

    def shares(self, delay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Normalised Gaussian taps of delays [N, out], and d log e_n / d delay, both [taps, N, out]."""
        steps = torch.arange(self.taps, dtype=delay.dtype, device=delay.device).view(-1, 1, 1)
        slope = self.buffers.take("slope", self.taps, *delay.shape)
        share = self.buffers.take("share", self.taps, *delay.shape)
        torch.sub(steps, delay, out=slope).div_(self.sigma)
        torch.mul(slope, slope, out=share).mul_(-0.5).clamp_(min=LOWEST).exp_()
        torch.threshold_(share, SMALLEST, 0.0)
        share.div_(share.sum(0).add_(NORM_FLOOR))
        return share, slope.div_(self.sigma)

    def kernel(self, share: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """Three parts [3 F, N, out] of the transform of the taps times weights [N, out]."""
        taps = torch.mul(share, weight, out=self.buffers.take("taps", *share.shape))
        out = self.buffers.take("kernel", self.parts, *weight.shape)
        c, d, both = out.split(self.frequencies)
        torch.mm(self.matrices.spectrum, taps.flatten(1), out=out[: 2 * self.frequencies].flatten(1))
        torch.add(c, d, out=both)
        return out

    def parameter_gradients(
        self, seen: torch.Tensor, arrived: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of weights and delays [N, out], from `inputs` [3 F, B, N] and the gradient of the products [3 F, B, out]."""
        g_kernel = self.buffers.take("kernel", self.parts, *weight.shape)
        torch.bmm(seen.transpose(1, 2), arrived, out=g_kernel)
        c, d, both = g_kernel.split(self.frequencies)
        c += both
        d += both
        share, slope = self.shares(delay)
        g_share = self.buffers.take("taps", *share.shape)
        torch.mm(self.matrices.spectrum.t(), g_kernel[: 2 * self.frequencies].flatten(1), out=g_share.flatten(1))
        g_weight = g_share.mul_(share).sum(0)
        mean = share.mul_(slope).sum(0)
        return g_weight, weight * (g_share.mul_(slope).sum(0) - mean * g_weight)


class _Plans:
    """Plans of one call, one for each thread at work, and what they share."""

    def __init__(self, x: torch.Tensor, outputs: int, max_delay: int, sigma: float) -> None:
        self.make = functools.partial(_Plan, x, max_delay, sigma)
        self.idle: deque[_Plan] = deque()
        self.samples, self.inputs, self.outputs = (
            _pieces(count, size) for count, size in ((x.shape[1], SAMPLES), (x.shape[2], INPUTS), (outputs, OUTPUTS))
        )
        self.own = self.make()
        self.idle.append(self.own)
        self.parts = list(itertools.product(self.samples, self.own.starts()))
        self.shared = _Buffers(x)
        self.rows = self.own.parts
        self.on_cpu = x.device.type == "cpu"

    def each(self, work: Callable[[_Plan, int], None], count: int) -> None:
        """Calls work(plan, k) for each k < count, on torch's threads if on the CPU, with a plan that is no one else's."""

        def with_plan(k: int) -> None:
            try:
                plan = self.idle.pop()  # appending and popping at one end needs no lock
            except IndexError:
                plan = self.make()
            work(plan, k)
            self.idle.append(plan)

        if self.on_cpu:
            threads.run_each(with_plan, count)
        else:
            for k in range(count):
                with_plan(k)

    def products(self, samples: int) -> list[torch.Tensor]:
        """Uninitialised room for three products [3 F, samples, n] of each piece of the outputs."""
        return [
            self.shared.take(f"products {piece.start}", self.rows, samples, piece.stop - piece.start)
            for piece in self.outputs
        ]


def _pieces(count: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _sum_up(
    plans: _Plans, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, start: int, y: torch.Tensor
) -> None:
    """Writes one segment of the outputs y [T, B, out] for a piece x [T, B, in] of the samples."""
    sums = plans.products(x.shape[1])
    for own in sums:
        own.zero_()
    for inputs in plans.inputs:
        seen = plans.shared.take("inputs", plans.rows, x.shape[1], inputs.stop - inputs.start)
        plans.own.inputs(x[:, :, inputs], start, seen)

        def add(plan: _Plan, k: int, inputs: slice = inputs, seen: torch.Tensor = seen) -> None:
            at = (plans.outputs[k], inputs)
            share, _ = plan.shares(delay[at].t())
            sums[k].baddbmm_(seen, plan.kernel(share, weight[at].t()))

        plans.each(add, len(sums))

    def finish(plan: _Plan, k: int) -> None:
        plan.output(sums[k], start, y[:, :, plans.outputs[k]])

    plans.each(finish, len(sums))


def _differentiate(
    plans: _Plans, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, start: int, g: torch.Tensor,
    g_x: torch.Tensor | None, g_weight: torch.Tensor, g_delay: torch.Tensor,
) -> None:  # fmt: skip
    """Adds the gradients of one segment and a piece of the samples, from the piece g [T, B, out]."""
    arrived = plans.products(x.shape[1])

    def begin(plan: _Plan, k: int) -> None:
        plan.output_gradient(g[:, :, plans.outputs[k]], start, arrived[k])

    def add(plan: _Plan, k: int) -> None:
        inputs = plans.inputs[k]
        seen = plan.buffers.take("inputs", plan.parts, x.shape[1], inputs.stop - inputs.start)
        if g_x is not None:
            seen.zero_()
            for outputs, own in zip(plans.outputs, arrived, strict=True):
                at = (outputs, inputs)
                share, _ = plan.shares(delay[at].t())
                seen.baddbmm_(own, plan.kernel(share, weight[at].t()).transpose(1, 2))
            plan.add_input_gradient(seen, start, g_x[:, :, inputs])
        plan.inputs(x[:, :, inputs], start, seen)
        for outputs, own in zip(plans.outputs, arrived, strict=True):
            at = (outputs, inputs)
            g_w, g_d = plan.parameter_gradients(seen, own, weight[at].t(), delay[at].t())
            g_weight[at] += g_w.t()
            g_delay[at] += g_d.t()

    plans.each(begin, len(arrived))
    plans.each(add, len(plans.inputs))


class Gaussian(torch.autograd.Function):
    """x [T, B, in], weight and delay [out, in] -> [T, B, out] with Gaussian taps of width sigma."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight, delay)
        ctx.max_delay, ctx.sigma = max_delay, sigma
        plans = _Plans(x, len(weight), max_delay, sigma)
        y = x.new_empty(*x.shape[:2], len(weight))
        for samples, start in plans.parts:
            _sum_up(plans, x[:, samples], weight, delay, start, y[:, samples])
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, delay = ctx.saved_tensors
        plans = _Plans(x, len(weight), ctx.max_delay, ctx.sigma)
        g_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        g_weight, g_delay = torch.zeros_like(weight), torch.zeros_like(delay)
        for samples, start in plans.parts:
            own = None if g_x is None else g_x[:, samples]
            _differentiate(plans, x[:, samples], weight, delay, start, g[:, samples], own, g_weight, g_delay)
        return g_x, g_weight, g_delay, None, None
