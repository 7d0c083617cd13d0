"""The delayed sum with Gaussian taps, as real matrix products at single frequencies, on any device.

A sum over K taps of S outputs is a product at each of (S + K - 1) / 2 + 1 frequencies. Every step is a matrix product: to
the frequencies, over the inputs, and back, so the cost per synapse does not grow with K. Frequencies, samples, inputs,
outputs and long sequences are taken in pieces, so that the kernels over time of a few synapses exist at a time, in
buffers used again. On the CPU the pieces are shared out among threads: most are too small for threads within one operation.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch.autograd.function import once_differentiable

from snn.kernels import threads
from snn.layers.delay_reference import NORM_FLOOR

SEGMENT = 104  # outputs that are made at once; longer sequences are cut
SAMPLES, INPUTS, OUTPUTS = 128, 64, 64  # of one piece: larger ones are faster and need more memory
GRADIENT_INPUTS = 64  # the same for gradients, where every thread has a piece of the inputs of its own
SMALLEST = 1e-20  # of a bump of height 1, taps below are 0: products with numbers near the smallest float are very slow
LOWEST = -50.0  # exponents below end there, below SMALLEST, for the same reason


class _Half(NamedTuple):
    """Discrete Fourier transform of N steps (an even number) at its F even or odd frequencies, for real numbers.

    Even frequencies do not tell step n from step n + N / 2, odd ones only by the sign. So a transform takes sums or
    differences of such pairs. Real parts come first, then imaginary ones.
    """

    sign: int  # of step n + N / 2: 1 or -1
    signal: torch.Tensor  # [2 F, N / 2]: cos and -sin of 2 pi f n / N
    inverse: torch.Tensor  # [N / 2, 2 F]
    spectrum: torch.Tensor  # [2 F, taps]: the transform of a kernel


@functools.lru_cache(maxsize=16)
def _halves(outputs: int, taps: int, dtype: torch.dtype, device: torch.device) -> list[_Half]:
    half = (outputs + taps) // 2
    length = 2 * half
    found = []
    for sign, first in ((1, 0), (-1, 1)):
        frequency = torch.arange(first, half + 1, 2, dtype=torch.float64)
        angle = 2 * math.pi / length * frequency[:, None] * torch.arange(length)
        both = torch.cat([torch.cos(angle), -torch.sin(angle)])
        once = (frequency == 0) | (frequency == half)  # the others stand for a pair of frequencies
        share = (2.0 - once.to(both)).repeat(2)[:, None] / length
        matrices = (both[:, :half], (share * both)[:, :half].t(), both[:, :taps])
        found.append(_Half(sign, *(part.to(dtype).to(device).contiguous() for part in matrices)))
    return found


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
    """Sizes of one call and its elementary operations on buffers.

    A complex product (a + ib)(c + id) is made of three real ones, ac, bd and (a + b)(c + d): "three parts" are a, b and
    a + b, or these products.
    """

    def __init__(
        self, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float
    ) -> None:
        self.weight, self.delay = weight, delay
        self.T, self.taps, self.sigma = len(x), max_delay + 1, sigma
        self.outputs_at_once = -(-self.T // -(-self.T // SEGMENT))
        self.halves = _halves(self.outputs_at_once, self.taps, x.dtype, x.device)
        self.buffers = _Buffers(x)
        middle = max_delay / 2  # counted from there, products with steps keep more digits
        steps = torch.arange(self.taps, dtype=x.dtype, device=x.device)
        self.steps = steps.view(-1, 1, 1)
        self.moments = torch.stack([torch.ones_like(steps), steps - middle])  # [2, taps]
        self.middle = middle
        self.nothing = x.new_zeros(())
        self.ends_underflow = -0.5 * (max_delay / sigma) ** 2 < LOWEST

    def starts(self) -> range:
        """First output of each segment."""
        return range(0, self.T, self.outputs_at_once)

    def read(self, start: int) -> slice:
        """Steps of x that a segment reads."""
        return slice(max(0, start - self.taps + 1), min(start + self.outputs_at_once, self.T))

    def runs(self, half: _Half, first: int, count: int) -> list[tuple[slice, slice, int]]:
        """Parts of `count` steps from place `first` of the transform on, the pairs that they belong to, and their sign."""
        middle, stop = len(half.inverse), first + count  # stop <= 2 middle
        if stop <= middle:
            return [(slice(0, count), slice(first, stop), 1)]
        if first >= middle:
            return [(slice(0, count), slice(first - middle, stop - middle), half.sign)]
        cut = middle - first
        return [(slice(0, cut), slice(first, middle), 1), (slice(cut, count), slice(0, stop - middle), half.sign)]

    def folded(self, half: _Half, values: torch.Tensor, first: int) -> torch.Tensor:
        """Sums or differences [N / 2, B C] of pairs of steps; values [steps, B, C] lie from place `first` on."""
        out = self.buffers.take("time", len(half.inverse), *values.shape[1:])
        (part, pairs, sign), *others = self.runs(half, first, len(values))
        out[: pairs.start] = 0
        out[pairs.stop :] = 0
        torch.mul(values[part], sign, out=out[pairs])
        for part, pairs, sign in others:
            out[pairs].add_(values[part], alpha=sign)
        return out.flatten(1)

    def add_unfolded(self, half: _Half, made: torch.Tensor, first: int, total: torch.Tensor) -> None:
        """Adds the steps from place `first` on, whose sums or differences are made [N / 2, B, C], to total [steps, B, C]."""
        for part, pairs, sign in self.runs(half, first, len(total)):
            total[part].add_(made[pairs], alpha=sign)

    def transformed(self, half: _Half, x: torch.Tensor, start: int, buffers: _Buffers) -> torch.Tensor:
        """Three parts [3 F, B, N] of the transform of a piece x [T, B, N], in `buffers`."""
        rows = len(half.signal)
        out = buffers.take("inputs", rows // 2 * 3, *x.shape[1:])
        torch.mm(half.signal, self.folded(half, x[self.read(start)], 0), out=out[:rows].flatten(1))
        return _with_sum(out)

    def add_input_gradient(self, half: _Half, g: torch.Tensor, start: int, total: torch.Tensor) -> None:
        """Adds what belongs to g [3 F, B, N], which it changes, to the piece total [T, B, N]."""
        made = self.buffers.take("time", len(half.inverse), *g.shape[1:])
        torch.mm(half.signal.t(), _without_sum(g).flatten(1), out=made.flatten(1))
        self.add_unfolded(half, made, 0, total[self.read(start)])

    def add_output(self, half: _Half, sums: torch.Tensor, start: int, y: torch.Tensor) -> None:
        """Adds the outputs of three products [3 F, B, out], which it changes, to the piece y [steps, B, out]."""
        ac, bd, both = sums.chunk(3)
        both -= ac
        both -= bd
        ac -= bd
        bd.copy_(both)
        made = self.buffers.take("time", len(half.inverse), *y.shape[1:])
        torch.mm(half.inverse, sums[: 2 * len(ac)].flatten(1), out=made.flatten(1))
        self.add_unfolded(half, made, start - self.read(start).start, y)

    def output_gradient(self, half: _Half, g: torch.Tensor, start: int, out: torch.Tensor) -> None:
        """Writes the gradient [3 F, B, out] of the three products, of the piece g [steps, B, out]."""
        ac, bd, both = out.chunk(3)
        pairs = self.folded(half, g, start - self.read(start).start)
        torch.mm(half.inverse.t(), pairs, out=out[: 2 * len(ac)].flatten(1))
        both.copy_(bd)
        bd += ac
        ac -= both
        bd.neg_()

    def bumps(self, delay: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """exp(-((n - delay) / sigma)^2 / 2) [taps, N, out] of delays [N, out], and its sum over n with the floor."""
        e = self.buffers.take("bumps", self.taps, *delay.shape)
        torch.sub(self.steps, delay, out=e)
        torch.addcmul(self.nothing, e, e, value=-0.5 / self.sigma**2, out=e)
        if self.ends_underflow:
            e.clamp_(min=LOWEST)
        e.exp_()
        if self.ends_underflow:
            torch.threshold_(e, SMALLEST, 0.0)
        return e, e.sum(0).add_(NORM_FLOOR)

    def kernel(self, half: _Half, e: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        """Three parts [3 F, N, out] of the transform of the bumps [taps, N, out] times scale [N, out]."""
        taps = torch.mul(e, scale, out=self.buffers.take("taps", *e.shape))
        rows = len(half.spectrum)
        out = self.buffers.take("kernel", rows // 2 * 3, *scale.shape)
        torch.mm(half.spectrum, taps.flatten(1), out=out[:rows].flatten(1))
        return _with_sum(out)

    def parameter_gradients(
        self, half: _Half, g_kernel: torch.Tensor, e: torch.Tensor, total: torch.Tensor, at: tuple[slice, slice]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of weights and delays [N, out], from the gradient [3 F, N, out] of the kernel's three parts, which it changes."""
        g_e = self.buffers.take("taps", *e.shape)
        torch.mm(half.spectrum.t(), _without_sum(g_kernel).flatten(1), out=g_e.flatten(1))
        g_e *= e
        weight, delay = self.weight[at].t(), self.delay[at].t() - self.middle
        g_weight, first = (torch.mm(self.moments, g_e.flatten(1)).view(2, *total.shape) / total).unbind()
        shares, mean = (torch.mm(self.moments, e.flatten(1)).view(2, *total.shape) / total).unbind()
        slope = first - delay * g_weight - (mean - delay * shares) * g_weight
        return g_weight, slope * weight / self.sigma**2


