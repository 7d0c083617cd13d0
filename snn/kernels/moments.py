"""Mean and variance of a batch of membranes, differentiable."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch

from snn.kernels.memory import empty

Array = np.ndarray[Any, Any]


class Moments(torch.autograd.Function):
    """Mean and biased variance of h [B, C, ...] over all dimensions but those of `features` [C] or [C, ...]."""

    @staticmethod
    def forward(ctx: Any, h: torch.Tensor, features: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        if h.device.type == "cpu" and h.dtype in (torch.float32, torch.float64) and h.is_contiguous():
            from snn.kernels.moment_sums import channel_moments

            mean, var = (moment.view(features) for moment in channel_moments(h, prod(features)))
        else:
            var, mean = torch.var_mean(h.view(len(h), *features, -1), (0, -1), correction=0)
        ctx.save_for_backward(h, mean)
        return mean, var

    @staticmethod
    def backward(ctx: Any, g_mean: torch.Tensor, g_var: torch.Tensor) -> tuple[torch.Tensor, None]:
        h, mean = ctx.saved_tensors
        slope, level = gradient_line(mean, h.shape, g_mean, g_var)
        if torch.is_grad_enabled():  # for a second derivative
            return torch.addcmul(level, h, slope), None
        out = empty(h.shape, h.dtype) if h.device.type == "cpu" else torch.empty_like(h)
        return torch.addcmul(level, h, slope, out=out), None


def gradient_line(
    mean: torch.Tensor, shape: torch.Size, g_mean: torch.Tensor, g_var: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(slope, level), which broadcast against one sample: the gradient of a membrane h is slope * h + level.

    Args:
        mean: of membranes [B, ...] of this shape; g_mean, g_var: gradients of mean and biased variance.
    """
    share = mean.numel() / shape.numel()
    slope = g_var * (2.0 * share)
    level = g_mean * share - slope * mean
    trailing = (*mean.shape, *(1 for _ in range(len(shape) - 1 - mean.dim())))
    return slope.view(trailing), level.view(trailing)


def of_channels(mean: Array, spread: Array, samples: int, channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and biased variance of each channel, from mean and sum of squared deviations of each lane [channels * inner]."""
    by_channel = mean.reshape(channels, -1).astype(np.float64)
    whole = by_channel.mean(axis=1)
    between = ((by_channel - whole[:, None]) ** 2).mean(axis=1)
    within = spread.reshape(channels, -1).mean(axis=1, dtype=np.float64) / samples
    dtype = torch.from_numpy(mean[:0]).dtype
    return torch.from_numpy(whole).to(dtype), torch.from_numpy(within + between).to(dtype)
