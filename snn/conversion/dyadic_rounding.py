"""Rounds a quantised network to dyadic numbers, whose sums and products floating point computes without error."""

from __future__ import annotations

import math

import torch
from torch import nn

from snn.conversion.activations import QCFS, QuantAct


def power_of_two(step: torch.Tensor) -> torch.Tensor:
    """The power of two nearest to each step on a logarithmic scale."""
    return torch.exp2(step.log2().round())


def rounded_to_bits(weight: torch.Tensor, bits: int) -> torch.Tensor:
    """The nearest multiples of 2^-bits of the power of two above the largest weight.

    Raises:
        ValueError: bits is not in 1 .. 23, what a float32 holds.
    """
    if not 1 <= bits <= 23:
        raise ValueError(f"bits must lie in 1 .. 23, got {bits}")
    largest = weight.abs().max().item()
    if largest == 0:
        return weight.clone()
    unit = 2.0 ** (math.ceil(math.log2(largest)) - bits)
    return (weight / unit).round() * unit


@torch.no_grad()
def make_dyadic(network: nn.Module, bits: int = 12) -> nn.Module:
    """Rounds every parameter to `bits` binary places, and every step of a quantiser to a power of two, in place.

    A network of linear layers and quantisers then gives the same bits in float64 in whatever order sums are taken, so
    that its spiking form can be compared with ==. Batch normalisation must be folded first; average pooling is dyadic
    for windows of 2^n values only.

    Args:
        network: with `QuantAct` or `QCFS` (whose levels must be a power of two then).
        bits: binary places of weights below the largest, 1 .. 23.
    Returns: the same network.
    Raises: ValueError for bits outside, or a QCFS whose levels are no power of two.
    """
    special: set[int] = set()
    for module in network.modules():
        if isinstance(module, QuantAct):
            module.step.copy_(power_of_two(module.step))
            special.add(id(module.step))
        elif isinstance(module, QCFS):
            if module.levels & (module.levels - 1):
                raise ValueError(f"make_dyadic: a QCFS must have 2^n levels to have a dyadic step, got {module.levels}")
            module.threshold.copy_(power_of_two(module.threshold))
            special.add(id(module.threshold))
    for parameter in network.parameters():
        if id(parameter) not in special:
            parameter.copy_(rounded_to_bits(parameter, bits))
    return network