def _with_sum(parts: torch.Tensor) -> torch.Tensor:
    """a, b and room [3 F, ...] -> a, b and a + b, in place."""
    a, b, both = parts.chunk(3)
    torch.add(a, b, out=both)
    return parts


def _without_sum(g: torch.Tensor) -> torch.Tensor:
    """The gradient [2 F, ...] of a and b from that of a, b and a + b, in place."""
    a, b, both = g.chunk(3)
    a += both
    b += both
    return g[: 2 * len(a)]


class _Plans:
    """Plans of one call, one for each thread at work, and what they share."""

    def __init__(
        self, x: torch.Tensor, weight: torch.Tensor, delay: torch.Tensor, max_delay: int, sigma: float, inputs: int
    ) -> None:
        self.make = functools.partial(_Plan, x, weight, delay, max_delay, sigma)
        self.own = self.make()
        self.idle = deque([self.own])
        sizes = ((x.shape[1], SAMPLES), (x.shape[2], inputs), (len(weight), OUTPUTS))
        self.samples, self.inputs, self.outputs = (_pieces(count, size) for count, size in sizes)
        self.shared = _Buffers(x)
        self.on_cpu = x.device.type == "cpu"

    def parts(self) -> Iterator[tuple[slice, int, _Half]]:
        """Pieces of the samples, first outputs of segments, and halves of the frequencies."""
        return itertools.product(self.samples, self.own.starts(), self.own.halves)

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

    def products(self, half: _Half, samples: int) -> list[torch.Tensor]:
        """Uninitialised room for three products [3 F, samples, n] of each piece of the outputs."""
        rows = len(half.signal) // 2 * 3
        return [
            self.shared.take(f"products {piece.start}", rows, samples, piece.stop - piece.start)
            for piece in self.outputs
        ]


