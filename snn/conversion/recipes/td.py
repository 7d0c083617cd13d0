"""Temporal differences: every function, product and attention of the source network, exactly, on signals over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snn.conversion.canonical_forms import Attention
from snn.conversion.functions import ChannelAffine, DotProductAttention, MatrixProduct, Product, Quotient
from snn.conversion.layers import Timed
from snn.conversion.network import Coding, ConvertedNetwork
from snn.conversion.recipe import Recipe, is_affine, unsupported
from snn.conversion.recipes.stbif import of_quantiser
from snn.conversion.temporal_difference import (
    FUNCTIONS,
    DeltaProduct,
    Encoded,
    SpikingAttention,
    SpikingMultiheadAttention,
    TemporalDifference,
    check_function,
)
from snn.conversion.thresholds import observe
from snn.conversion.verification import exactness
from snn.errors import UnsupportedError


@dataclass(frozen=True)
class TemporalDifferences(Recipe):
    """Functions send by how much their result has changed, quantised activations become ST-BIF neurons.

    Nothing is approximated: the read-out equals the source network's output up to rounding, at once where there are no
    neurons and when the network is silent where there are. What the operators send are real values, unless they are
    encoded.

    Args:
        levels: whole numbers that the values of an operator are encoded in, up to +-levels for its greatest value on the
            calibration data; each sum is then off by less than one such step. 0 sends real values.
    Source: You et al., SpikeZIP-TF, ICML 2024; Jiang et al., STA, ICLR 2024.
    """

    coding: ClassVar[Coding] = "sum"
    needs_calibration: ClassVar[bool] = False

    levels: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or self.levels < 0:
            raise ValueError(f"levels must be a whole number >= 0, got {self.levels!r}")

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        layer = of_quantiser(name, module)
        if layer is not None:
            return layer
        operator = temporal_operator(module)
        if operator is not None:
            return Encoded(operator) if self.levels else operator
        if isinstance(module, Quotient):
            raise UnsupportedError(
                "a quotient of two signals is undefined while its divisor is still 0; write it as a layer of one signal"
            )
        if is_affine(module) or isinstance(module, ChannelAffine):
            return None
        raise unsupported(module)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        """Sets the steps of the encoders, if there are any, and notes what is guaranteed."""
        if self.levels:
            if not batches:
                raise ValueError("recipe 'td' with levels needs calibration data to find the greatest values")
            self._set_steps(network, batches)
        network.notes.append(str(exactness(network)))

    def _set_steps(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor]) -> None:
        encoders = {name: layer.encoder for name, layer in network.body.named_modules() if isinstance(layer, Encoded)}
        greatest = dict.fromkeys(encoders, 0.0)

        def see(name: str, values: torch.Tensor) -> None:
            greatest[name] = max(greatest[name], values.abs().max().item())

        observe(network, batches, list(encoders), see)
        for name, encoder in encoders.items():
            encoder.step.fill_((greatest[name] or 1.0) / self.levels)


def temporal_operator(module: nn.Module) -> Timed | None:
    """The operator on signals over time that stands for a layer; None where there is none."""
    if isinstance(module, FUNCTIONS):
        check_function(module)
        return TemporalDifference(module)
    if isinstance(module, Product | MatrixProduct):
        return DeltaProduct(matrix=isinstance(module, MatrixProduct))
    if isinstance(module, DotProductAttention):
        return SpikingAttention(module.is_causal, module.scale)
    if isinstance(module, Attention):
        return SpikingMultiheadAttention(module.attention)
    return None
