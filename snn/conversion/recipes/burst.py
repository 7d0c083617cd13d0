"""Neurons that send several spikes in one step."""

from __future__ import annotations

from dataclasses import dataclass

from snn.conversion.layers import SpikingLayer
from snn.conversion.neurons import burst_if, clipped_burst_if
from snn.conversion.recipes.rate_coded import RateCoded, check_count


@dataclass(frozen=True)
class Burst(RateCoded):
    """Up to `gamma` spikes per step, so that a neuron can catch up with input that came late.

    The other options are those of `RateCoded`. An activation with a greatest value gets a threshold of at most that
    value over gamma; after a QCFS activation a neuron never has sent more spikes than steps have passed.

    Args:
        gamma: most spikes of a step.
    Source: Li and Zeng, IJCAI 2022.
    """

    gamma: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("gamma", self.gamma, 1)

    def neurons(self, name: str, ceiling: float, clips: bool) -> SpikingLayer:
        most = {"most": float(self.gamma)}
        if clips:
            return SpikingLayer(name, clipped_burst_if, most, step_counts=(0, self.gamma))
        return SpikingLayer(name, burst_if, most, highest=self.gamma, ceiling=ceiling)