def _pieces(count: int, size: int) -> list[slice]:
    return [slice(first, min(first + size, count)) for first in range(0, count, size)]


def _sum_up(plans: _Plans, half: _Half, x: torch.Tensor, start: int, y: torch.Tensor) -> None:
    """Adds what half of the frequencies gives to one segment y [steps, B, out], for a piece x [T, B, in] of the samples."""
    sums = plans.products(half, x.shape[1])
    for number, inputs in enumerate(plans.inputs):
        seen = plans.own.transformed(half, x[:, :, inputs], start, plans.shared)

        def add(plan: _Plan, k: int, number: int = number, inputs: slice = inputs, seen: torch.Tensor = seen) -> None:
            at = (plans.outputs[k], inputs)
            e, total = plan.bumps(plan.delay[at].t())
            kernel = plan.kernel(half, e, plan.weight[at].t() / total)
            sums[k].baddbmm_(seen, kernel) if number else torch.bmm(seen, kernel, out=sums[k])

        plans.each(add, len(sums))

    def finish(plan: _Plan, k: int) -> None:
        plan.add_output(half, sums[k], start, y[:, :, plans.outputs[k]])

    plans.each(finish, len(sums))


def _differentiate(
    plans: _Plans, half: _Half, x: torch.Tensor, start: int, g: torch.Tensor,
    g_x: torch.Tensor | None, g_weight: torch.Tensor, g_delay: torch.Tensor,
) -> None:  # fmt: skip
    """Adds the gradients of half of the frequencies, of one segment g [steps, B, out] and a piece of the samples."""
    arrived = plans.products(half, x.shape[1])

    def begin(plan: _Plan, k: int) -> None:
        plan.output_gradient(half, g[:, :, plans.outputs[k]], start, arrived[k])

    def add(plan: _Plan, k: int) -> None:
        inputs = plans.inputs[k]
        seen = plan.transformed(half, x[:, :, inputs], start, plan.buffers)
        g_seen = None if g_x is None else plan.buffers.take("input gradients", *seen.shape)
        for number, (own, outputs) in enumerate(zip(arrived, plans.outputs, strict=True)):
            at = (outputs, inputs)
            e, total = plan.bumps(plan.delay[at].t())
            if g_seen is not None:
                turned = plan.kernel(half, e, plan.weight[at].t() / total).transpose(1, 2)
                g_seen.baddbmm_(own, turned) if number else torch.bmm(own, turned, out=g_seen)
            g_kernel = plan.buffers.take("kernel", len(own), *total.shape)
            torch.bmm(seen.transpose(1, 2), own, out=g_kernel)
            g_w, g_d = plan.parameter_gradients(half, g_kernel, e, total, at)
            g_weight[at] += g_w.t()
            g_delay[at] += g_d.t()
        if g_x is not None and g_seen is not None:
            plan.add_input_gradient(half, g_seen, start, g_x[:, :, inputs])

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
        plans = _Plans(x, weight, delay, max_delay, sigma, INPUTS)
        y = x.new_zeros(*x.shape[:2], len(weight))
        for samples, start, half in plans.parts():
            segment = y[start : start + plans.own.outputs_at_once, samples]
            _sum_up(plans, half, x[:, samples], start, segment)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, delay = ctx.saved_tensors
        plans = _Plans(x, weight, delay, ctx.max_delay, ctx.sigma, GRADIENT_INPUTS)
        g_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None
        g_weight, g_delay = torch.zeros_like(weight), torch.zeros_like(delay)
        for samples, start, half in plans.parts():
            own = None if g_x is None else g_x[:, samples]
            segment = g[start : start + plans.own.outputs_at_once, samples]
            _differentiate(plans, half, x[:, samples], start, segment, own, g_weight, g_delay)
        return g_x, g_weight, g_delay, None, None
