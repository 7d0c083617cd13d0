"""Rate coding: integrate-and-fire neurons whose mean output is the activation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from snn.conversion.functions import ChannelAffine
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.neurons import soft_reset_if
from snn.conversion.pooling import CumulativeMaxPool, GatedMaxPool, average_pool, is_max_pool
from snn.conversion.recipe import Recipe, is_affine, unsupported, upper_bound
from snn.conversion.thresholds import data_thresholds, set_thresholds

MaxPool = Literal["exact", "gate", "average"]
Rule = Literal["percentile", "max", "mse", "model"]


@dataclass(frozen=True)
class Rate(Recipe):
    """Thresholds from data or weights, integrate-and-fire neurons with soft reset.

    Args:
        threshold: "percentile" or "max" of the activations, "mse" (least squared error at T steps), or "model" (greatest
            possible drive by the weights; needs no calibration).
        percentile: in (0, 100].
        channelwise: a threshold for each channel instead of one for each layer.
        count_zeros: False takes the percentile over positive activations alone.
        start: membrane before the first step in thresholds, in [0, 1): 0.5 rounds to the nearest count, 0 down.
        max_pool: "exact" passes on how much the maximum of the sums grows, "gate" the spikes of the input that leads,
            "average" replaces it by average pooling, which changes the network.
        delay: first steps that the read-out leaves out; "auto" estimates how many pass before the deepest layer fires.
    Source: Rueckauer et al., Front. Neurosci. 11:682, 2017; Diehl et al., IJCNN 2015 ("model").
    """

    threshold: Rule = "percentile"
    percentile: float = 99.9
    channelwise: bool = False
    count_zeros: bool = True
    start: float = 0.5
    max_pool: MaxPool = "exact"
    delay: int | Literal["auto"] = 0

    def __post_init__(self) -> None:
        if self.threshold not in ("percentile", "max", "mse", "model"):
            raise ValueError(f"threshold must be 'percentile', 'max', 'mse' or 'model', got {self.threshold!r}")
        check_share("percentile", self.percentile, 100.0, closed=True)
        check_share("start", self.start, 1.0, closed=False)
        check_max_pool(self.max_pool)
        if self.delay != "auto" and (not isinstance(self.delay, int) or self.delay < 0):
            raise ValueError(f"delay must be 'auto' or a number of steps >= 0, got {self.delay!r}")

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        ceiling = upper_bound(module)
        if ceiling is not None:
            return SpikingLayer(name, soft_reset_if, ceiling=ceiling)
        return replaced_pool_or_affine(module, self.max_pool)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        thresholds = data_thresholds(
            network,
            batches,
            self.threshold,
            percentile=self.percentile,
            channelwise=self.channelwise,
            count_zeros=self.count_zeros,
            steps=T,
            start=self.start,
        )
        set_thresholds(network, thresholds, self.start)


def check_share(option: str, value: float, most: float, closed: bool) -> None:
    """Raises ValueError unless `value` is a number in (0, most] (closed) or [0, most)."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (0 < value <= most if closed else 0 <= value < most):
        interval = f"(0, {most:g}]" if closed else f"[0, {most:g})"
        raise ValueError(f"{option} must lie in {interval}, got {value!r}")


def check_max_pool(value: str) -> None:
    """Raises ValueError for an unknown handling of maximum pooling."""
    if value not in ("exact", "gate", "average"):
        raise ValueError(f"max_pool must be 'exact', 'gate' or 'average', got {value!r}")


def replaced_pool_or_affine(module: nn.Module, max_pool: MaxPool) -> nn.Module | None:
    """What stands for a layer that is no activation, under rate coding.

    Raises: UnsupportedError for a layer that is neither affine nor a maximum pooling.
    """
    if is_max_pool(module):
        forms = {"exact": CumulativeMaxPool, "gate": GatedMaxPool, "average": average_pool}
        return forms[max_pool](module)
    if is_affine(module) or isinstance(module, ChannelAffine):
        return None
    raise unsupported(module)
