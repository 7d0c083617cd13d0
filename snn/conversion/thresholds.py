"""The value of a spike from data: greatest activation, percentile, or least squared error at T steps.

All rules see every activation of the calibration data; nothing is a running average or a sub-sample.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import nn

from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork

CANDIDATES = 1.0 - 0.01 * torch.arange(95, dtype=torch.float64)
"""Thresholds that the squared error is compared at, as parts of the greatest activation (Li et al., ICML 2021)."""
LAYER_BINS, CHANNEL_BINS = 8192, 1024


class Statistic(ABC):
    """Takes the activations of one layer, batch by batch."""

    @abstractmethod
    def add(self, rows: torch.Tensor, samples: int) -> None:
        """Takes activations [R, n] of so many samples: a row per threshold."""

    @abstractmethod
    def value(self) -> torch.Tensor:
        """The thresholds [R] in float64; 0 where no activation was positive."""


class Greatest(Statistic):
    """The greatest activation."""

    def __init__(self) -> None:
        self._value: torch.Tensor | None = None

    def add(self, rows: torch.Tensor, samples: int) -> None:
        most = rows.amax(1).double()
        self._value = most if self._value is None else torch.maximum(self._value, most)

    def value(self) -> torch.Tensor:
        assert self._value is not None
        return self._value.clamp(min=0.0)


class Percentile(Statistic):
    """The exact percentile, interpolated linearly between neighbours as numpy does.

    Only the values above it are kept, so that memory is their share of all values.

    Args:
        percent: in (0, 100].
        samples: number of samples that will come.
        count_zeros: False takes it over the activations above 0 alone.
    """

    def __init__(self, percent: float, samples: int, count_zeros: bool = True) -> None:
        self._above = 1.0 - percent / 100.0
        self._samples = samples
        self._count_zeros = count_zeros
        self._seen = 0
        self._positive: torch.Tensor | None = None
        self._kept: torch.Tensor | None = None

    def add(self, rows: torch.Tensor, samples: int) -> None:
        whole = rows.shape[1] // samples * self._samples
        wanted = min(whole, math.ceil(self._above * whole) + 2)
        kept = rows.topk(min(wanted, rows.shape[1]), dim=1, sorted=False).values
        if self._kept is not None:
            kept = torch.cat([self._kept, kept], 1)
            if kept.shape[1] > wanted:
                kept = kept.topk(wanted, dim=1, sorted=False).values
        self._kept = kept
        self._seen += rows.shape[1]
        positive = (rows > 0).sum(1)
        self._positive = positive if self._positive is None else self._positive + positive

    def value(self) -> torch.Tensor:
        assert self._kept is not None
        assert self._positive is not None
        ordered = self._kept.double().sort(1, descending=True).values
        count = torch.full_like(self._positive, self._seen) if self._count_zeros else self._positive
        rank = self._above * (count.double() - 1.0).clamp(min=0.0)  # from the greatest down
        upper = rank.floor().long().clamp(max=ordered.shape[1] - 1)
        lower = (upper + 1).clamp(max=ordered.shape[1] - 1)
        high, low = (ordered.gather(1, index.unsqueeze(1)).squeeze(1) for index in (upper, lower))
        return (high + (low - high) * (rank - upper)).clamp(min=0.0)


class LeastSquares(Statistic):
    """The candidate with the least squared error between activations and what T steps of a neuron can give for them.

    The sums that the error needs are kept per bin of activations, so that all candidates cost one pass.

    Args:
        greatest: greatest activation of each row [R].
        steps: T.
        start: membrane before the first step, in thresholds.
        highest: greatest spike count of a step.
    """

    def __init__(self, greatest: torch.Tensor, steps: int, start: float, highest: int = 1) -> None:
        self._greatest = greatest
        self._steps, self._start, self._most = steps, start, steps * highest
        self._bins = LAYER_BINS if len(greatest) == 1 else CHANNEL_BINS
        self._sums = torch.zeros(3, len(greatest) * self._bins, dtype=torch.float64, device=greatest.device)

    def add(self, rows: torch.Tensor, samples: int) -> None:
        scale = torch.where(self._greatest > 0, self._bins / self._greatest, 0.0)
        row, place = (rows > 0).nonzero(as_tuple=True)
        values = rows[row, place].double()
        index = (values * scale[row]).long().clamp(max=self._bins - 1) + row * self._bins
        for sums, weights in zip(self._sums, (None, values, values.square()), strict=True):
            sums += torch.bincount(index, weights, minlength=len(sums)).to(sums)

    def value(self) -> torch.Tensor:
        count, total, squares = self._sums.view(3, len(self._greatest), self._bins)
        middle = total / count.clamp(min=1.0)
        best = torch.full_like(self._greatest, math.inf)
        chosen = torch.zeros_like(self._greatest)
        for part in CANDIDATES.tolist():
            size = self._greatest * part
            unit = (size / self._steps).unsqueeze(1)
            spikes = (middle / unit.clamp(min=torch.finfo(torch.float64).tiny) + self._start).floor()
            given = spikes.clamp(0, self._most) * unit
            error = (squares - 2.0 * given * total + given.square() * count).sum(1)
            better = error < best
            best, chosen = torch.where(better, error, best), torch.where(better, size, chosen)
        return chosen


def observe(
    network: ConvertedNetwork,
    batches: Sequence[torch.Tensor],
    names: Sequence[str],
    see: Callable[[str, torch.Tensor], None],
) -> None:
    """Runs the source network over the batches; `see(name, activations [B, ...])` for each of the named activations."""

    def hook(name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...], torch.Tensor], None]:
        return lambda module, inputs, output: see(name, output)

    handles = [network.source.get_submodule(name).register_forward_hook(hook(name)) for name in names]
    try:
        with torch.no_grad():
            for batch in batches:
                network.source(batch)
    finally:
        for handle in handles:
            handle.remove()


def rows_of(activations: torch.Tensor, channelwise: bool) -> torch.Tensor:
    """Activations [B, C, ...] as [C, B ...] or [1, B C ...]."""
    if not channelwise or activations.dim() < 2:
        return activations.reshape(1, -1)
    return activations.transpose(0, 1).reshape(activations.shape[1], -1)


def shaped(values: torch.Tensor, channelwise: bool, dims: int, like: torch.Tensor) -> torch.Tensor:
    """Thresholds [R] as a number, or [C, 1, ...] for activations of so many dimensions."""
    values = values.to(like)
    return values.view(-1, *(1 for _ in range(dims - 2))) if channelwise and dims >= 2 else values.reshape(())


class _Gathering:
    """A statistic for each layer, fed from the source network."""

    def __init__(self, make: Callable[[str], Statistic], channelwise: bool) -> None:
        self._make, self._channelwise = make, channelwise
        self.statistics: dict[str, Statistic] = {}
        self.dims: dict[str, int] = {}
        self.like: dict[str, torch.Tensor] = {}

    def see(self, name: str, activations: torch.Tensor) -> None:
        if name not in self.statistics:
            self.statistics[name] = self._make(name)
            self.dims[name] = activations.dim()
            self.like[name] = activations.new_empty(())
        self.statistics[name].add(rows_of(activations, self._channelwise), len(activations))


def data_thresholds(
    network: ConvertedNetwork,
    batches: Sequence[torch.Tensor],
    names: Sequence[str],
    rule: str,
    *,
    percentile: float = 99.9,
    channelwise: bool = False,
    count_zeros: bool = True,
    steps: int = 1,
    start: float = 0.5,
) -> dict[str, torch.Tensor]:
    """Thresholds of the named spiking layers.

    A percentile of 0 (fewer activations are positive) becomes the greatest activation; a channel that is never active
    takes the greatest threshold of its layer, and a silent layer 1.

    Args:
        batches: inputs [B, ...].
        rule: "max", "percentile" or "mse".
        percentile: in (0, 100], for "percentile".
        channelwise: a threshold for each entry of the second dimension.
        count_zeros: False takes the percentile over positive activations alone.
        steps, start: run length and start in thresholds that "mse" is for.
    Returns: a number for each layer, or [C, 1, 1].
    """
    samples = sum(map(len, batches))
    layers = network.layers()
    greatest = _Gathering(lambda name: Greatest(), channelwise)
    if rule == "percentile":
        tails = _Gathering(lambda name: Percentile(percentile, samples, count_zeros), channelwise)

        def see(name: str, activations: torch.Tensor) -> None:
            greatest.see(name, activations)
            tails.see(name, activations)

        observe(network, batches, names, see)
        chosen = tails
    else:
        observe(network, batches, names, greatest.see)
        chosen = greatest
        if rule == "mse":
            most = {name: statistic.value() for name, statistic in greatest.statistics.items()}
            chosen = _Gathering(lambda name: LeastSquares(most[name], steps, start, layers[name].highest), channelwise)
            observe(network, batches, names, chosen.see)
    found = {}
    for name in names:
        value = positive_thresholds(chosen.statistics[name].value(), greatest.statistics[name].value())
        found[name] = _capped(shaped(value, channelwise, greatest.dims[name], greatest.like[name]), layers[name])
    return found


def positive_thresholds(values: torch.Tensor, greatest: torch.Tensor) -> torch.Tensor:
    """Thresholds [R] without zeros: those become the greatest activation of their row, then that of the layer, then 1."""
    values = torch.where(values > 0, values, greatest)
    most = values.max()
    return torch.where(values > 0, values, most if most > 0 else torch.ones_like(most))


def _capped(threshold: torch.Tensor, layer: SpikingLayer) -> torch.Tensor:
    """No greater than the activation can be; a burst of greatest size then is exactly that."""
    if math.isinf(layer.ceiling):
        return threshold
    threshold = threshold.clamp(max=layer.ceiling)
    if layer.highest == 1:
        return threshold
    return torch.minimum(threshold, torch.full_like(threshold, layer.ceiling / layer.highest))
