"""SNN calibration: the mean error of each layer is measured and taken out, layer after layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork
from snn.conversion.neurons import soft_reset_if
from snn.conversion.recipes.rate_coded import RateCoded, Rule, check_count, check_number
from snn.conversion.thresholds import observe
from snn.conversion.visits import visited_layers
from snn.conversion.weight_fit import Fit, Fitted, fit_weights, mean_inputs, segments


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
        self.correct_layers(network, batches, T, list(network.layers()))

    def correct_layers(
        self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int, names: Sequence[str]
    ) -> None:
        """Takes the mean errors of the named layers out, one after the other."""
        images = torch.cat(_first(batches, self.samples))
        means: dict[str, torch.Tensor] = {}
        observe(network, [images], names, lambda name, a: means.update({name: a.mean(0)}))

        def visit(layer: SpikingLayer, current: torch.Tensor) -> torch.Tensor:
            for _ in range(self.rounds if layer.name in means else 0):
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

    With `weights` the weights before each layer are fitted first, on all calibration images, so that T steps on the mean
    inputs of the converted network give the source's activations with the least squared error. Options as in
    `CalibrationLight`, and those below. The starts hold for inputs of one size and for runs of T steps.

    Args:
        weights: iterations of the fit for each layer; 0 leaves all weights as they are.
        learning_rate: of Adam, at the beginning of its cosine schedule.
        batch: images of one iteration.
        seed: of their order.
    Source: Li et al., ICML 2021, potential correction (the authors' CIFAR script) and weights (their ImageNet script, which has
        5000 iterations). Here the weights of the least error on all images are taken, of those looked at on the way.
    """

    weights: int = 0
    learning_rate: float = 1e-5
    batch: int = 32
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("weights", self.weights, 0)
        check_count("batch", self.batch, 1)
        check_count("seed", self.seed, 0)
        check_number("learning_rate", self.learning_rate, 1.0, closed=True)

    def correct(self, layer: SpikingLayer, error: torch.Tensor, T: int) -> None:
        layer.set_initial(layer.initial - T * error)

    def calibrate(self, network: ConvertedNetwork, batches: Sequence[torch.Tensor], T: int) -> None:
        if not self.weights:
            super().calibrate(network, batches, T)
            return
        parts = segments(network)
        RateCoded.calibrate(self, network, batches, T)
        fit = Fit(self.weights, self.learning_rate, self.batch, self.seed)
        images = [part for batch in batches for part in batch.split(self.samples)]
        found = {}
        for segment in parts:
            wanted = _activations(network, images, segment.activation)
            inputs = mean_inputs(network, segment, images, T)
            found[segment.activation] = fit_weights(network, segment, inputs, wanted, T, fit)
            self.correct_layers(network, batches, T, [segment.activation])
        network.notes.append(_note(found, self.weights))


def _activations(network: ConvertedNetwork, batches: Sequence[torch.Tensor], name: str) -> torch.Tensor:
    """The source network's activations [N, ...] of this name."""
    seen: list[torch.Tensor] = []
    observe(network, batches, [name], lambda _, a: seen.append(a))
    return torch.cat(seen)


def _note(found: Mapping[str, Fitted], iterations: int) -> str:
    errors = "; ".join(
        f"{name!r} {fitted.before:.4g} -> {fitted.after:.4g}{'' if fitted.lowered else ' (weights kept)'}"
        for name, fitted in found.items()
    )
    return f"weights fitted by {iterations} iterations for each layer; squared error: {errors}"


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
