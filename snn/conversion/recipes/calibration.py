"""SNN calibration: the mean error of each layer is measured and taken out, layer after layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.neurons import soft_reset_if
from snn.conversion.recipes.rate_coded import RateCoded, Rule, check_count
from snn.conversion.thresholds import observe
from snn.conversion.visits import visited_layers


@dataclass(frozen=True)
class _Calibrated(RateCoded):
    """Thresholds by least squares, then a correction of each layer with the corrected layers before it.

    Args:
        samples: how many calibration samples the corrections are measured on; they run all T steps at once.
        rounds: how often each layer is measured and corrected.
    """

    threshold: Rule = "mse"
    samples: int = 64
    rounds: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("samples", self.samples, 1)
        check_count("rounds", self.rounds, 1)

    def neurons(self, name: str, ceiling: float, clips: bool) -> SpikingLayer:
        return SpikingLayer(name, soft_reset_if, ceiling=ceiling)

    @abstractmethod
    def correct(self, layer: SpikingLayer, error: torch.Tensor, T: int) -> None:
        """Takes a mean error [C, ...] (spiking minus source) out of the layer."""

    def needs_data(self, network: ConvertedNetwork) -> bool:
        return True

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        super().calibrate(network, batches, T)
        images = torch.cat(_first(batches, self.samples))
        means: dict[str, torch.Tensor] = {}
        observe(network, [images], list(network.layers()), lambda name, a: means.update({name: a.mean(0)}))

        def visit(layer: SpikingLayer, current: torch.Tensor) -> torch.Tensor:
            for _ in range(self.rounds):
                output = _run(layer, current)
                self.correct(layer, output.mean((0, 1)) - means[layer.name], T)
            return _run(layer, current)

        network.reset()
        with visited_layers(network, visit):
            network.run_in_one_chunk(images, T)
        network.reset()


@dataclass(frozen=True)
class CalibrationLight(_Calibrated):
    """SNN calibration of biases: each channel's mean output error goes into a constant current.

    Thresholds have the least squared error at T steps unless another rule is asked for. Options as in `RateCoded`, and:

    Args:
        samples: calibration samples of the corrections; they run all T steps at once, which takes T times the memory of
            one step.
        rounds: measurements and corrections of each layer.
    Source: Li et al., ICML 2021, with the start at theta/2 in place of theta/(2T) in every step.
    """

    def correct(self, layer: SpikingLayer, error: torch.Tensor, T: int) -> None:
        per_channel = error.reshape(len(error), -1).mean(1).view(-1, *(1 for _ in range(error.dim() - 1)))
        layer.set_correction(layer.correction - per_channel)


@dataclass(frozen=True)
class CalibrationAdvanced(_Calibrated):
    """SNN calibration of potentials: each neuron starts higher or lower by T times its mean output error.

    Options as in `CalibrationLight`. The starts hold for inputs of one size and for runs of T steps.

    Source: Li et al., ICML 2021, potential correction (the authors' CIFAR script; without the fit of the weights).
    """

    def correct(self, layer: SpikingLayer, error: torch.Tensor, T: int) -> None:
        layer.set_initial(layer.initial - T * error)


def _first(batches: Sequence[torch.Tensor], count: int) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for batch in batches:
        found.append(batch[: count - sum(map(len, found))])
        if sum(map(len, found)) >= count:
            break
    return found


def _run(layer: SpikingLayer, current: torch.Tensor) -> torch.Tensor:
    layer.reset()
    return layer.sequence(current)
