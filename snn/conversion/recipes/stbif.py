"""ST-BIF: a quantised network becomes a spiking one that settles at exactly its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import nn

from snn.conversion.activations import QCFS, QuantAct
from snn.conversion.functions import ChannelAffine
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import Coding, ConvertedNetwork
from snn.conversion.pooling import is_max_pool
from snn.conversion.recipe import Recipe, is_affine, unsupported, upper_bound
from snn.conversion.temporal_difference import TemporalDifference, check_function
from snn.conversion.verification import exactness
from snn.errors import UnsupportedError
from snn.neurons.tracer import bipolar_with_tracer


def tracer_layer(name: str, lo: int, hi: int) -> SpikingLayer:
    """ST-BIF neurons between these counts, their threshold still unset."""
    bounds = {"lo": float(lo), "hi": float(hi)}
    return SpikingLayer(
        name, bipolar_with_tracer, bounds, lowest=-1, highest=1, run_bounds=(lo, hi), unit_membrane=True
    )


def of_quantiser(name: str, module: nn.Module) -> SpikingLayer | None:
    """ST-BIF neurons that settle at a quantised activation; None for another layer.

    Raises:
        UnsupportedError: the step of the quantiser was never set.
    """
    if isinstance(module, QuantAct) and not module.step_is_set:
        raise UnsupportedError("the step of this QuantAct is not set; train the network or run one batch through it")
    if not isinstance(module, QCFS | QuantAct):
        return None
    layer = tracer_layer(name, module.lo, module.hi)
    layer.set_threshold(module.step.detach(), 0.5)
    return layer


def exact_replacement(name: str, module: nn.Module) -> nn.Module | None:
    """The layer of an exact conversion: neurons for a quantiser, a difference for a maximum pooling, None if affine.

    Raises:
        UnsupportedError: any other layer.
    """
    layer = of_quantiser(name, module)
    if layer is not None:
        return layer
    if is_max_pool(module):
        check_function(module)
        return TemporalDifference(module)
    if is_affine(module) or isinstance(module, ChannelAffine):
        return None
    if upper_bound(module) is not None:
        kind = type(module).__name__
        raise UnsupportedError(
            f"{kind} is not quantised; use recipe='cnn-morph', which quantises it, or train with QuantAct or QCFS"
        )
    raise unsupported(module)


@dataclass(frozen=True)
class STBIF(Recipe):
    """Quantised activations (`QCFS`, `QuantAct`) become bipolar neurons with a tracer; maximum pooling a difference.

    The input and all biases come in the first step alone, and the read-out is a sum. Once the network is silent it
    equals the quantised network, whatever the order in which spikes arrived.

    Source: You et al., SpikeZIP-TF, ICML 2024; Su et al., arXiv 2408.09403.
    """

    coding: ClassVar[Coding] = "sum"
    needs_calibration: ClassVar[bool] = False

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        return exact_replacement(name, module)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        """Only notes what is guaranteed: steps and bounds are those of the quantisers."""
        network.notes.append(str(exactness(network)))
