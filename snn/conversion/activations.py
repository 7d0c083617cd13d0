"""Activations with a finite number of output values, trainable: QCFS and the learned-step quantiser."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import torch
from torch import nn

from snn.errors import ShapeError
from snn.neurons.checks import require_above


def step_counts(
    u: torch.Tensor, step: torch.Tensor, lo: float, hi: float, start: float | torch.Tensor = 0.5
) -> torch.Tensor:
    """clip(floor(u / step + start), lo, hi): with start 1/2 the whole number of steps nearest to u, halves upwards.

    Args:
        u: any shape, floating point.
        step: broadcasts against u, > 0, unit of u.
        lo, hi: smallest and largest number of steps.

    >>> step_counts(torch.tensor([-0.3, 0.1, 0.125, 0.6, 9.0]), torch.tensor(0.25), 0, 3).tolist()
    [0.0, 0.0, 1.0, 2.0, 3.0]
    """
    return torch.floor(u / step + start).clamp_(lo, hi)


class _Quantise(torch.autograd.Function):
    """step * step_counts(u, step, lo, hi, start), with the straight-through gradients of clip, then floor.

    With position = u / step, d/du is 1 and d/dstep is count - position where `first < position < last`; outside d/du is
    0 and d/dstep the bound. The gradient of step is multiplied by `gain`.
    """

    @staticmethod
    def forward(
        u: torch.Tensor,
        step: torch.Tensor,
        start: torch.Tensor,
        lo: int,
        hi: int,
        first: float,
        last: float,
        gain: float,
    ) -> torch.Tensor:
        return step_counts(u, step, lo, hi, start).mul_(step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        u, step, start, *ctx.numbers = inputs
        ctx.save_for_backward(u, step, start)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        u, step, start = ctx.saved_tensors
        lo, hi, first, last, gain = ctx.numbers
        position = u / step
        inside = (position > first) & (position < last)
        to_u = gradient * inside if ctx.needs_input_grad[0] else None
        to_step = None
        if ctx.needs_input_grad[1]:
            slope = torch.where(inside, torch.floor(position + start).clamp_(lo, hi) - position, lo)
            slope = torch.where(position >= last, hi, slope)
            to_step = (gradient * slope).sum_to_size(step.shape) * gain
        return to_u, to_step, None, None, None, None, None, None


class QCFS(nn.Module):
    """Quantisation-clip-floor-shift activation, the trainable stand-in for ReLU before a conversion to T = levels steps.

        h(x) = threshold * clip(floor(x levels / threshold + 1/2) / levels, 0, 1)

    Gradients (the clip comes first, the floor passes them): dh/dx = 1 for 0 < x < threshold, else 0;
    dh/dthreshold = (h - x) / threshold for 0 < x < threshold, 1 above, 0 below.

    With `dither` the shift of 1/2 becomes, in training, a number from [0, 1) that is drawn anew for every sample and
    channel. The mean over the draws is max(0, min(x, threshold)) itself, and all neurons of a channel err alike. So the
    network learns to live with the two things that set the spiking network apart from it: other numbers of steps than
    L, and neurons with equal input that fire in the same steps.

    Args:
        levels: number of steps L between 0 and the threshold, >= 1.
        init: first value of the threshold, > 0, in the unit of x.
        dither: whether training draws the shift.
    Attributes:
        threshold: the learnable scalar lambda.
    Input: x of any shape, floating point; with `dither` in training [B, C, ...] or [B]. Returns: h of the same shape.
    Raises: ValueError for levels < 1 or init <= 0.
    Source: Bu et al., Optimal ANN-SNN Conversion for High-accuracy and Ultra-low-latency SNNs, ICLR 2022, with the
        order of clip and floor of the authors' later code, whose gradients do not depend on the release of torch. The
        dither is ours.

    >>> QCFS(levels=4, init=1.0)(torch.tensor([-0.2, 0.05, 0.3, 0.6, 1.4])).tolist()
    [0.0, 0.0, 0.25, 0.5, 1.0]
    """

    def __init__(self, levels: int, init: float = 8.0, dither: bool = False) -> None:
        super().__init__()
        if levels < 1:
            raise ValueError(f"QCFS: levels must be at least 1, got {levels}")
        require_above("QCFS", "init", init, 0.0)
        if not isinstance(dither, bool):
            raise TypeError(f"QCFS: dither must be True or False, got {dither!r}")
        self.levels = levels
        self.dither = dither
        self.threshold = nn.Parameter(torch.tensor(float(init)))

    @property
    def step(self) -> torch.Tensor:
        """threshold / levels, the distance of two neighbouring outputs."""
        return self.threshold / self.levels

    @property
    def lo(self) -> int:
        """Smallest output in steps, 0."""
        return 0

    @property
    def hi(self) -> int:
        """Largest output in steps, `levels`."""
        return self.levels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = x.new_full((), 0.5)
        if self.dither and self.training:
            start = torch.rand(x.shape[:2] + (1,) * (x.dim() - 2), dtype=x.dtype, device=x.device)
        h: torch.Tensor = _Quantise.apply(x, self.step, start, 0, self.levels, 0.0, float(self.levels), 1.0)
        return h

    def extra_repr(self) -> str:
        return f"levels={self.levels}{', dither' if self.dither else ''}"


_STEP_IS_SET: Final = "step_is_set"


class QuantAct(nn.Module):
    """Quantiser with a learned step (LSQ).

        q(u) = step * clip(floor(u / step + 1/2), lo, hi)

    Unsigned, in place of or behind a ReLU: lo = 0, hi = levels - 1. Signed, in place of tanh or none:
    lo = -floor(levels / 2), hi = lo + levels - 1, so that 16 levels are -8 ... 7 and 17 are -8 ... 8.

    Gradients, with position = u / step and count = q / step: dq/du = 1 for lo < position + 1/2 < hi + 1, else 0;
    dq/dstep = g (count - position) there, g lo below and g hi above, with g = 1 / sqrt(hi * numel) and numel the
    elements of u that share a step.

    The step is set by the first batch in training mode, 2 mean|u| / sqrt(hi), unless it is given; afterwards it is
    learned. A channel that is silent in that batch gets the mean step of the others.

    Args:
        levels: number of output values, >= 2.
        signed: whether they lie on both sides of 0.
        per_channel: one step per entry of dimension 1 of u instead of one for all.
        step: first value of the step, > 0, in the unit of u; None takes it from the first batch.
        learnable: False keeps the step fixed once it is set.
    Attributes:
        step: scalar, or [C, 1, ...] where it is per channel.
        lo, hi: the bounds, integers.
    Input: u [B, ...] ([B, C, ...] per channel), floating point. Returns: q, same shape.
    Raises:
        ValueError: a bad argument; an evaluation before the step is set; a first batch of zeros.
        ShapeError: the channels differ from those of the first batch.
    Source: Esser et al., Learned Step Size Quantization, ICLR 2020, eq. 1-3; rounding is floor(. + 1/2) here, as an
        integrate-and-fire neuron rounds, and numel counts the whole batch.

    >>> QuantAct(levels=8, step=0.25)(torch.tensor([-1.0, 0.3, 0.375, 5.0])).tolist()
    [0.0, 0.25, 0.5, 1.75]
    """

    step_is_set: torch.Tensor

    def __init__(
        self,
        levels: int,
        signed: bool = False,
        per_channel: bool = False,
        step: float | None = None,
        learnable: bool = True,
    ) -> None:
        super().__init__()
        if levels < 2:
            raise ValueError(f"QuantAct: levels must be at least 2, got {levels}")
        if step is not None:
            require_above("QuantAct", "step", step, 0.0)
        self.levels = levels
        self.signed = signed
        self.per_channel = per_channel
        self.lo = -(levels // 2) if signed else 0
        self.hi = self.lo + levels - 1
        if self.hi == 0:
            raise ValueError("QuantAct: a signed quantiser of 2 levels has no positive value; take 3 levels")
        self.step = nn.Parameter(torch.tensor(1.0 if step is None else float(step)), requires_grad=learnable)
        self.register_buffer(_STEP_IS_SET, torch.tensor(step is not None))

    def forward(self, u: torch.Tensor) -> torch.Tensor:
        if not self.step_is_set:
            if not self.training:
                raise ValueError(
                    "QuantAct: the step is not set; run one batch in training mode, call set_step(), or give step="
                )
            self.init_step(u)
        self._check_channels(u)
        shared = u.numel() // self.step.numel()
        gain = 1.0 / math.sqrt(self.hi * shared) if shared else 0.0
        half = u.new_full((), 0.5)
        q: torch.Tensor = _Quantise.apply(u, self.step, half, self.lo, self.hi, self.lo - 0.5, self.hi + 0.5, gain)
        return q

    def init_step(self, u: torch.Tensor) -> None:
        """Sets the step from a batch u, to 2 mean|u| / sqrt(hi)."""
        size = u.detach().abs()
        if self.per_channel:
            mean = size.transpose(0, 1).flatten(1).mean(1)
            speaking = mean > 0
            if speaking.any():
                mean = torch.where(speaking, mean, mean[speaking].mean())
            mean = mean.view(-1, *[1] * (u.dim() - 2))
        else:
            mean = size.mean()
        if not bool((mean > 0).all()) or not bool(torch.isfinite(mean).all()):
            raise ValueError("QuantAct: the first batch is zero (or not finite) everywhere, so it sets no step")
        self.set_step(2.0 * mean / math.sqrt(self.hi))

    def set_step(self, step: torch.Tensor | float) -> None:
        """Sets the step to a number or tensor (per channel: [C, 1, ...]), > 0."""
        value = torch.as_tensor(step, dtype=self.step.dtype, device=self.step.device).detach().clone()
        require_above("QuantAct", "step", value, 0.0)
        self.step.data = value
        self.step_is_set.fill_(True)

    def extra_repr(self) -> str:
        return f"levels={self.levels}, lo={self.lo}, hi={self.hi}, per_channel={self.per_channel}"

    def _check_channels(self, u: torch.Tensor) -> None:
        if self.step.dim() == 0:
            return
        if u.dim() < 2 or u.shape[1] != self.step.shape[0] or self.step.dim() != u.dim() - 1:
            raise ShapeError(
                f"QuantAct: the step has shape {tuple(self.step.shape)} (one value per channel), which does not fit an "
                f"input of shape {tuple(u.shape)}; dimension 1 must have {self.step.shape[0]} channels"
            )

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        saved = state_dict.get(f"{prefix}step")
        if self.per_channel and saved is not None and saved.shape != self.step.shape:
            self.step.data = torch.ones_like(saved, dtype=self.step.dtype, device=self.step.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)
