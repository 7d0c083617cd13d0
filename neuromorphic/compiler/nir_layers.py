"""Layers that NIR has and torch.nn has not; all take sequences [T, B, ...]."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class Scale(nn.Module):
    """y = scale x, elementwise."""

    def __init__(self, scale: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.scale: torch.Tensor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


class SumPool2d(nn.Module):
    """Sums over windows of the last two axes."""

    def __init__(
        self, kernel_size: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = functional.avg_pool2d(x.flatten(0, 1), self.kernel_size, self.stride, self.padding, divisor_override=1)
        return y.unflatten(0, x.shape[:2])


class StackedLinear(nn.Module):
    """y[..., o] = sum over i of weight[..., o, i] x[..., i] + bias: an own matrix for each leading index."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)
        self.bias = None if bias is None else nn.Parameter(bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = (self.weight @ x.unsqueeze(-1)).squeeze(-1)
        return y if self.bias is None else y + self.bias


class ElementDelay(nn.Module):
    """y[t, i] = x[t - steps[i], i]; with `past` the steps before the first one are known, else they are zero.

    Args:
        steps: whole numbers >= 0, one for each feature.
    """

    def __init__(self, steps: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("steps", steps.to(torch.int64))
        self.steps: torch.Tensor

    def forward(self, x: torch.Tensor, past: torch.Tensor | None = None) -> torch.Tensor:
        longest = int(self.steps.max())
        before = x.new_zeros(longest, *x.shape[1:]) if past is None else past
        whole = torch.cat([before, x])
        at = torch.arange(len(x)).view(-1, *[1] * (x.dim() - 1)) + longest - self.steps
        return whole.gather(0, at.expand(x.shape))

    def remembered(self, x: torch.Tensor, past: torch.Tensor | None) -> torch.Tensor:
        """What a later call needs as `past` after this one had `x`."""
        longest = int(self.steps.max())
        before = x.new_zeros(longest, *x.shape[1:]) if past is None else past
        return torch.cat([before, x])[len(x) :]


class Late(nn.Module):
    """The value that a layer had at the step before: zeros at the first.

    Args:
        source: name of that layer beside this module's parent.
        shape: of one sample's value.
    """

    def __init__(self, source: str, shape: Sequence[int]) -> None:
        super().__init__()
        self.source = source
        self.shape = tuple(shape)

    def forward(self, like: torch.Tensor, previous: torch.Tensor | None = None) -> torch.Tensor:
        return like.new_zeros(*like.shape[:2], *self.shape) if previous is None else previous
