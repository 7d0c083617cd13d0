"""Temporal differences: every function, product and attention of the source network, exactly, on signals over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snn.conversion.canonical_forms import Attention
from snn.conversion.functions import ChannelAffine, DotProductAttention, MatrixProduct, Product, Quotient
from snn.conversion.network import Coding, ConvertedNetwork
from snn.conversion.recipe import Recipe, is_affine, unsupported
from snn.conversion.recipes.stbif import of_quantiser
from snn.conversion.temporal_difference import (
    FUNCTIONS,
    DeltaProduct,
    SpikingAttention,
    SpikingMultiheadAttention,
    TemporalDifference,
    check_function,
)
from snn.conversion.verification import exactness
from snn.errors import UnsupportedError


@dataclass(frozen=True)
class TemporalDifferences(Recipe):
    """Functions send by how much their result has changed, quantised activations become ST-BIF neurons.

    Nothing is approximated: the read-out equals the source network's output up to rounding, at once where there are no
    neurons and when the network is silent where there are. What the operators send are real values, not spikes.

    Source: You et al., SpikeZIP-TF, ICML 2024; Jiang et al., STA, ICLR 2024.
    """

    coding: ClassVar[Coding] = "sum"
    needs_calibration: ClassVar[bool] = False

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        layer = of_quantiser(name, module)
        if layer is not None:
            return layer
        if isinstance(module, FUNCTIONS):
            check_function(module)
            return TemporalDifference(module)
        if isinstance(module, Product | MatrixProduct):
            return DeltaProduct(matrix=isinstance(module, MatrixProduct))
        if isinstance(module, DotProductAttention):
            return SpikingAttention(module.is_causal, module.scale)
        if isinstance(module, Attention):
            return SpikingMultiheadAttention(module.attention)
        if isinstance(module, Quotient):
            raise UnsupportedError(
                "a quotient of two signals is undefined while its divisor is still 0; write it as a layer of one signal"
            )
        if is_affine(module) or isinstance(module, ChannelAffine):
            return None
        raise unsupported(module)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        """Only notes what is guaranteed: steps and bounds are those of the quantisers."""
        network.notes.append(str(exactness(network)))
