"""CNN-Morph: quantises a ReLU network by calibration and turns it into ST-BIF neurons, exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from snn.conversion.activations import QCFS, QuantAct
from snn.conversion.dyadic_rounding import power_of_two, rounded_to_bits
from snn.conversion.functions import ChannelAffine
from snn.conversion.layers import SpikingLayer
from snn.conversion.network import Coding, ConvertedNetwork
from snn.conversion.recipe import Recipe, upper_bound
from snn.conversion.recipes.stbif import exact_replacement, tracer_layer
from snn.conversion.thresholds import data_thresholds
from snn.conversion.verification import exactness, quantised_form
from snn.conversion.visits import put_layer

FineTune = Callable[[nn.Module], object]


@dataclass(frozen=True)
class CNNMorph(Recipe):
    """Every ReLU becomes a quantiser of so many levels with a step from data, and that the ST-BIF neuron of it.

    The spiking network equals the quantised one exactly (`quantised_form` gives it); what is lost against the ANN is
    what quantisation loses. Activations that are quantised already keep their steps.

    Args:
        levels: output values of an activation, 0 among them; levels - 1 spikes at most.
        threshold: rule for the greatest value, (levels - 1) steps: "mse" (least squared error of the quantiser), "percentile"
            or "max".
        percentile: in (0, 100], for "percentile".
        channelwise: a step for each channel instead of one for each layer.
        fine_tune: called with the quantised network, ready to be trained, after calibration; trains it in place. The
            spiking network takes its weights and steps.
        dyadic_bits: rounds weights to so many binary places and steps to powers of two, after all else; 0 does not.
    Source: Su et al., Obtaining Optimal Spiking Neural Network in Sequence Learning via CRNN-SNN Conversion,
        arXiv 2408.09403.
    """

    coding: ClassVar[Coding] = "sum"

    levels: int = 16
    threshold: Literal["mse", "percentile", "max"] = "mse"
    percentile: float = 99.9
    channelwise: bool = False
    fine_tune: FineTune | None = None
    dyadic_bits: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.levels, int) or self.levels < 2:
            raise ValueError(f"levels must be a whole number >= 2, got {self.levels!r}")
        if self.threshold not in ("mse", "percentile", "max"):
            raise ValueError(f"threshold must be 'mse', 'percentile' or 'max', got {self.threshold!r}")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"percentile must lie in (0, 100], got {self.percentile!r}")
        if self.fine_tune is not None and not callable(self.fine_tune):
            raise TypeError(f"fine_tune must be a function of the quantised network, got {self.fine_tune!r}")
        if not 0 <= self.dyadic_bits <= 23:
            raise ValueError(f"dyadic_bits must lie in 0 .. 23, got {self.dyadic_bits!r}")

    def replacement(self, name: str, module: nn.Module) -> nn.Module | None:
        ceiling = upper_bound(module)
        if ceiling is None:
            return exact_replacement(name, module)
        layer = tracer_layer(name, 0, self.levels - 1)
        layer.ceiling = ceiling
        return layer

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        open_layers = [name for name, layer in network.layers().items() if bool(layer.threshold.isnan().any())]
        greatest = data_thresholds(
            network,
            batches,
            open_layers,
            self.threshold,
            percentile=self.percentile,
            channelwise=self.channelwise,
            steps=self.levels - 1,
            start=0.5,
        )
        for name in open_layers:
            network.layers()[name].set_threshold(greatest[name] / (self.levels - 1), 0.5)
        if self.fine_tune is not None:
            trained = quantised_form(network, trainable=True)
            with torch.enable_grad():
                self.fine_tune(trained)
            adopt(network, trained)
        if self.dyadic_bits:
            _round(network, self.dyadic_bits)
        network.notes.append(str(exactness(network)))


def adopt(network: ConvertedNetwork, trained: nn.Module) -> None:
    """Takes the weights and steps of the trained quantised form into a converted network; its source keeps its own."""
    for name, module in list(trained.named_modules()):
        if isinstance(module, QuantAct | QCFS):
            network.layers()[name].set_threshold(module.step.detach(), 0.5)
        elif next(module.parameters(recurse=False), None) is not None:
            put_layer(network.body, name, module.requires_grad_(False).eval())


def _round(network: ConvertedNetwork, bits: int) -> None:
    for layer in network.layers().values():
        layer.set_threshold(power_of_two(layer.threshold), 0.5)
    for module in network.body.modules():
        if isinstance(module, SpikingLayer):
            continue
        values: dict[str, Any] = {name: value for name, value in module._parameters.items() if value is not None}
        for name, value in values.items():
            module._parameters[name] = nn.Parameter(rounded_to_bits(value.detach(), bits), requires_grad=False)
        if isinstance(module, ChannelAffine):
            module.scale, module.shift = (rounded_to_bits(value, bits) for value in (module.scale, module.shift))
