"""Activation that is annealed from a ramp into the step by which a spiking neuron fires."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def annealed_bounds(epoch: int, epochs: int) -> tuple[float, float]:
    """Ends (lo, hi) of the ramp in one epoch: lo = min(p / 2, 0.49), hi = 1 - p / 2 with p = (epoch + 1) / epochs.

    Args:
        epoch: from 0.
        epochs: of the whole annealing.

    >>> annealed_bounds(49, 100), annealed_bounds(99, 100)
    ((0.25, 0.75), (0.49, 0.5))
    """
    if not 0 <= epoch < epochs:
        raise ValueError(f"annealed_bounds: epoch must lie in [0, epochs) = [0, {epochs}), got {epoch}")
    progress = (epoch + 1) / epochs
    return min(progress / 2, 0.49), 1 - progress / 2


class _Ramp(torch.autograd.Function):
    """The ramp forward; backward the window |x - 1/2| < 1/2 of the final step, whatever the ramp."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, low: float, high: float, threshold: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.threshold = threshold
        scaled = x / (2 * threshold)
        return ((scaled - low) / (high - low)).clamp(0.0, 1.0)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        (x,) = ctx.saved_tensors
        threshold = ctx.threshold
        return gradients[0] * ((x - threshold).abs() < threshold), None, None, None


class AnnealedStep(nn.Module):
    """Activation for an ANN that is to become a spiking network of the same tensors.

    In training a ramp, y = clip((x / (2 v_threshold) - lo) / (hi - lo), 0, 1), whose ends move towards 1/2 from epoch to
    epoch (`anneal_steps`). In evaluation the step y = [x >= v_threshold], which a neuron with this threshold computes in
    its first step. The gradient is [|x - v_threshold| < v_threshold] at every epoch: that of the ramp would grow to 100.

    Args:
        v_threshold: where the step is, > 0; the ramp begins between 0 and 2 v_threshold.
    Input: any shape. Returns: values in [0, 1], same shape.
    Raises: ValueError for a threshold that is not positive.
    Source: Lin et al., Rethinking Pretraining as a Bridge from ANNs to SNNs, TNNLS 2022 (pipeS). There x = v_threshold
        gives 0 in evaluation; here 1, as with the neurons of this package.
    """

    def __init__(self, v_threshold: float = 0.5) -> None:
        super().__init__()
        if not v_threshold > 0:
            raise ValueError(f"AnnealedStep: v_threshold must be > 0, got {v_threshold}")
        self.v_threshold = v_threshold
        self.low, self.high = 0.0, 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return (x >= self.v_threshold).to(x.dtype)
        y: torch.Tensor = _Ramp.apply(x, self.low, self.high, self.v_threshold)
        return y

    def extra_repr(self) -> str:
        return f"v_threshold={self.v_threshold}, low={self.low:.4g}, high={self.high:.4g}"


def anneal_steps(net: nn.Module, epoch: int, epochs: int) -> None:
    """Gives every `AnnealedStep` of `net` the ramp of one epoch, counted from 0."""
    low, high = annealed_bounds(epoch, epochs)
    for module in net.modules():
        if isinstance(module, AnnealedStep):
            module.low, module.high = low, high
