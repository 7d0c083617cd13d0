"""Maximum pooling of spikes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from snn.conversion.layers import Timed
from snn.conversion.temporal_difference import TemporalDifference

_MAX_POOLS = (nn.modules.pooling._MaxPoolNd, nn.modules.pooling._AdaptiveMaxPoolNd)
_AVERAGE = {
    nn.MaxPool1d: nn.AvgPool1d,
    nn.MaxPool2d: nn.AvgPool2d,
    nn.MaxPool3d: nn.AvgPool3d,
    nn.AdaptiveMaxPool1d: nn.AdaptiveAvgPool1d,
    nn.AdaptiveMaxPool2d: nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool3d: nn.AdaptiveAvgPool3d,
}


def is_max_pool(module: nn.Module | None) -> bool:
    """True for torch's maximum poolings, adaptive ones too."""
    return isinstance(module, _MAX_POOLS)


def passes_maxima(layer: nn.Module) -> bool:
    """True for the spiking forms of maximum pooling, which send no more in a step than the greatest value that came."""
    if isinstance(layer, TemporalDifference):
        return is_max_pool(layer.function)
    return isinstance(layer, GatedMaxPool)


class GatedMaxPool(Timed):
    """Passes on what the input with the largest sum so far sends in this step (snn_toolbox calls it fir_max).

    Args:
        pool: the maximum pooling of one step; it must be able to return indices.
    """

    def __init__(self, pool: nn.Module) -> None:
        super().__init__()
        gate: Any = copy.copy(pool)
        gate.return_indices = True
        self.pool = gate
        self._sum: torch.Tensor | None = None

    def sequence(self, *x: torch.Tensor) -> torch.Tensor:
        (steps,) = x
        sums = steps.cumsum(0)
        if self._sum is not None:
            sums = sums + self._sum
        self._sum = sums[-1]
        flat = steps.flatten(0, 1)
        _, winners = self.pool(sums.flatten(0, 1))
        space = winners.dim() - 2
        chosen = flat.flatten(-space).gather(-1, winners.flatten(-space))
        return chosen.view(winners.shape).unflatten(0, steps.shape[:2])

    def reset(self) -> None:
        self._sum = None


def average_pool(pool: nn.Module) -> nn.Module:
    """The average pooling over the same windows. Raises ValueError for windows with gaps."""
    kind = type(pool)
    base = next(base for base in kind.__mro__ if base in _AVERAGE)
    if issubclass(base, nn.modules.pooling._AdaptiveMaxPoolNd):
        return _AVERAGE[base](pool.output_size)
    dilation = pool.dilation
    if any(step != 1 for step in (dilation if isinstance(dilation, tuple) else (dilation,))):
        raise ValueError("max_pool='average': a dilated maximum pooling has no average form")
    return _AVERAGE[base](pool.kernel_size, pool.stride, pool.padding, ceil_mode=pool.ceil_mode)
