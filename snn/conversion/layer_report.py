"""What is known about one layer of a converted network after many images, from running sums."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from snn.conversion.error_split import Coding, ErrorSplit, SpikingResponse, error_split
from snn.conversion.output_pairs import OutputPairs

TERMS = ("clipping", "quantisation", "unevenness", "propagated")


class Layer(Protocol):
    """What a report needs of a spiking layer; see `snn.conversion.layers.SpikingLayer`."""

    mask: torch.Tensor | None

    @property
    def threshold(self) -> torch.Tensor: ...

    def count_bounds(self, steps: int) -> tuple[int, int]: ...


class Record(Protocol):
    """What a report needs of a run's sums; see `snn.conversion.layers.LayerRecord`."""

    input_sum: torch.Tensor
    output_sum: torch.Tensor
    events: torch.Tensor
    membrane: torch.Tensor
    initial: torch.Tensor
    steps: int


@dataclass(frozen=True)
class Term:
    """Size of one kind of error over all neurons and images, in the unit of the source network."""

    mean: float
    mean_absolute: float
    root_mean_square: float


@dataclass(frozen=True)
class LayerReport:
    """One spiking layer.

    Attributes:
        name: of the activation in the source network.
        neurons: number of neurons for one image.
        threshold_least, threshold_greatest: smallest and largest value of a spike.
        source_mean: mean activation of the source network.
        spiking_mean: mean output of the spiking layer.
        correlation: Pearson correlation of both over all neurons and images; None where one of them is constant.
        errors: size of each term of `error_split` and of their sum, "total".
        equal: share of outputs that differ from the activation by less than a thousandth of a threshold.
        silent: share of neurons without a spike on any image.
        silent_in_source: share of neurons whose activation is 0 on all images.
        saturated: share of outputs at the greatest count.
        residual: mean of |v(T) - v(0)| / threshold over the outputs between the least and the greatest count; None if
            there are none.
        too_many, too_few: share of neurons and images that sent more than their summed input is worth and end with a
            membrane below 0, or less and end with at least the threshold.
        charge_balance: largest |theta N + v(T) - v(0) - sum of inputs| / threshold, 0 up to rounding.
        events: steps with a spike per image, all neurons together.
        first_difference: (image, neuron, activation, output) of the first output that is not equal; None if all are.
    """

    name: str
    neurons: int
    threshold_least: float
    threshold_greatest: float
    source_mean: float
    spiking_mean: float
    correlation: float | None
    errors: dict[str, Term]
    equal: float
    silent: float
    silent_in_source: float
    saturated: float
    residual: float | None
    too_many: float
    too_few: float
    charge_balance: float
    events: float
    first_difference: tuple[int, int, float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def difference_in_words(self) -> str | None:
        """The first difference, or None."""
        if self.first_difference is None:
            return None
        image, neuron, activation, output = self.first_difference
        return f"{self.name}: neuron {neuron}, image {image}: {activation:.6g} became {output:.6g}"


class LayerSums:
    """Running sums of one layer over batches.

    Args:
        name: of the activation.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.images = 0
        self.neurons = 0
        self.sums: dict[str, float] = {}
        self.charge = 0.0
        self.first_difference: tuple[int, int, float, float] | None = None
        self.pairs = OutputPairs()
        self._spoke = torch.zeros(0, dtype=torch.bool)
        self._active = torch.zeros(0, dtype=torch.bool)
        self._thresholds = (0.0, 0.0)

    def add(self, z: torch.Tensor, a: torch.Tensor, layer: Layer, record: Record, coding: Coding) -> None:
        """Add one batch.

        Args:
            z: pre-activation of the source network [B, ...].
            a: its activation.
            layer: the spiking layer.
            record: what it did on the same batch.
            coding: of the network.
        """
        z, a = z.double(), a.double()
        theta = layer.threshold.detach().double()
        lowest, highest = layer.count_bounds(record.steps)
        initial = record.initial.double()
        response = SpikingResponse(theta, initial, lowest, highest, record.steps, coding)
        input_sum, output_sum, membrane = (
            record.input_sum.double(),
            record.output_sum.double(),
            record.membrane.double(),
        )
        split = error_split(z, a, input_sum, output_sum, response)
        output = output_sum / response.divisor
        self.pairs.add(a, output)
        self._add_errors(split, a, output, theta)
        counts = (output_sum / theta).round()
        inside = (counts > lowest) & (counts < highest)
        found = {
            "saturated": counts >= highest,
            "inside": inside,
            "residual": ((membrane - initial).abs() / theta)[inside],
            "too many": (membrane < 0) & (counts > lowest),
            "too few": (membrane >= theta) & (counts < highest),
            "events": record.events,
        }
        for key, value in found.items():
            self.sums[key] = self.sums.get(key, 0.0) + float(value.sum())
        balance = (output_sum + membrane - initial - input_sum).abs() / theta
        if layer.mask is not None:  # a neuron that is kept from sending still subtracts its spikes
            balance = balance * layer.mask
        self.charge = max(self.charge, float(balance.max()))
        spoke, active = (record.events > 0).any(0).flatten().cpu(), (a > 0).any(0).flatten().cpu()
        self._spoke = spoke if not self.images else self._spoke | spoke
        self._active = active if not self.images else self._active | active
        self._thresholds = (float(theta.min()), float(theta.max()))
        self.neurons = a[0].numel()
        self.images += len(a)

    def _add_errors(self, split: ErrorSplit, a: torch.Tensor, output: torch.Tensor, theta: torch.Tensor) -> None:
        for name, term in zip((*TERMS, "total"), (*split, output - a), strict=True):
            for key, value in (("mean", term), ("absolute", term.abs()), ("square", term * term)):
                self.sums[f"{name} {key}"] = self.sums.get(f"{name} {key}", 0.0) + float(value.sum())
        differs = (output - a).abs() > 1e-3 * theta
        self.sums["equal"] = self.sums.get("equal", 0.0) + differs.numel() - _count(differs)
        if self.first_difference is None and bool(differs.any()):
            place = int(differs.flatten().to(torch.uint8).argmax())
            size = a[0].numel()
            values = float(a.flatten()[place]), float(output.flatten()[place])
            self.first_difference = (self.images + place // size, place % size, *values)

    def report(self) -> LayerReport:
        """The figures over all batches so far.

        Raises: ValueError if there was none.
        """
        if not self.images:
            raise ValueError(f"layer {self.name!r}: there are no images to report on")
        count = self.images * self.neurons

        def mean(key: str) -> float:
            return self.sums[key] / count

        def term(name: str) -> Term:
            return Term(mean(f"{name} mean"), mean(f"{name} absolute"), mean(f"{name} square") ** 0.5)

        return LayerReport(
            name=self.name,
            neurons=self.neurons,
            threshold_least=self._thresholds[0],
            threshold_greatest=self._thresholds[1],
            source_mean=self.pairs.means[0],
            spiking_mean=self.pairs.means[1],
            correlation=self.pairs.correlation,
            errors={name: term(name) for name in (*TERMS, "total")},
            equal=mean("equal"),
            silent=1.0 - _count(self._spoke) / self.neurons,
            silent_in_source=1.0 - _count(self._active) / self.neurons,
            saturated=mean("saturated"),
            residual=self.sums["residual"] / self.sums["inside"] if self.sums["inside"] else None,
            too_many=mean("too many"),
            too_few=mean("too few"),
            charge_balance=self.charge,
            events=self.sums["events"] / self.images,
            first_difference=self.first_difference,
        )


def _count(found: torch.Tensor) -> int:
    return int(found.sum())
