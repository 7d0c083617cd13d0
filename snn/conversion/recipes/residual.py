"""Recipes that look at the membranes of a short first run: silenced neurons (SRP) and shifted starts (COS)."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from snn.conversion.layers import SpikingLayer
from snn.conversion.network import ConvertedNetwork, Preparation
from snn.conversion.neurons import soft_reset_if
from snn.conversion.recipes.rate_coded import RateCoded, check_count
from snn.conversion.visits import visited_layers

_LEFT_OVER = 1e-3
_MARGIN = 1e-3


@dataclass(frozen=True)
class SRP(RateCoded):
    """Neurons whose membrane ends a first run at or below 0 have sent too much; they are silent in the run that counts.

    Before every run of T steps each batch runs `tau` steps; neurons with v(tau) <= 0.001 theta are masked and all
    membranes go back to their start. Other options as in `RateCoded`.

    Args:
        tau: steps of the first run.
    Source: Hao et al., Reducing ANN-SNN conversion error through residual membrane potential, AAAI 2023.
    """

    tau: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("tau", self.tau, 1)

    def neurons(self, name: str, ceiling: float, clips: bool) -> SpikingLayer:
        return SpikingLayer(name, soft_reset_if, ceiling=ceiling)

    def preparation(self, T: int) -> Preparation | None:
        return _Silenced(self.tau)


@dataclass(frozen=True)
class COS(RateCoded):
    """Starts each neuron higher or lower by what makes up for one spike too few or too many.

    Before every run, layer after layer, `rho` steps show how each membrane ends: below 0 after a spike, the start goes
    down by at least theta and far enough to lose one spike; at theta or above, up accordingly. Other options as in
    `RateCoded`.

    Args:
        rho: steps of the first run.
    Source: Hao et al., Bridging the gap between ANNs and SNNs by calibrating offset spikes, ICLR 2023.
    """

    rho: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_count("rho", self.rho, 1)

    def neurons(self, name: str, ceiling: float, clips: bool) -> SpikingLayer:
        return SpikingLayer(name, soft_reset_if, ceiling=ceiling)

    def preparation(self, T: int) -> Preparation | None:
        return _Shifted(self.rho)


@dataclass(frozen=True)
class _Silenced(Preparation):
    tau: int

    @property
    def steps(self) -> int:
        return self.tau

    def prepare(self, network: ConvertedNetwork, x: torch.Tensor) -> None:
        network.run_in_one_chunk(x, self.tau)
        layers = network.layers().values()
        membranes = [layer.membrane for layer in layers]
        network.reset()
        for layer, v in zip(layers, membranes, strict=True):
            layer.start_from(layer.initial.expand_as(v), (v > _LEFT_OVER * layer.threshold).to(v.dtype))


@dataclass(frozen=True)
class _Shifted(Preparation):
    rho: int

    @property
    def steps(self) -> int:
        return self.rho

    def prepare(self, network: ConvertedNetwork, x: torch.Tensor) -> None:
        starts: dict[str, torch.Tensor] = {}

        def visit(layer: SpikingLayer, current: torch.Tensor) -> torch.Tensor:
            starts[layer.name] = shifted_start(layer, current)
            layer.start_from(starts[layer.name])
            return layer.sequence(current)

        with visited_layers(network, visit):
            network.run_in_one_chunk(x, self.rho)
        network.reset()
        for layer in network.layers().values():
            layer.start_from(starts[layer.name])


def shifted_start(layer: SpikingLayer, current: torch.Tensor) -> torch.Tensor:
    """The membrane [B, ...] to start from, after looking at a run over `current` [T, B, ...]; the layer is reset.

    In thresholds, with h the membrane before its reset: where v(T) < 0 after at least one spike the start falls by
    max(1, min over spikes of h - 0.999); where v(T) >= 1 it rises by max(1, 1.001 - max over silent steps of h).
    """
    counts, h = layer.membrane_run(current)
    end = h[-1] - counts[-1]
    fired = counts > 0
    least = torch.where(fired, h, torch.inf).amin(0)
    most = torch.where(fired, -torch.inf, h).amax(0)
    down = (least - (1.0 - _MARGIN)).clamp(min=1.0)
    up = ((1.0 + _MARGIN) - most).clamp(min=1.0)
    start = (layer.initial / layer.threshold).expand_as(end)
    shifted = torch.where((end < 0) & fired.any(0), start - down, start)
    return torch.where(end >= 1.0, start + up, shifted) * layer.threshold
