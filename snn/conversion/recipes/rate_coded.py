"""What the rate-coding recipes share: thresholds from data or weights, pooling, and the delay of the read-out."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from snn.conversion.activations import QCFS
from snn.conversion.delay import firing_delay
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.pooling import GatedMaxPool, average_pool, is_max_pool
from snn.conversion.recipe import Recipe, is_affine, unsupported, upper_bound
from snn.conversion.temporal_difference import TemporalDifference, check_function
from snn.conversion.thresholds import data_thresholds
from snn.conversion.weight_bounds import weight_thresholds

MaxPool = Literal["exact", "gate", "average"]
Rule = Literal["percentile", "max", "mse", "model"]
_RULES = ("percentile", "max", "mse", "model")
_POOLS = ("exact", "gate", "average")


@dataclass(frozen=True)
class RateCoded(Recipe):
    """A recipe whose neurons' mean output is the activation. QCFS activations keep their learned threshold.

    Args:
        threshold: "percentile" or "max" of the activations, "mse" (least squared error at T steps), or "model" (greatest
            possible drive by the weights; needs no calibration).
        percentile: in (0, 100].
        channelwise: a threshold for each channel instead of one for each layer.
        count_zeros: False takes the percentile over positive activations alone.
        start: membrane before the first step in thresholds, in [0, 1): 0.5 rounds to the nearest count, 0 down.
        max_pool: "exact" passes on how much the maximum of the sums grows, "gate" the spikes of the input that leads,
            "average" replaces it by average pooling, which changes the network.
        delay: first steps that the read-out leaves out; "auto" estimates when the deepest layer fires first.
        input_range: least and greatest value of the input, for "model".
    """

    threshold: Rule = "percentile"
    percentile: float = 99.9
    channelwise: bool = False
    count_zeros: bool = True
    start: float = 0.5
    max_pool: MaxPool = "exact"
    delay: int | Literal["auto"] = 0
    input_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.threshold not in _RULES:
            raise ValueError(f"threshold must be one of {_RULES}, got {self.threshold!r}")
        check_number("percentile", self.percentile, 100.0, closed=True)
        check_number("start", self.start, 1.0, closed=False)
        if len(self.input_range) != 2 or not self.input_range[0] <= self.input_range[1]:
            raise ValueError(f"input_range must be (least, greatest), got {self.input_range!r}")
        check_max_pool(self.max_pool)
        if self.delay != "auto":
            check_count("delay", self.delay, 0)

    @abstractmethod
    def neurons(self, name: str, ceiling: float, clips: bool) -> SpikingLayer:
        """The spiking layer for an activation max(x, 0).

        Args:
            ceiling: greatest value of the activation.
            clips: True if that will be the threshold.
        """

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        if isinstance(module, QCFS):
            return with_learned_threshold(self.neurons(name, math.inf, True), module, self.start)
        ceiling = upper_bound(module)
        if ceiling is not None:
            return self.neurons(name, ceiling, False)
        return replaced_pool_or_affine(module, self.max_pool)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        for name, value in self.thresholds(network, batches, T).items():
            network.layers()[name].set_threshold(value, self.start)
        if self.delay != "auto":
            network.skipped_steps.fill_(self.delay)
        else:
            network.skipped_steps.fill_(firing_delay(network, batches))

    def thresholds(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> dict[str, torch.Tensor]:
        """Thresholds of the layers that have none yet."""
        unset = [name for name, layer in network.layers().items() if bool(layer.threshold.isnan().any())]
        if not unset:
            return {}
        if self.threshold == "model":
            found = weight_thresholds(network, self.input_range, self.channelwise)
            return {name: found[name] for name in unset}
        return data_thresholds(
            network,
            batches,
            unset,
            self.threshold,
            percentile=self.percentile,
            channelwise=self.channelwise,
            count_zeros=self.count_zeros,
            steps=T,
            start=self.start,
        )

    def needs_data(self, network: ConvertedNetwork) -> bool:
        unset = any(bool(layer.threshold.isnan().any()) for layer in network.layers().values())
        return self.delay == "auto" or (unset and self.threshold != "model")


def with_learned_threshold(layer: SpikingLayer, module: QCFS, start: float) -> SpikingLayer:
    """The layer with the threshold that the activation has learned.

    Raises: ValueError if that is not positive.
    """
    layer.set_threshold(module.threshold.detach(), start)
    return layer


def check_number(option: str, value: float, most: float, closed: bool) -> None:
    """Raises ValueError unless `value` is a number in (0, most] (closed) or [0, most)."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not (0 < value <= most if closed else 0 <= value < most):
        interval = f"(0, {most:g}]" if closed else f"[0, {most:g})"
        raise ValueError(f"{option} must lie in {interval}, got {value!r}")


def check_count(option: str, value: object, least: int) -> None:
    """Raises ValueError unless `value` is a whole number of at least `least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ValueError(f"{option} must be a whole number of at least {least}, got {value!r}")


def check_max_pool(value: str) -> None:
    """Raises ValueError for an unknown handling of maximum pooling."""
    if value not in _POOLS:
        raise ValueError(f"max_pool must be one of {_POOLS}, got {value!r}")


def replaced_pool_or_affine(module: nn.Module, max_pool: MaxPool) -> nn.Module | None:
    """What stands for a layer that is no activation, under rate coding.

    Raises: UnsupportedError for a layer that is neither affine nor a maximum pooling.
    """
    if is_max_pool(module):
        if max_pool == "average":
            return average_pool(module)
        check_function(module)
        return TemporalDifference(module) if max_pool == "exact" else GatedMaxPool(module)
    if is_affine(module):
        return None
    raise unsupported(module)
