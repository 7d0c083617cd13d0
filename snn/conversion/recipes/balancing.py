"""Local threshold balancing: thresholds that grow channel by channel while clipped data pass through the network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from snn.conversion.delay import firing_delay
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.neurons import soft_reset_if
from snn.conversion.recipe import Recipe, upper_bound
from snn.conversion.recipes.rate_coded import (
    MaxPool,
    check_count,
    check_max_pool,
    check_number,
    replaced_pool_or_affine,
)
from snn.conversion.thresholds import positive_thresholds, shaped


@dataclass(frozen=True)
class LTB(Recipe):
    """Thresholds per channel by theta <- theta + 2 mean(max(a - theta, 0)) for each batch, from 0.

    Activations are clipped at their threshold before they go on, so that each layer meets what the layers before it
    can express. Thresholds only grow: batches and passes decide how far, a few dozen updates are usual.

    Args:
        passes: how often the calibration data are gone through.
        start: membrane before the first step in thresholds, in [0, 1).
        max_pool: see `RateCoded`.
        delay: first steps that the read-out leaves out, or "auto".
    Source: Bu, Li and Yu, CVPR 2025 (arXiv 2409.03368).
    """

    passes: int = 2
    start: float = 0.5
    max_pool: MaxPool = "exact"
    delay: int | Literal["auto"] = 0

    def __post_init__(self) -> None:
        check_count("passes", self.passes, 1)
        check_number("start", self.start, 1.0, closed=False)
        check_max_pool(self.max_pool)
        if self.delay != "auto":
            check_count("delay", self.delay, 0)

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        ceiling = upper_bound(module)
        if ceiling is not None:
            return SpikingLayer(name, soft_reset_if, ceiling=ceiling)
        return replaced_pool_or_affine(module, self.max_pool)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        found: dict[str, torch.Tensor] = {}
        handles = [
            network.source.get_submodule(name).register_forward_hook(_balance(name, found)) for name in network.layers()
        ]
        try:
            for _ in range(self.passes):
                for batch in batches:
                    network.source(batch)
        finally:
            for handle in handles:
                handle.remove()
        for name, layer in network.layers().items():
            theta = found[name]
            rows = positive_thresholds(theta.flatten(), theta.flatten())
            layer.set_threshold(shaped(rows, True, theta.dim() + 1, theta).clamp(max=layer.ceiling), self.start)
        network.skipped_steps.fill_(firing_delay(network, batches) if self.delay == "auto" else self.delay)


def _balance(
    name: str, found: dict[str, torch.Tensor]
) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], torch.Tensor]:
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], a: torch.Tensor) -> torch.Tensor:
        theta = found.get(name)
        if theta is None:
            theta = a.new_zeros((a.shape[1], *(1 for _ in range(a.dim() - 2))))
        exceeding = (a - theta).clamp(min=0.0)
        theta = theta + 2.0 * exceeding.transpose(0, 1).flatten(1).mean(1).view(theta.shape)
        found[name] = theta
        return torch.minimum(a, theta)

    return hook
