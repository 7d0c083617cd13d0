"""Neurons that can take a spike back."""

from __future__ import annotations

from dataclasses import dataclass

from snn.conversion.layers import SpikingLayer
from snn.conversion.neurons import signed_if
from snn.conversion.recipes.rate_coded import RateCoded


@dataclass(frozen=True)
class Signed(RateCoded):
    """A negative spike where the membrane is below 0 and more positive than negative ones were sent.

    It repairs neurons that have sent too much, not those that have sent too little. Options as in `RateCoded`.

    Source: the signed neuron with spike memory of Wang et al. (SNM), IJCAI 2022, with its threshold for negative spikes
        at 0.
    """

    def neurons(self, name: str, ceiling: float, clips: bool) -> SpikingLayer:
        return SpikingLayer(name, signed_if, lowest=-1, run_bounds=(0, None), ceiling=ceiling)
