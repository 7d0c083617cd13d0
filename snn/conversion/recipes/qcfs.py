"""Conversion of networks that were trained with QCFS activations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snn.conversion.activations import QCFS
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.neurons import soft_reset_if
from snn.conversion.recipe import Recipe, upper_bound
from snn.conversion.recipes.rate_coded import (
    MaxPool,
    check_max_pool,
    check_number,
    replaced_pool_or_affine,
    with_learned_threshold,
)
from snn.errors import UnsupportedError


@dataclass(frozen=True)
class FromQCFS(Recipe):
    """Integrate-and-fire neurons with the learned thresholds, started at half of them. Needs no calibration data.

    One layer with constant input gives the activation exactly at T = levels; through several layers the error is zero on
    average only. For outputs that are exact at any depth see recipe "stbif".

    Args:
        start: membrane before the first step in thresholds, in [0, 1).
        max_pool: see `RateCoded`; the paper trains with average pooling.
    Source: Bu et al., ICLR 2022.
    """

    start: float = 0.5
    max_pool: MaxPool = "exact"

    needs_calibration: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_number("start", self.start, 1.0, closed=False)
        check_max_pool(self.max_pool)

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        if isinstance(module, QCFS):
            return with_learned_threshold(SpikingLayer(name, soft_reset_if), module, self.start)
        if upper_bound(module) is not None:
            raise UnsupportedError(
                f"{type(module).__name__} has no learned threshold; train with snn.conversion.QCFS(levels) in its place, "
                "or use recipe='rate'"
            )
        return replaced_pool_or_affine(module, self.max_pool)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        """Nothing: the thresholds are part of the source network."""
