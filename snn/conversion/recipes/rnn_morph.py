"""RNN-Morph: quantised recurrent layers, alone or behind a quantised CNN, become ST-BIF neurons exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snn.conversion.network import Coding, ConvertedNetwork
from snn.conversion.quantised_recurrent import QuantCell
from snn.conversion.recipe import Recipe
from snn.conversion.recipes.stbif import exact_replacement
from snn.conversion.recurrent import SpikingRecurrent, Wiring, require_wiring
from snn.conversion.verification import exactness
from snn.errors import UnsupportedError


@dataclass(frozen=True)
class RNNMorph(Recipe):
    """`QuantRNN`, `QuantGRU` and `QuantLSTM` become neurons that settle once per element of the sequence.

    What lies before and behind them is converted as by recipe "stbif". A recurrent layer waits until its input has
    settled.

    Args:
        wiring: how a state comes to the next element: "count" (as a whole number), "replay" (its spike train again) or
            "difference" (by how much it has changed). All settle at the same numbers.
        inner_steps: most steps per element; None runs each until it is silent.
        stepwise: True runs every inner step; False takes the closed form where that is the same.
    Source: Su et al., Obtaining Optimal Spiking Neural Network in Sequence Learning via CRNN-SNN Conversion,
        arXiv 2408.09403.
    """

    coding: ClassVar[Coding] = "sum"
    needs_calibration: ClassVar[bool] = False

    wiring: Wiring = "count"
    inner_steps: int | None = None
    stepwise: bool = False

    def __post_init__(self) -> None:
        require_wiring(self.wiring)
        if self.inner_steps is not None and (not isinstance(self.inner_steps, int) or self.inner_steps < 1):
            raise ValueError(f"inner_steps must be None or a whole number >= 1, got {self.inner_steps!r}")

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        if isinstance(module, QuantCell):
            return SpikingRecurrent(name, module, self.wiring, self.inner_steps, self.stepwise)
        if isinstance(module, nn.RNNBase | nn.RNNCellBase):
            kind = type(module).__name__
            raise UnsupportedError(
                f"{kind} is not quantised; use snn.conversion.Quant{kind.removesuffix('Cell')} instead and train again "
                "(snn.conversion.quantised_recurrent.from_float takes weights over)"
            )
        return exact_replacement(name, module)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        """Only notes what is guaranteed: steps and bounds are those of the quantisers."""
        network.notes.append(str(exactness(network)))
