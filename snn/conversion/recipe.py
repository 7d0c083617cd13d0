"""What a recipe is: it says what stands for each layer of the source network, and sets the thresholds from data."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from snn.conversion.activations import QuantAct
from snn.conversion.functions import (
    ChannelAffine,
    DotProductAttention,
    MatrixProduct,
    Product,
    Quotient,
)
from snn.conversion.network import Coding, ConvertedNetwork, Preparation
from snn.conversion.quantised_recurrent import QuantCell
from snn.errors import UnsupportedError

AFFINE: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.modules.conv._ConvNd,
    nn.modules.pooling._AvgPoolNd,
    nn.modules.pooling._AdaptiveAvgPoolNd,
    nn.Flatten,
    nn.Unflatten,
    nn.Upsample,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.ChannelShuffle,
    nn.Fold,
    nn.Unfold,
    nn.modules.padding._ReflectionPadNd,
    nn.modules.padding._ReplicationPadNd,
    ChannelAffine,
)
"""Layers that map sums to sums, up to their bias."""

_TEMPORAL = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.GELU,
    nn.SiLU,
    nn.Sigmoid,
    nn.Tanh,
    nn.Softmax,
    nn.LogSoftmax,
    nn.MultiheadAttention,
    Product,
    Quotient,
    MatrixProduct,
    DotProductAttention,
)


class Recipe(ABC):
    """One way to convert; its options are the arguments of its constructor.

    Class attributes:
        name: its name in `RECIPES`, for messages.
        coding: how a run codes, see `ConvertedNetwork`.
        needs_calibration: False if thresholds come from the source network itself.
    """

    name: ClassVar[str]
    coding: ClassVar[Coding] = "rate"
    needs_calibration: ClassVar[bool] = True

    @abstractmethod
    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        """The layer that stands for this one in the converted network.

        Asked for every layer whose input comes from a layer with memory, and for all activations.

        Returns: a layer, `Timed` or not; None keeps the module, which is allowed for affine ones alone.
        Raises: UnsupportedError with the reason and what to write instead; `convert` adds the name and the line.
        """

    @abstractmethod
    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        """Sets the thresholds of all spiking layers.

        Args:
            network: as built; `network.source` is the source network.
            batches: inputs [B, ...]; empty if `needs_calibration` is False and none were given.
            T: steps that the network will run.
        """

    def needs_data(self, network: ConvertedNetwork) -> bool:
        """Whether `calibrate` needs calibration data for this network."""
        return self.needs_calibration

    def preparation(self, T: int) -> Preparation | None:
        """What sets starting states before each run, or None."""
        return None


def upper_bound(module: nn.Module) -> float | None:
    """The greatest value of an activation that is max(x, 0) up to it (inf for ReLU); None for any other layer."""
    if isinstance(module, nn.ReLU):
        return math.inf
    if isinstance(module, nn.Hardtanh) and module.min_val == 0 and module.max_val > 0:
        return float(module.max_val)
    return None


def is_affine(module: nn.Module) -> bool:
    """True for a layer through which means and sums over time pass as they are."""
    if isinstance(module, nn.modules.padding._ConstantPadNd):
        return module.value == 0
    return isinstance(module, AFFINE)


def advice(module: nn.Module) -> str:
    """What to do about a layer that a recipe has no form for."""
    kind = type(module).__name__
    if isinstance(module, nn.RNNBase | nn.RNNCellBase | QuantCell):
        return f"{kind} needs recipe='rnn-morph'"
    if isinstance(module, QuantAct):
        return "QuantAct has a step of its own, which recipe='stbif' or 'cnn-morph' keeps exactly"
    if isinstance(module, _TEMPORAL):
        return f"{kind} is not linear and has no spiking form here; use recipe='td'"
    if isinstance(module, nn.modules.pooling._MaxPoolNd | nn.modules.pooling._AdaptiveMaxPoolNd):
        return f"{kind} is not linear; this recipe has no form for it; use average pooling or recipe='td'"
    return f"{kind} has no spiking form; use nn.ReLU (or nn.ReLU6, clamp) and train again, or recipe='td'"


def unsupported(module: nn.Module) -> UnsupportedError:
    """The refusal of a layer."""
    return UnsupportedError(advice(module))
