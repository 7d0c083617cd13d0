"""A converted network in plain loops, the independent truth of the report's tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn


@dataclass
class LoopedLayer:
    """Integrate-and-fire neurons in place of one ReLU."""

    threshold: torch.Tensor
    initial: torch.Tensor
    mask: torch.Tensor | None = None

    def count_bounds(self, steps: int) -> tuple[int, int]:
        return 0, steps


@dataclass
class LoopedRecord:
    input_sum: torch.Tensor
    output_sum: torch.Tensor
    events: torch.Tensor
    membrane: torch.Tensor
    initial: torch.Tensor
    steps: int


class LoopedNetwork:
    """Linear layers with integrate-and-fire neurons between them, one step and one layer after the other.

    Args:
        source: Sequential of Linear, ReLU, Linear, ReLU, ..., Linear.
        thresholds: of each ReLU.
        start: membrane before the first step, in thresholds.
    """

    coding: Literal["rate", "sum"] = "rate"

    def __init__(self, source: nn.Sequential, thresholds: list[torch.Tensor], T: int, start: float = 0.5) -> None:
        self.source, self.T = source, T
        self.notes = ["made by hand"]
        names = [name for name, layer in source.named_children() if isinstance(layer, nn.ReLU)]
        self._layers = {name: LoopedLayer(theta, theta * start) for name, theta in zip(names, thresholds, strict=True)}
        self._records: dict[str, LoopedRecord] = {}

    def layers(self) -> Mapping[str, LoopedLayer]:
        return self._layers

    def recurrent(self) -> Mapping[str, Any]:
        return {}

    @contextmanager
    def record(self) -> Iterator[Mapping[str, Any]]:
        yield self._records

    def __call__(self, x: torch.Tensor, T: int | None = None, return_all_steps: bool = False) -> torch.Tensor:
        steps = self.T if T is None else T
        self._records.clear()
        v: dict[str, torch.Tensor] = {}
        readouts = []
        total: Any = 0.0
        for _ in range(steps):
            h = x
            for name, module in self.source.named_children():
                if name not in self._layers:
                    h = module(h)
                    continue
                layer = self._layers[name]
                start = layer.initial.expand(h.shape)
                current, before = h, v.get(name, start)
                v[name] = before + current
                spikes = (v[name] >= layer.threshold).to(h)
                v[name] = v[name] - spikes * layer.threshold
                h = spikes * layer.threshold
                old = self._records.get(name)
                self._records[name] = LoopedRecord(
                    current + (old.input_sum if old else 0.0),
                    h + (old.output_sum if old else 0.0),
                    spikes + (old.events if old else 0.0),
                    v[name],
                    start,
                    1 + (old.steps if old else 0),
                )
            total = total + h
            readouts.append(total / (len(readouts) + 1))
        return torch.stack(readouts) if return_all_steps else readouts[-1]


def looped_network(T: int = 6, start: float = 0.5, seed: int = 0) -> LoopedNetwork:
    """Two hidden layers with dyadic weights and thresholds, in float64: every sum is exact."""
    draw = torch.Generator().manual_seed(seed)
    source = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 4))
    source.double().requires_grad_(False)
    with torch.no_grad():
        for parameter in source.parameters():
            parameter.copy_(torch.randint(-24, 24, parameter.shape, generator=draw).double() / 32)
    thresholds = [torch.tensor(1.0).double(), torch.tensor([0.5, 1.0, 2.0, 0.25, 1.0, 0.5, 1.0]).double()]
    return LoopedNetwork(source, thresholds, T, start)


def dyadic_images(count: int, seed: int = 1) -> torch.Tensor:
    """Images [count, 5] of multiples of 1/16."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(-16, 17, (count, 5), generator=draw).double() / 16
