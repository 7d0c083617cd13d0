"""What is known about one recurrent layer of a converted network after many sequences, from running sums."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from snn.conversion.layer_report import Term
from snn.conversion.output_pairs import OutputPairs
from snn.conversion.quantised_recurrent import spike_unit
from snn.conversion.recurrent import SequenceRun, SpikingRecurrent, run_sequence

RECURRENT_TERMS = ("unsettled", "propagated")
COUNTED_IMAGES = 64
"""Most images whose inner steps a report runs one by one for their spikes, where the closed form does not give them."""


@dataclass(frozen=True)
class RecurrentReport:
    """One recurrent layer, compared with the quantised layer that it stands for.

    Both have the same levels, so nothing is clipped or rounded differently, and neurons that have settled do not depend on
    the order of arrival. What is left are two terms that add up to the difference from the source's output:

        unsettled  = output - cell(what the layer received): inner steps that were cut off
        propagated = cell(what the layer received) - cell(the source's input): the layers before

    Attributes:
        name: of the layer in the source network.
        kind: class of its cell.
        wiring: how states come to the next element.
        units: hidden units.
        neurons: of all populations, one for each quantiser of the cell.
        elements: length of the sequences, the longest where they differ.
        threshold_least, threshold_greatest: smallest and largest value of an output spike.
        source_mean, spiking_mean: mean output of the quantised layer and of the spiking one.
        source_size: mean absolute output of the quantised layer.
        correlation: Pearson correlation of both; None where one of them is constant.
        errors: size of each term and of their sum, "total".
        equal: share of outputs that differ by less than a thousandth of a spike.
        silent: share of units whose output is 0 after every element of every image.
        silent_in_source: the same of the quantised layer.
        saturated: share of outputs at the greatest count.
        settled: nothing was left to send when the elements ended.
        inner_steps: inner steps of the longest element, of the images whose spikes were counted.
        residual: mean distance of the membranes from 1/2 when an element ends, in thresholds, of neurons between their
            bounds; at most 1/2 where all have settled; None where no steps were run.
        events: spikes of either sign of all populations per image, all inner steps together.
        negative: share of negative ones among them.
        populations: spikes of either sign per image by population.
        recurrent_events: events per image that carry states from element to element.
        counted_images: number of images that inner_steps, residual and all events are of.
        first_difference: (image, element, unit, source's output, output) of the first that differs; None if all are equal.
    """

    name: str
    kind: str
    wiring: str
    units: int
    neurons: int
    elements: int
    threshold_least: float
    threshold_greatest: float
    source_mean: float
    spiking_mean: float
    source_size: float
    correlation: float | None
    errors: dict[str, Term]
    equal: float
    silent: float
    silent_in_source: float
    saturated: float
    settled: bool
    inner_steps: int
    residual: float | None
    events: float
    negative: float
    populations: dict[str, float]
    recurrent_events: float
    counted_images: int
    first_difference: tuple[int, int, int, float, float] | None

    def to_dict(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)

    def difference_in_words(self) -> str | None:
        """The first difference, or None."""
        if self.first_difference is None:
            return None
        image, element, unit, wanted, got = self.first_difference
        return f"{self.name}: element {element}, unit {unit}, image {image}: {wanted:.6g} became {got:.6g}"


class RecurrentSums:
    """Running sums of one recurrent layer over batches.

    Args:
        name: of the layer.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.images = 0
        self.counted = 0
        self.elements = 0
        self.inner_steps = 0
        self.settled = True
        self.sums: dict[str, float] = {}
        self.populations: dict[str, int] = {}
        self.first_difference: tuple[int, int, int, float, float] | None = None
        self.pairs = OutputPairs()
        self._layer: SpikingRecurrent | None = None
        self._spoke = torch.zeros(0, dtype=torch.bool)
        self._active = torch.zeros(0, dtype=torch.bool)

    def add(self, x: torch.Tensor, wanted: torch.Tensor, layer: SpikingRecurrent) -> None:
        """Add one batch, after the spiking layer has run on it.

        Args:
            x: input of the quantised layer in the source network [B, N, inputs].
            wanted: its output [B, N, hidden].
            layer: the spiking layer.
        """
        received, run = layer.received, layer.last_run
        assert received is not None
        assert run is not None
        unit = spike_unit(layer.cell.quantisers[layer.cell.states[0]])
        own = layer.cell(received).double()
        got, wanted = run.output.double(), wanted.double()
        self.pairs.add(wanted, got)
        self._add("size", wanted.abs().sum())
        terms = {"unsettled": got - own, "propagated": own - wanted, "total": got - wanted}
        for name, term in terms.items():
            for key, value in (("mean", term), ("absolute", term.abs()), ("square", term * term)):
                self._add(f"{name} {key}", value.sum())
        differs = terms["total"].abs() > 1e-3 * torch.as_tensor(unit.value).double()
        self._add("equal", (~differs).sum())
        self._add("saturated", (run.counts[layer.cell.states[0]] >= unit.hi).sum())
        if self.first_difference is None and bool(differs.any()):
            image, element, hidden = differs.nonzero()[0].tolist()
            place = image, element, hidden
            self.first_difference = (self.images + image, element, hidden, float(wanted[place]), float(got[place]))
        spoke, active = ((value != 0).flatten(0, 1).any(0).cpu() for value in (got, wanted))
        self._spoke = spoke if not self.images else self._spoke | spoke
        self._active = active if not self.images else self._active | active
        self.settled &= run.settled
        self._count(layer, received, run)
        self._layer = layer
        self.images += len(got)
        self.elements = max(self.elements, got.shape[1])

    def _add(self, key: str, value: torch.Tensor) -> None:
        self.sums[key] = self.sums.get(key, 0.0) + float(value)

    def _count(self, layer: SpikingRecurrent, received: torch.Tensor, run: SequenceRun) -> None:
        """Adds the spikes of a run; one without steps is run again step by step for some of its images."""
        images = len(received)
        if not (run.stepped or (run.steps and layer.wiring == "count")):
            images = min(images, COUNTED_IMAGES - self.counted)
            if images <= 0:
                return
            run = run_sequence(layer.cell, received[:images], layer.wiring, layer.most_steps)
        self.counted += images
        self.inner_steps = max(self.inner_steps, *run.steps)
        for name in run.positive:
            self.populations[name] = self.populations.get(name, 0) + run.positive[name] + run.negative[name]
        self.sums["negative"] = self.sums.get("negative", 0.0) + sum(run.negative.values())
        self.sums["recurrent"] = self.sums.get("recurrent", 0.0) + run.recurrent
        if run.residual is not None:
            self.sums["residual"] = self.sums.get("residual", 0.0) + run.residual * images

    def report(self) -> RecurrentReport:
        """The figures over all batches so far.

        Raises: ValueError if there was none.
        """
        if self._layer is None:
            raise ValueError(f"layer {self.name!r}: there are no images to report on")
        cell = self._layer.cell
        value = torch.as_tensor(spike_unit(cell.quantisers[cell.states[0]]).value)

        def mean(key: str) -> float:
            return self.sums[key] / self.pairs.count

        def term(name: str) -> Term:
            return Term(mean(f"{name} mean"), mean(f"{name} absolute"), mean(f"{name} square") ** 0.5)

        spikes = sum(self.populations.values())
        return RecurrentReport(
            name=self.name,
            kind=type(cell).__name__,
            wiring=self._layer.wiring,
            units=cell.hidden,
            neurons=cell.hidden * len(cell.quantisers),
            elements=self.elements,
            threshold_least=float(value.min()),
            threshold_greatest=float(value.max()),
            source_mean=self.pairs.means[0],
            spiking_mean=self.pairs.means[1],
            source_size=mean("size"),
            correlation=self.pairs.correlation,
            errors={name: term(name) for name in (*RECURRENT_TERMS, "total")},
            equal=mean("equal"),
            silent=1.0 - int(self._spoke.sum()) / cell.hidden,
            silent_in_source=1.0 - int(self._active.sum()) / cell.hidden,
            saturated=mean("saturated"),
            settled=self.settled,
            inner_steps=self.inner_steps,
            residual=self.sums["residual"] / self.counted if "residual" in self.sums else None,
            events=spikes / self.counted,
            negative=self.sums["negative"] / spikes if spikes else 0.0,
            populations={name: count / self.counted for name, count in self.populations.items()},
            recurrent_events=self.sums["recurrent"] / self.counted,
            counted_images=self.counted,
            first_difference=self.first_difference,
        )
