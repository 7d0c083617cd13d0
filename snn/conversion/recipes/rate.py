"""Rate coding with integrate-and-fire neurons."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from snn.conversion.activations import QCFS
from snn.conversion.layers import SpikingLayer
from snn.conversion.neurons import soft_reset_if
from snn.conversion.recipes.rate_coded import RateCoded
from snn.errors import UnsupportedError


@dataclass(frozen=True)
class Rate(RateCoded):
    """Integrate-and-fire neurons with soft reset, at most one spike per step; for networks of ReLU.

    The options are those of `RateCoded`.

    Source: Rueckauer et al., Front. Neurosci. 11:682, 2017; Diehl et al., IJCNN 2015 (threshold="model").
    """

    def neurons(self, name: str, ceiling: float, clips: bool) -> SpikingLayer:
        return SpikingLayer(name, soft_reset_if, ceiling=ceiling)

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        if isinstance(module, QCFS):
            raise UnsupportedError("QCFS has learned its threshold; use recipe='qcfs', which keeps it")
        return super().replacement(name, module)
